"""Conformance tests for custom memories, barriers and callback storages, to inherit.

    class TestMyMemory(MemoryConformance):
        def make(self):
            return MyMemory(...)

pytest collects the tests with the class.  Each test calls ``make`` once and
uses new ids, so a store may keep the data of earlier tests.  The checks are
plain ``assert``; pytest is not required.
"""

from __future__ import annotations

import copy
import json
import threading
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import BarrierExpired
from ..protocols import Barrier, CallbackStorage, Memory
from ..wire import codec

#: Long enough for any test, in milliseconds.
_TTL = 3_600_000

#: Values that must be read as they were written.
_VALUES: dict[str, Any] = {
    "text": "ä\u2028 \U0001f600 \"'\\",
    "empty": "",
    "integer": -7,
    "large": 2**70,
    "float": 0.1,
    "true": True,
    "false": False,
    "null": None,
    "list": [1, [2.5, [None]], {}],
    "object": {"a": {"b": [{"c": "d"}]}, "": []},
}


class MemoryConformance:
    """Tests of a Memory."""

    def make(self) -> Memory:
        """The memory to test."""
        raise NotImplementedError("Return the memory to test.")

    def test_a_run_that_nobody_wrote_to_is_empty(self) -> None:
        memory = self.make()
        assert memory.read(_id()) == {}
        assert memory.read(_id(), ["a"]) == {}

    def test_values_come_back_as_they_were(self) -> None:
        memory, run = self.make(), _id()
        memory.write(run, _VALUES)
        found = memory.read(run)
        assert found == _VALUES
        for key, value in _VALUES.items():
            assert type(found[key]) is type(value), key

    def test_null_is_a_value(self) -> None:
        memory, run = self.make(), _id()
        memory.write(run, {"a": None})
        assert memory.read(run, ["a", "b"]) == {"a": None}

    def test_keys_choose(self) -> None:
        memory, run = self.make(), _id()
        memory.write(run, {"a": 1, "b": 2, "c": 3})
        assert memory.read(run, iter(("a", "c", "none"))) == {"a": 1, "c": 3}
        assert memory.read(run, []) == {}

    def test_a_key_is_any_text(self) -> None:
        memory, run = self.make(), _id()
        values = {"": 1, "a.b": 2, "ä \u2603": 3, "x" * 300: 4, "__type__": 5, "0": 6}
        memory.write(run, values)
        assert memory.read(run) == values
        assert memory.read(run, values) == values

    def test_a_write_leaves_other_keys(self) -> None:
        memory, run = self.make(), _id()
        memory.write(run, {"a": 1, "b": {"x": 1}})
        memory.write(run, {"b": {"y": 2}, "c": 3})
        memory.write(run, {})
        assert memory.read(run) == {"a": 1, "b": {"y": 2}, "c": 3}

    def test_a_write_may_come_again(self) -> None:
        memory, run = self.make(), _id()
        for _ in range(3):
            memory.write(run, {"a": [1]})
        assert memory.read(run) == {"a": [1]}

    def test_runs_are_apart(self) -> None:
        memory, one, other = self.make(), _id(), _id()
        memory.write(one, {"a": 1})
        memory.write(other, {"a": 2})
        assert (memory.read(one), memory.read(other)) == ({"a": 1}, {"a": 2})

    def test_clear_forgets_one_run(self) -> None:
        memory, one, other = self.make(), _id(), _id()
        memory.write(one, {"a": 1})
        memory.write(other, {"a": 2})
        memory.clear(one)
        memory.clear(one)
        memory.clear(_id())
        assert (memory.read(one), memory.read(other)) == ({}, {"a": 2})
        memory.write(one, {"b": 3})
        assert memory.read(one) == {"b": 3}

    def test_what_was_handed_in_or_out_is_nobody_elses(self) -> None:
        memory, run = self.make(), _id()
        given = {"a": [1]}
        memory.write(run, given)
        given["a"].append(2)
        memory.read(run)["a"].append(3)
        assert memory.read(run) == {"a": [1]}

    def test_parallel_writes_lose_nothing(self) -> None:
        memory, run = self.make(), _id()

        def write(thread: int) -> None:
            for n in range(5):
                memory.write(run, {f"{thread}.{n}": n})

        _together(write, range(8))
        assert len(memory.read(run)) == 40


class BarrierConformance:
    """Tests of a Barrier.

    Attributes:
      repeats: Whether a released barrier answers True again to the same unit.
        False for a barrier that answers in the same transaction that pushes
        the next steps.
    """

    repeats = True

    def make(self) -> Barrier:
        """The barrier to test."""
        raise NotImplementedError("Return the barrier to test.")

    def _made(self, parties: int) -> tuple[Barrier, str]:
        barrier, id = self.make(), _id()
        barrier.create(id, parties, _TTL)
        return barrier, id

    def test_the_last_unit_releases(self) -> None:
        barrier, id = self._made(3)
        assert [barrier.wait(id, unit) for unit in "abc"] == [False, False, True]

    def test_one_party_releases_at_once(self) -> None:
        barrier, id = self._made(1)
        assert barrier.wait(id, "a") is True

    def test_the_same_unit_counts_once(self) -> None:
        barrier, id = self._made(2)
        assert [barrier.wait(id, unit) for unit in "aaa"] == [False, False, False]
        assert barrier.wait(id, "b") is True

    def test_a_unit_is_answered_the_same_again(self) -> None:
        barrier, id = self._made(2)
        barrier.wait(id, "a")
        assert barrier.wait(id, "b") is True
        for _ in range(2):
            assert barrier.wait(id, "a") is False
            assert barrier.wait(id, "b") is self.repeats

    def test_created_again_nothing_changes(self) -> None:
        barrier, id = self._made(2)
        assert barrier.wait(id, "a") is False
        barrier.create(id, 2, _TTL)
        assert barrier.wait(id, "b") is True
        barrier.create(id, 2, _TTL)
        assert barrier.wait(id, "a") is False

    def test_barriers_are_apart(self) -> None:
        barrier, one = self._made(2)
        other = _id()
        barrier.create(other, 2, _TTL)
        assert [barrier.wait(id, "a") for id in (one, other)] == [False, False]
        assert [barrier.wait(id, "b") for id in (one, other)] == [True, True]

    def test_a_barrier_that_is_not_there_has_expired(self) -> None:
        barrier = self.make()
        for _ in range(2):
            try:
                barrier.wait(_id(), "a")
            except BarrierExpired:
                continue
            raise AssertionError("A barrier that was never made must raise BarrierExpired.")

    def test_extended_it_counts_on(self) -> None:
        barrier, id = self._made(2)
        barrier.wait(id, "a")
        barrier.extend(id, 2 * _TTL)
        barrier.extend(_id(), _TTL)
        assert barrier.wait(id, "b") is True

    def test_of_parallel_units_one_releases(self) -> None:
        barrier, id = self._made(24)
        released: list[int] = []

        def wait(unit: int) -> None:
            if barrier.wait(id, f"unit {unit}"):
                released.append(unit)

        _together(wait, range(24))
        assert len(released) == 1

    def test_one_unit_in_parallel_counts_once(self) -> None:
        barrier, id = self._made(2)
        answers: list[bool] = []
        _together(lambda _: answers.append(barrier.wait(id, "a")), range(12))
        assert answers == [False] * 12
        assert barrier.wait(id, "b") is True


class CallbackStorageConformance:
    """Tests of a CallbackStorage."""

    def make(self) -> CallbackStorage:
        """The storage to test."""
        raise NotImplementedError("Return the storage to test.")

    def test_a_stack_comes_back_as_it_was(self) -> None:
        storage = self.make()
        for stack in _stacks():
            assert _through(storage, stack) == stack

    def test_what_is_written_into_a_payload_is_json(self) -> None:
        storage = self.make()
        for stack in _stacks():
            stored = storage.store(copy.deepcopy(stack))
            codec.check(stored, "stored", depth=codec.MAX_DEPTH - 1)
            assert stored is not None, "Null in a payload stands for no stack at all."

    def test_the_stack_that_is_stored_is_left_alone(self) -> None:
        storage = self.make()
        for stack in _stacks():
            given = copy.deepcopy(stack)
            storage.store(given)
            assert given == stack

    def test_stacks_are_apart(self) -> None:
        storage = self.make()
        stacks = list(_stacks())
        stored = [_json(storage.store(copy.deepcopy(stack))) for stack in stacks]
        for _ in range(2):
            assert [storage.retrieve(copy.deepcopy(one)) for one in stored] == stacks

    def test_stored_again_both_are_there(self) -> None:
        storage = self.make()
        stack = _stack(_chain(5))
        stored = [_json(storage.store(copy.deepcopy(stack))) for _ in range(3)]
        assert [storage.retrieve(one) for one in stored] == [stack] * 3

    def test_a_chain_is_walked_to_its_end(self) -> None:
        """As in a run: after each step the rest of the retrieved stack is stored."""
        storage = self.make()
        outer = [_id(), _chain(3, "outer"), False]
        steps = _chain(40)["children"]
        expected, stack = list(steps), [outer, [_id(), {"__type__": "chain", "children": steps}, False]]
        seen = []
        while True:
            before, top = _through(storage, stack)
            assert before == outer
            first, *rest = top[1]["children"]
            seen.append(first)
            if not rest:
                break
            stack = [before, [_id(), {"__type__": "chain", "children": rest}, False]]
        assert seen == expected

    def test_threads_do_not_disturb_each_other(self) -> None:
        storage = self.make()
        wrong: list[int] = []

        def use(thread: int) -> None:
            for n in range(5):
                stack = _stack(_chain(30, f"thread {thread} {n}"))
                if _through(storage, stack) != stack:
                    wrong.append(thread)

        _together(use, range(8))
        assert wrong == []


def _id() -> str:
    return str(uuid.uuid4())


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _through(storage: CallbackStorage, stack: list[Any]) -> list[Any]:
    return storage.retrieve(_json(storage.store(copy.deepcopy(stack))))


def _chain(size: int, name: str = "step") -> dict[str, Any]:
    jobs = [
        {"__type__": "job", "class": "Docs::Extract", "args": [name, n, _VALUES], "queue": "ruby", "retry": 3}
        for n in range(size)
    ]
    return {"__type__": "chain", "children": jobs}


def _stack(*remaining: dict[str, Any] | None) -> list[Any]:
    return [[_id(), tree, tree is None] for tree in remaining]


def _stacks() -> Iterable[list[Any]]:
    yield []
    yield _stack(None)
    yield _stack(None, None, _chain(1))
    yield _stack(_chain(3), None, _chain(3, "another"))
    yield _stack(_chain(300), None)
    yield _stack({"__type__": "chain", "children": []})
    empty: dict[str, Any] = {"__type__": "chain", "children": []}
    group = {"__type__": "group", "children": [_chain(2), empty, *_chain(4)["children"]]}
    delayed = {"__type__": "with_delay", "delay": 86_400_000, "task": group}
    yield _stack({"__type__": "chain", "children": [delayed, group, *_chain(2)["children"]]}, None)


def _together(work: Callable[[int], None], numbers: Iterable[int]) -> None:
    """Run a function in parallel threads; raises the first of their errors."""
    numbers = list(numbers)
    gate = threading.Barrier(len(numbers))
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            gate.wait(30)
            work(number)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
