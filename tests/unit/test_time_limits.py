"""Time limits that threads set without a lock."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any

import attrs
import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import TimeLimit

from dramatiq_sidekiq_flow.broker.dramatiq_internals import unlock_time_limits

MINUTE = 60_000


@attrs.define
class Counted:
    """The lock of a manager, counting how often it is taken."""

    lock: Any
    taken: int = 0

    def __enter__(self) -> None:
        self.lock.acquire()
        self.taken += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.lock.release()


@pytest.fixture
def broker() -> dramatiq.Broker:
    return StubBroker(middleware=[TimeLimit()])


@pytest.fixture
def manager(broker: dramatiq.Broker) -> Any:
    (limits,) = broker.middleware
    assert isinstance(limits, TimeLimit)
    manager: Any = limits.manager
    manager.mu = Counted(manager.mu)
    unlock_time_limits(broker)
    return manager


def test_only_the_first_limit_of_a_thread_takes_the_lock(manager: Any) -> None:
    for _ in range(3):
        manager.add_timeout(1, MINUTE)
        assert manager.deadlines[1] > time.monotonic() + 50
        manager.remove_timeout(1)
        assert manager.deadlines == {1: None}
    assert manager.mu.taken == 1


@pytest.mark.parametrize("ms", [0, 500])
def test_a_limit_that_may_be_cleared_is_removed_with_the_lock(manager: Any, ms: int) -> None:
    manager.add_timeout(1, ms)
    manager.remove_timeout(1)
    assert manager.deadlines == {1: None}
    assert manager.mu.taken == 2


def test_a_limit_that_was_not_removed_is_replaced_with_the_lock(manager: Any) -> None:
    manager.add_timeout(1, MINUTE)
    manager.add_timeout(1, 2 * MINUTE)
    assert manager.deadlines[1] > time.monotonic() + 100
    assert manager.mu.taken == 2


def test_a_limit_that_does_not_exist_is_removed_with_the_lock(manager: Any) -> None:
    manager.remove_timeout(1)
    assert manager.deadlines == {1: None}
    assert manager.mu.taken == 1


def test_a_second_worker_changes_nothing(broker: dramatiq.Broker, manager: Any) -> None:
    before = manager.add_timeout, manager.remove_timeout
    unlock_time_limits(broker)
    assert (manager.add_timeout, manager.remove_timeout) == before


def test_a_manager_of_another_kind_is_left_alone(broker: dramatiq.Broker) -> None:
    (limits,) = broker.middleware
    assert isinstance(limits, TimeLimit)
    kind = type(limits.manager)
    limits.manager = type("Other", (kind,), {})(1000)
    unlock_time_limits(broker)
    assert "add_timeout" not in vars(limits.manager)


def test_a_limit_that_was_set_without_the_lock_interrupts_its_thread(manager: Any) -> None:
    manager.interval = 0.01
    manager.start()
    errors: list[BaseException] = []

    def endless() -> None:
        thread = threading.get_ident()
        manager.add_timeout(thread, MINUTE)
        manager.remove_timeout(thread)
        try:
            manager.add_timeout(thread, 10)
            while True:
                time.sleep(0.001)
        except BaseException as e:
            errors.append(e)

    thread = threading.Thread(target=endless)
    thread.start()
    thread.join(10)
    assert [type(error).__name__ for error in errors] == ["TimeLimitExceeded"]
