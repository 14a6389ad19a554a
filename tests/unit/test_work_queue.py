"""The messages of a worker that wait for a thread, and the threads that wait for a message."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty
from types import SimpleNamespace
from typing import Any

import pytest
from dramatiq.common import iter_queue
from dramatiq.middleware.threading import raise_thread_exception

from dramatiq_sidekiq_flow.broker.queue_order import QueueOrder
from dramatiq_sidekiq_flow.broker.work_queue import WorkQueue

from ..running import eventually

ORDERS: list[Any] = [None, ["a", "b"], {"a": 2, "b": 1}]


def item(number: int, queue_name: str = "a", priority: int = 0) -> Any:
    return SimpleNamespace(number=number, queue_name=queue_name, priority=priority)


def work_queue(order: Any = None) -> WorkQueue:
    return WorkQueue(QueueOrder(order), lambda item: item, lambda item: item.priority)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(10) as pool:
        yield pool


def asleep(work: WorkQueue, count: int) -> Callable[[], bool]:
    return lambda: len(work._sleepers) == count


def test_without_an_order_the_priority_and_then_the_age_decide() -> None:
    work = work_queue()
    for number, (name, priority) in enumerate((("a", 5), ("b", 0), ("a", 5), ("a", 0), ("b", -1))):
        work.put(item(number, name, priority))
    assert (work.qsize(), work.empty()) == (5, False)
    assert [each.number for each in iter_queue(work)] == [4, 1, 3, 0, 2]
    assert (work.qsize(), work.empty()) == (0, True)


@pytest.mark.parametrize("order", ORDERS)
def test_a_queue_waits_as_long_as_it_has_an_item_here(order: Any) -> None:
    work = work_queue(order)
    assert not work.waiting("a")
    work.put(item(1))
    assert work.waiting("a")
    assert not work.waiting("b")
    work.get()
    assert not work.waiting("a")


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_comes(order: Any) -> None:
    work = work_queue(order)
    for get in (work.get_nowait, lambda: work.get(block=False), lambda: work.get(timeout=0.01)):
        with pytest.raises(Empty):
            get()
    assert not work._sleepers


def test_an_item_wakes_one_thread(threads: ThreadPoolExecutor) -> None:
    work = work_queue()
    waiting = [threads.submit(work.get, timeout=20) for _ in range(3)]
    eventually(asleep(work, 3))
    for left in (2, 1, 0):
        work.put(item(left))
        eventually(lambda left=left: len([each for each in waiting if not each.done()]) == left)
        assert len(work._sleepers) == left
    assert {each.result().number for each in waiting} == {0, 1, 2}


class Sleepless:
    """A lock that no thread waits for."""

    def acquire(self, timeout: float = -1) -> None:
        assert timeout == -1, "asleep"

    def release(self) -> None:
        pass


def test_an_item_that_comes_while_a_thread_goes_to_sleep_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    work = work_queue()
    monkeypatch.setattr("dramatiq_sidekiq_flow.broker.work_queue.threading", SimpleNamespace(Lock=Sleepless))
    take, late = work._take, [item(1)]

    def take_late() -> Any:
        found = take()
        if found is None and late:
            # Right after the thread has looked, and before it sleeps.
            work.put(late.pop())
        return found

    work._take = take_late
    assert work.get(timeout=20).number == 1
    assert not work._sleepers


def test_a_thread_that_is_interrupted_leaves_its_item_to_another(threads: ThreadPoolExecutor) -> None:
    """As a time limit does that fires late."""
    work = work_queue()
    ident: Future[int] = Future()

    def interrupted() -> Any:
        ident.set_result(threading.get_ident())
        return work.get(timeout=20)

    other = threads.submit(work.get, timeout=15)
    eventually(asleep(work, 1))
    first = threads.submit(interrupted)
    eventually(asleep(work, 2))
    raise_thread_exception(ident.result(), KeyError)
    # It wakes the thread that slept last.
    work.put(item(1))
    with pytest.raises(KeyError):
        first.result(20)
    assert other.result(10).number == 1
    assert not work._sleepers


@pytest.mark.parametrize("order", ORDERS)
def test_every_item_is_taken_once(threads: ThreadPoolExecutor, order: Any) -> None:
    work, count = work_queue(order), 2_000

    def produce(start: int) -> None:
        for number in range(start, start + count):
            work.put(item(number, "ab"[number % 2], number % 3))

    def consume() -> list[int]:
        taken: list[int] = []
        while True:
            found = work.get(timeout=20)
            work.task_done()
            if found.number < 0:
                return taken
            taken.append(found.number)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        consumers = [threads.submit(consume) for _ in range(6)]
        producers = [threads.submit(produce, start * count) for start in range(3)]
        for producer in producers:
            producer.result(60)
        work.join()
        for _ in consumers:
            work.put(item(-1))
        taken = [number for consumer in consumers for number in consumer.result(60)]
    finally:
        sys.setswitchinterval(before)
    assert sorted(taken) == list(range(3 * count))
    assert (work.qsize(), work.unfinished_tasks) == (0, 0)


def test_join_waits_until_all_is_done(threads: ThreadPoolExecutor) -> None:
    work = work_queue()
    work.join()
    for number in range(2):
        work.put(item(number))
    joined = threads.submit(work.join)
    eventually(lambda: work._joining)
    for left in (1, 0):
        assert not joined.done()
        work.get()
        work.task_done()
        assert work.unfinished_tasks == left
    joined.result(20)
    assert not work._joining
    with pytest.raises(ValueError, match="too many times"):
        work.task_done()


def test_an_item_for_this_thread_wakes_no_other(threads: ThreadPoolExecutor) -> None:
    work = work_queue()
    other: Future[Any] = threads.submit(work.get, timeout=20)
    eventually(asleep(work, 1))
    with work.for_this_thread():
        work.put(item(1))
    assert (work.qsize(), work.unfinished_tasks, len(work._sleepers)) == (0, 1, 1)
    work.put(item(2))
    assert other.result().number == 2
    assert work.get().number == 1
    with pytest.raises(Empty):
        work.get_nowait()


def test_after_the_block_items_are_for_all() -> None:
    work = work_queue()
    with work.for_this_thread():
        pass
    work.put(item(1))
    assert work.qsize() == 1


@pytest.mark.parametrize("order", ORDERS)
def test_an_item_is_looked_at_and_stays(order: Any) -> None:
    work = work_queue(order)
    assert work.peek() is None
    work.put(item(1, priority=1))
    assert work.peek().number == 1
    assert work.get().number == 1
    assert work.peek() is None


def test_the_first_item_is_looked_at() -> None:
    work = work_queue()
    work.put(item(1, priority=1))
    work.put(item(2, priority=0))
    assert work.peek().number == 2


def test_a_thread_that_finds_nothing_says_so() -> None:
    idle: list[int] = []
    work = WorkQueue(QueueOrder(), lambda item: item, lambda item: item.priority, lambda: idle.append(1))
    work.put(item(1))
    work.get()
    assert not idle
    with pytest.raises(Empty):
        work.get(timeout=0.01)
    assert idle == [1]
    with pytest.raises(Empty):
        work.get_nowait()
    assert idle == [1]
