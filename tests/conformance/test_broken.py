"""The public suites fail for what is broken: each of these breaks one promise."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dramatiq_sidekiq_flow.errors import BarrierExpired
from dramatiq_sidekiq_flow.testing import BarrierConformance, CallbackStorageConformance, MemoryConformance


class Memory:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.runs: dict[str, dict[str, str]] = {}

    def write(self, run_id: str, values: Any) -> None:
        with self.lock:
            self.runs.setdefault(run_id, {}).update({key: json.dumps(value) for key, value in values.items()})

    def read(self, run_id: str, keys: Any = None) -> Any:
        run = self.runs.get(run_id, {})
        return {key: json.loads(run[key]) for key in (list(run) if keys is None else keys) if key in run}

    def clear(self, run_id: str) -> None:
        self.runs.pop(run_id, None)


class Replaces(Memory):
    def write(self, run_id: str, values: Any) -> None:
        self.runs[run_id] = {}
        super().write(run_id, values)


class OneRun(Memory):
    def write(self, run_id: str, values: Any) -> None:
        super().write("", values)

    def read(self, run_id: str, keys: Any = None) -> Any:
        return super().read("", keys)


class NullIsNothing(Memory):
    def read(self, run_id: str, keys: Any = None) -> Any:
        return {key: value for key, value in super().read(run_id, keys).items() if value is not None}


class FloatsOnly(Memory):
    def read(self, run_id: str, keys: Any = None) -> Any:
        return {k: float(v) if type(v) is int else v for k, v in super().read(run_id, keys).items()}


class NeverClears(Memory):
    def clear(self, run_id: str) -> None:
        pass


class ClearsAll(Memory):
    def clear(self, run_id: str) -> None:
        self.runs.clear()


class NoKeysIsAll(Memory):
    def read(self, run_id: str, keys: Any = None) -> Any:
        return super().read(run_id, list(keys or ()) or None)


class Shared(Memory):
    def write(self, run_id: str, values: Any) -> None:
        self.runs.setdefault(run_id, {}).update(values)

    def read(self, run_id: str, keys: Any = None) -> Any:
        run = self.runs.get(run_id, {})
        return {key: run[key] for key in (run if keys is None else keys) if key in run}


class Barrier:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.parties: dict[str, int] = {}
        self.units: dict[str, list[str]] = {}

    def create(self, barrier_id: str, parties: int, ttl: int) -> None:
        if barrier_id not in self.parties:
            self.parties[barrier_id], self.units[barrier_id] = parties, []

    def wait(self, barrier_id: str, unit: str) -> bool:
        with self.lock:
            if barrier_id not in self.parties:
                raise BarrierExpired("gone", barrier_id)
            units = self.units[barrier_id]
            if unit not in units:
                units.append(unit)
            return units.index(unit) == self.parties[barrier_id] - 1

    def extend(self, barrier_id: str, ttl: int) -> None:
        pass


class CountsTwice(Barrier):
    def wait(self, barrier_id: str, unit: str) -> bool:
        return super().wait(barrier_id, f"{unit} {len(self.units.get(barrier_id, ()))}")


class AnswersOnce(Barrier):
    def wait(self, barrier_id: str, unit: str) -> bool:
        known = unit in self.units.get(barrier_id, ())
        return super().wait(barrier_id, unit) and not known


class ReleasesForAll(Barrier):
    def wait(self, barrier_id: str, unit: str) -> bool:
        super().wait(barrier_id, unit)
        return len(self.units[barrier_id]) >= self.parties[barrier_id]


class StartsAgain(Barrier):
    def create(self, barrier_id: str, parties: int, ttl: int) -> None:
        self.parties[barrier_id], self.units[barrier_id] = parties, []


class MakesWhatIsMissing(Barrier):
    def wait(self, barrier_id: str, unit: str) -> bool:
        self.create(barrier_id, 2, 0)
        return super().wait(barrier_id, unit)


class ExtendingMakesAnew(Barrier):
    def extend(self, barrier_id: str, ttl: int) -> None:
        self.units[barrier_id] = []


class TooEarly(Barrier):
    def create(self, barrier_id: str, parties: int, ttl: int) -> None:
        super().create(barrier_id, max(1, parties - 1), ttl)


class Storage:
    def __init__(self) -> None:
        self.stored: list[str] = []
        self.lock = threading.Lock()

    def store(self, callbacks: Any) -> Any:
        with self.lock:
            self.stored.append(json.dumps(callbacks))
            return len(self.stored) - 1

    def retrieve(self, stored: Any) -> Any:
        return json.loads(self.stored[stored])


class OnlyTheLast(Storage):
    def retrieve(self, stored: Any) -> Any:
        return json.loads(self.stored[-1])


class ReadsOnce(Storage):
    def retrieve(self, stored: Any) -> Any:
        text, self.stored[stored] = self.stored[stored], "null"
        return json.loads(text)


class Shortens(Storage):
    def store(self, callbacks: Any) -> Any:
        short = [[id, t and {**t, "children": t["children"][:99]}, propagate] for id, t, propagate in callbacks]
        return super().store(short)


class Empties(Storage):
    def store(self, callbacks: Any) -> Any:
        stored = super().store(callbacks)
        callbacks.clear()
        return stored


class Bytes(Storage):
    def store(self, callbacks: Any) -> Any:
        super().store(callbacks)
        return {"at": b"1"}


class NoStackIsNull(Storage):
    def store(self, callbacks: Any) -> Any:
        return super().store(callbacks) if callbacks else None

    def retrieve(self, stored: Any) -> Any:
        return [] if stored is None else super().retrieve(stored)


def failures(suite: type[Any], make: Callable[[], Any]) -> list[str]:
    """The tests of a suite that fail."""
    tests = type("Tests", (suite,), {"make": lambda self: make()})
    failed = []
    names = [name for name in dir(tests) if name.startswith("test_")]
    assert len(names) > 6
    for name in names:
        try:
            getattr(tests(), name)()
        except Exception:
            failed.append(name)
    return failed


@pytest.mark.parametrize(
    ("suite", "make"),
    [(MemoryConformance, Memory), (BarrierConformance, Barrier), (CallbackStorageConformance, Storage)],
)
def test_what_is_right_passes(suite: type[Any], make: Callable[[], Any]) -> None:
    assert failures(suite, make) == []


@pytest.mark.parametrize(
    ("suite", "make"),
    [
        *((MemoryConformance, kind) for kind in Memory.__subclasses__()),
        *((BarrierConformance, kind) for kind in Barrier.__subclasses__()),
        *((CallbackStorageConformance, kind) for kind in Storage.__subclasses__()),
    ],
)
def test_what_is_broken_fails(suite: type[Any], make: Callable[[], Any]) -> None:
    assert failures(suite, make) != []


@pytest.mark.parametrize("suite", [MemoryConformance, BarrierConformance, CallbackStorageConformance])
def test_without_a_factory_nothing_passes(suite: type[Any]) -> None:
    with pytest.raises(NotImplementedError):
        suite().make()
