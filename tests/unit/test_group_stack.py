"""The steps of a group carry the same callback stack, which is read once."""

from __future__ import annotations

from typing import Any

import pytest

from dramatiq_sidekiq_flow.errors import InvalidCallbacks, InvalidNode
from dramatiq_sidekiq_flow.store.memory import RedisHashMemory
from dramatiq_sidekiq_flow.wire import callbacks, codec
from dramatiq_sidekiq_flow.wire.callbacks import load_stack
from dramatiq_sidekiq_flow.wire.dialect import SIDELINE
from dramatiq_sidekiq_flow.wire.payload import Payload
from dramatiq_sidekiq_flow.workflow.outputs import Outputs

OUTER, GROUP = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"


def stack(argument: Any, **job: Any) -> list[Any]:
    """The stack of a step of a group with one job behind it."""
    node = {"__type__": "job", "class": "after", "args": [argument], **job}
    return [[OUTER, {"__type__": "chain", "children": [node]}, False], [GROUP, None, True]]


def test_it_is_read_once() -> None:
    assert load_stack(stack(7)) is load_stack(stack(7))


@pytest.mark.parametrize("argument", [True, 1.0, 1, "1"])
def test_values_that_python_takes_for_equal_differ(argument: Any) -> None:
    load_stack(stack(1))
    load_stack(stack(argument))
    top, _ = load_stack(stack(argument))
    (found,) = top.remaining["children"][0]["args"]  # type: ignore[index]
    assert (type(found), found) == (type(argument), argument)


def test_another_thread_may_read_another_group_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    other, first = load_stack(stack(2)), load_stack(stack(1))

    class Switching(bytes):
        """Compared with the last stack, while another thread reads one of another group."""

        __hash__ = bytes.__hash__

        def __eq__(self, last: object) -> bool:
            callbacks._last_of_group = (b"", other)
            return bytes.__eq__(self, last)

    monkeypatch.setattr(callbacks, "_written_of_group", lambda value: Switching(codec.encode(value)))
    assert load_stack(stack(1)) is first


@pytest.mark.parametrize(
    "value", [[[GROUP, None, 1]], [[GROUP, None, None]], [["queues", None, True]], [[0, None, True]]]
)
def test_a_damaged_stack_is_refused_after_a_good_one(value: Any) -> None:
    load_stack([[GROUP, None, True]])
    for _ in range(2):
        with pytest.raises(InvalidCallbacks):
            load_stack(value)


def test_a_stack_that_json_cannot_carry_is_refused_by_its_own_error() -> None:
    """A callback storage of the application may return anything."""
    with pytest.raises(InvalidNode):
        load_stack(stack(1, queue=object()))


def test_each_run_has_a_memory_of_its_own() -> None:
    outputs = Outputs(RedisHashMemory(), None)  # type: ignore[arg-type]
    first, second = (Payload(b"", {}, "step", [], "1", (), run_id=run_id) for run_id in ("a", "b"))
    for _ in range(2):
        assert outputs.of(first, None).memory.key == "swf:mem:a"
        assert outputs.of(second, None).memory.key == "swf:mem:b"
        assert outputs.of(second._replace(dialect=SIDELINE), None).memory.key == "sl:mem:b"
    assert not outputs.of(first._replace(run_id=None), None).memory.key
