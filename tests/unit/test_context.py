"""What a step sees of its run's memory: its own namespace first, then what is around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from dramatiq_sidekiq_flow.context import RunMemory
from dramatiq_sidekiq_flow.errors import ConfigurationError, InvalidOptions


class Backend:
    """A user's own memory, as the protocol asks for one: flat, by run."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}

    def write(self, run_id: str, values: Mapping[str, Any]) -> None:
        self.runs.setdefault(run_id, {}).update(values)

    def read(self, run_id: str, keys: Iterable[str] | None = None) -> dict[str, Any]:
        values = self.runs.get(run_id, {})
        return dict(values) if keys is None else {key: values[key] for key in keys if key in values}

    def clear(self, run_id: str) -> None:
        self.runs.pop(run_id, None)


@pytest.fixture
def flat() -> RunMemory:
    memory = RunMemory(Backend(), "run")
    memory.write({"a": "everybody's", "b": "everybody's", "c": "everybody's"})
    return memory


def test_without_a_namespace_it_is_flat(flat: RunMemory) -> None:
    assert flat.read("a", "nothing") == {"a": "everybody's"}
    assert flat.read() == dict.fromkeys("abc", "everybody's")


def test_the_nearest_counts(flat: RunMemory) -> None:
    left, inner = flat.within("left"), flat.within("left.inner")
    left.write({"a": "left's", "b": "left's"})
    inner.write({"a": "inner's"})
    assert inner.read("a", "b", "c", "d") == {"a": "inner's", "b": "left's", "c": "everybody's"}
    assert left.read("a", "b", "c") == {"a": "left's", "b": "left's", "c": "everybody's"}
    assert flat.within("right").read("a") == {"a": "everybody's"}
    # A namespace that only begins alike is another.
    assert flat.within("lef").read("a", "t.a") == {"a": "everybody's"}
    # The order of what is asked for is the order of what is found.
    assert list(inner.read("c", "a")) == ["c", "a"]


def test_all_others_are_there_by_their_full_names(flat: RunMemory) -> None:
    flat.within("left").write({"a": "left's", "b": "left's"})
    flat.within("left.inner").write({"b": "inner's"})
    full = {**dict.fromkeys("abc", "everybody's"), "left.a": "left's", "left.b": "left's", "left.inner.b": "inner's"}
    assert flat.read() == full
    assert flat.within("right").read() == full
    assert flat.within("left").read() == {**full, "a": "left's", "b": "left's", "inner.b": "inner's"}
    assert flat.within("left.inner").read() == {**full, "a": "left's", "b": "inner's", "inner.b": "inner's"}
    assert flat.within("right").read("left.a", "left.inner.b") == {"left.a": "left's", "left.inner.b": "inner's"}
    assert flat.within("left").within("").read("a") == {"a": "everybody's"}


def test_clear_forgets_all_of_the_run(flat: RunMemory) -> None:
    RunMemory(flat.backend, "another").write({"a": 1})
    flat.within("left").clear()
    assert flat.read() == {}
    assert RunMemory(flat.backend, "another").read() == {"a": 1}


@pytest.mark.parametrize("name", [".", "left.", ".left", "left..inner", 7])
def test_a_namespace_has_a_name(flat: RunMemory, name: Any) -> None:
    with pytest.raises(InvalidOptions, match="namespace"):
        flat.within(name)


def test_without_a_backend_the_error_says_what_to_do() -> None:
    memory = RunMemory(None, "run")
    for use in (memory.read, memory.clear, lambda: memory.write({"a": 1})):
        with pytest.raises(ConfigurationError, match=r"WorkflowMiddleware\(memory="):
            use()
