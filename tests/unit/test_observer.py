"""A begin and an end for each job, whatever Dramatiq's hooks leave out."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest
from dramatiq.broker import MessageProxy

from dramatiq_sidekiq_flow.telemetry.observer import JobExecution, JobObserver


class Recorder(JobObserver):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, str]] = []
        self.jobs: list[JobExecution] = []
        self.on = True

    @property
    def watching(self) -> bool:
        return self.on

    def begin(self, job: JobExecution) -> None:
        self.told.append(("begin", job.jid))

    def end(self, job: JobExecution) -> None:
        self.told.append((job.outcome, job.jid))
        self.jobs.append(job)


def message(jid: str) -> Any:
    return MessageProxy(dramatiq.Message("python", "step", (), {}, {}, message_id=jid))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_done(recorder: Recorder) -> None:
    job = message("1")
    recorder.before_process_message(None, job)
    recorder.after_process_message(None, job)
    assert recorder.told == [("begin", "1")]
    recorder.after_ack(None, job)
    assert recorder.told == [("begin", "1"), ("done", "1")]
    elapsed = recorder.jobs[0].elapsed
    assert elapsed is not None
    assert elapsed >= 0


def test_skipped_by_a_middleware_before_and_after(recorder: Recorder) -> None:
    before, after = message("1"), message("2")
    recorder.after_skip_message(None, before)
    recorder.after_ack(None, before)
    recorder.before_process_message(None, after)
    recorder.after_skip_message(None, after)
    recorder.after_ack(None, after)
    assert recorder.told == [("skip", "1"), ("begin", "2"), ("skip", "2")]
    assert recorder.jobs[0].elapsed is None


def test_an_acknowledgement_that_never_came_is_lost(recorder: Recorder) -> None:
    first, second = message("1"), message("2")
    recorder.before_process_message(None, first)
    recorder.after_process_message(None, first)
    recorder.before_process_message(None, second)
    recorder.after_ack(None, second)
    assert recorder.told == [("begin", "1"), ("lost", "1"), ("begin", "2"), ("done", "2")]


def test_rejected_without_a_try(recorder: Recorder) -> None:
    """An unknown actor: Dramatiq's consumer thread rejects it, while a worker thread is at work."""
    job = message("1")
    job.fail()
    job.stuff_exception(LookupError("no such actor"))
    recorder.after_nack(None, job)
    assert recorder.told == [("dead", "1")]
    assert isinstance(recorder.jobs[0].exception, LookupError)


def test_failed_on_any_broker(recorder: Recorder) -> None:
    again, dead = message("1"), message("2")
    for job in (again, dead):
        recorder.before_process_message(None, job)
        job.stuff_exception(ValueError())
        recorder.after_process_message(None, job, exception=ValueError())
    recorder.before_process_message(None, again)
    recorder.after_ack(None, again)
    recorder.before_process_message(None, dead)
    dead.fail()
    recorder.after_nack(None, dead)
    assert [told for told in recorder.told if told[0] not in ("begin", "lost")] == [("retry", "1"), ("dead", "2")]


def test_where_nobody_looks_nothing_is_told(recorder: Recorder) -> None:
    recorder.on = False
    job = message("1")
    recorder.before_process_message(None, job)
    recorder.after_process_message(None, job)
    recorder.after_skip_message(None, job)
    recorder.after_ack(None, job)
    assert recorder.told == []
