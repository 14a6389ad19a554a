"""The background thread of a role: when its work runs."""

from __future__ import annotations

import threading

import pytest

from dramatiq_sidekiq_flow.process.loop import Loop

from ..running import eventually


def test_it_works_at_intervals_and_earlier_when_hurried() -> None:
    runs: list[int] = []
    loop = Loop("test", interval=lambda: 3600.0, work=lambda: runs.append(1), at_once=True)
    loop.start()
    eventually(lambda: len(runs) == 1)
    loop.hurry(0.01)
    eventually(lambda: len(runs) == 2)
    loop.stop()
    assert len(runs) == 2


def test_hurried_while_the_work_is_due_it_works_once_more() -> None:
    """The work may have looked before the caller wrote what it is hurried for."""
    runs: list[int] = []
    loop = Loop("test", interval=lambda: 3600.0, work=lambda: runs.append(1), at_once=True)
    loop._due = 0.0
    loop.hurry(0.02)
    loop.start()
    eventually(lambda: len(runs) == 2)
    loop.stop()


def test_a_stop_waits_for_a_start_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop("under test", interval=lambda: 60.0, work=lambda: None)
    original = threading.Thread.start
    errors: list[BaseException] = []

    def stop() -> None:
        try:
            loop.stop()
        except BaseException as e:
            errors.append(e)

    stopper = threading.Thread(target=stop)

    def start(thread: threading.Thread) -> None:
        if thread.name == "under test":
            original(stopper)
            stopper.join(0.1)  # it waits for the lock, or fails at once
        original(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    loop.start()
    stopper.join(10)
    assert not errors
    assert not stopper.is_alive()
    assert loop.stopping
