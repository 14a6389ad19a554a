"""The order of queues within one process."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from dramatiq_sidekiq_flow.broker.dramatiq_internals import message_of, priority_of
from dramatiq_sidekiq_flow.broker.queue_order import QueueOrder
from dramatiq_sidekiq_flow.broker.work_queue import WorkQueue
from dramatiq_sidekiq_flow.errors import ConfigurationError


@dataclasses.dataclass(order=True)
class Item:
    """What Dramatiq puts into its work queue."""

    priority: int
    message: Any = dataclasses.field(compare=False)
    number: int = dataclasses.field(default_factory=itertools.count().__next__)


def filled(order: QueueOrder, *jobs: tuple[str, int]) -> WorkQueue:
    """A work queue with jobs of (queue, priority of the actor)."""
    work = WorkQueue(order, message_of, priority_of)
    for number, (queue_name, priority) in enumerate(jobs):
        message: Any = SimpleNamespace(queue_name=queue_name, number=number)
        work.put(Item(priority, message))
    return work


def drained(work: WorkQueue) -> list[str]:
    names = []
    while not work.empty():
        names.append(work.get_nowait().message.queue_name)
    return names


def test_strict_takes_a_queue_to_its_end() -> None:
    order = QueueOrder(["critical", "default"])
    work = filled(order, ("low", 0), ("default", 0), ("critical", 9), ("default", 0), ("critical", 0))
    assert drained(work) == ["critical", "critical", "default", "default", "low"]


def test_a_job_of_a_higher_queue_overtakes() -> None:
    work = filled(QueueOrder(["critical", "default"]), ("default", 0), ("default", 0))
    assert work.get_nowait().message.queue_name == "default"
    work.put(Item(0, SimpleNamespace(queue_name="critical")))
    assert drained(work) == ["critical", "default"]


def test_within_a_queue_dramatiqs_order_holds() -> None:
    work = filled(QueueOrder(["a"]), ("a", 5), ("a", 0), ("a", 5), ("a", 0))
    assert [work.get_nowait().message.number for _ in range(4)] == [1, 3, 0, 2]


def test_queues_that_are_not_named_share_the_last_rank() -> None:
    work = filled(QueueOrder(["a"]), ("c", 0), ("b", 0), ("c", 0), ("a", 0))
    assert [work.get_nowait().message.number for _ in range(4)] == [3, 0, 1, 2]


def test_pairs_of_an_older_dramatiq() -> None:
    work = WorkQueue(QueueOrder(["a"]), message_of, priority_of)
    for priority, name in enumerate(("b", "a", "a")):
        work.put((priority, SimpleNamespace(queue_name=name)))
    assert [work.get_nowait()[0] for _ in range(3)] == [1, 2, 0]


def test_pairs_of_equal_priority_are_taken_in_their_order() -> None:
    work = WorkQueue(QueueOrder(None), message_of, priority_of)
    messages = [SimpleNamespace(queue_name="a", number=number) for number in range(5)]
    for message in messages:
        # As those of Dramatiq before 2.2, they cannot be compared.
        work.put((0, message))
    assert [work.get_nowait()[1].number for _ in messages] == [0, 1, 2, 3, 4]


def test_weights_are_shares() -> None:
    order = QueueOrder({"heavy": 3, "light": 1})
    names = drained(filled(order, *([("light", 0)] * 20 + [("heavy", 0)] * 20)))
    assert [names[:start].count("heavy") for start in (4, 8, 16)] == [3, 6, 12]
    assert sorted(names) == ["heavy"] * 20 + ["light"] * 20


def test_an_idle_queue_saves_nothing_up() -> None:
    order = QueueOrder({"busy": 1, "idle": 1, "other": 2})
    work = filled(order, *[("busy", 0)] * 50)
    for _ in range(40):
        work.get_nowait()
    for _ in range(10):
        work.put(Item(0, SimpleNamespace(queue_name="idle")))
    names = drained(work)
    assert 3 <= names[:8].count("idle") <= 5


@pytest.mark.parametrize(
    ("order", "mode", "weights"),
    [
        (None, "random", [1, 1]),
        (["a", "b"], "strict", [0, 0]),
        ({"a": 3}, "weighted", [3, 1]),
        ({"a": 1, "b": 1}, "random", [1, 1]),
    ],
)
def test_modes_are_named_as_sidekiq_names_them(order: Any, mode: str, weights: list[int]) -> None:
    made = QueueOrder(order)
    assert made.mode == mode
    assert [made.weight("a"), made.weight("b")] == weights


@pytest.mark.parametrize("order", [["a", "a"], {"a": 0}, {"a": 1.5}, {"a": True}, "critical", [["a", 1]]])
def test_an_order_that_is_none_is_refused(order: Any) -> None:
    with pytest.raises(ConfigurationError):
        QueueOrder(order)
