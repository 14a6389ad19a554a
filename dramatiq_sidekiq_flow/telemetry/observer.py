"""Executions of jobs, from the start of the actor to the acknowledgement.

Dramatiq reports a job in four hooks and more, in an order that depends on the
order of the middleware, and leaves some out (a job that another middleware
skipped has no ``before_process_message``).  :class:`JobObserver` reduces them to
a begin and an end, at any position in the list.  The end comes after the
acknowledgement: only then is it certain if a failed job is retried, and if a
workflow continues.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Literal

from dramatiq import Middleware

from ..broker.dramatiq_internals import exception_of

Outcome = Literal["done", "retry", "dead", "discard", "requeue", "skip", "lost"]


class JobExecution:
    """One execution of a job, by the current thread.

    Attributes:
      message: Dramatiq's message.
      queue, actor, jid: Queue, actor name and id of the job.
      run_id: The run of its workflow; None if it has none.
      began, ended: Start and end of the actor, in seconds of
        ``time.perf_counter``; None if it never ran.
      exception: The error of the actor, also if the job is retried; None if it succeeded.
      outcome: ``lost`` if the acknowledgement failed: the job runs again elsewhere.
      state: A value that the observer keeps from begin to end.
    """

    __slots__ = ("actor", "began", "ended", "exception", "jid", "message", "outcome", "queue", "run_id", "state")

    def __init__(self, message: Any) -> None:
        self.message = message
        self.queue: str = message.queue_name
        self.actor: str = message.actor_name
        self.jid: str = message.message_id
        payload = getattr(message, "payload", None)
        self.run_id: str | None = None if payload is None else payload.run_id
        self.began: float | None = None
        self.ended: float | None = None
        self.exception: BaseException | None = None
        self.outcome: Outcome = "lost"
        self.state: Any = None

    @property
    def elapsed(self) -> float | None:
        """Seconds from start to end of the actor; None if it never ran."""
        if self.began is None:
            return None
        return (self.ended or time.perf_counter()) - self.began


class _Current(threading.local):
    job: JobExecution | None = None


class JobObserver(Middleware):
    """Base class of middleware that observes jobs: :meth:`begin` and :meth:`end`, in the same thread.

    Its position among other middleware does not matter.
    """

    def __init__(self) -> None:
        self._current = _Current()

    def begin(self, job: JobExecution) -> None:
        """Handle the start of a job; called before the actor runs."""

    def end(self, job: JobExecution) -> None:
        """Handle the end of a job; called after the acknowledgement, with the ``outcome``."""

    @property
    def watching(self) -> bool:
        """True if jobs are observed; False saves the work if nothing would be reported."""
        return True

    def before_process_message(self, broker: Any, message: Any) -> None:
        unfinished = self._current.job
        if unfinished is not None:
            self._current.job = None
            self.end(unfinished)
        if self.watching:
            job = JobExecution(message)
            job.began = time.perf_counter()
            self._current.job = job
            self.begin(job)

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        job = self._current.job
        if job is not None:
            job.ended = time.perf_counter()

    def after_skip_message(self, broker: Any, message: Any) -> None:
        job = self._current.job
        if job is None or job.message is not message:
            if not self.watching:
                return
            # A middleware before this one skipped the job.
            job = self._current.job = JobExecution(message)
        job.outcome = "skip"
        job.ended = time.perf_counter()

    def after_ack(self, broker: Any, message: Any) -> None:
        job = self._current.job
        if job is None or job.message is not message:
            if not self.watching:
                return
            # No worker thread ran the job, since no actor has its name.
            job = JobExecution(message)
        else:
            self._current.job = None
        job.exception = exception_of(message)
        job.outcome = _outcome(job, message)
        self.end(job)

    after_nack = after_ack


def _outcome(job: JobExecution, message: Any) -> Outcome:
    # Messages of other brokers have no attribute "failure".
    failure = getattr(message, "failure", None)
    if failure is not None:
        action: Outcome = failure.action
        return action
    if job.outcome == "skip":
        return "skip"
    if job.exception is None:
        return "done"
    return "dead" if message.failed else "retry"
