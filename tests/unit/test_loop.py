"""The background thread of a role: when its work runs."""

from __future__ import annotations

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
