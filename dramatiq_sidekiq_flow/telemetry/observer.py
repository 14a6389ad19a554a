"""One job, from where its worker thread takes it up to where it is acknowledged.

Dramatiq tells of a job in four hooks and more, in an order that depends on
the order of the middleware, and leaves some out (a job that another middleware
skipped was never announced).  :class:`JobObserver` makes two of them, a begin
and an end, wherever in the list it stands.  The end comes after the
acknowledgement: only there is it known whether a failed job is tried again,
and whether a workflow went on.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from dramatiq import Middleware


class Observed:
    """A job that this thread works on.

    Attributes:
      message: Dramatiq's message.
      queue, actor, jid: Of the job.
      run_id: Of its workflow, or None.
      began, ended: When the actor was about to begin and when it had ended, in
        seconds of ``time.perf_counter``; None where it never ran.
      exception: What it failed with, whatever comes of it.
      outcome: ``done``, ``retry``, ``dead``, ``discard``, ``requeue`` or
        ``skip``; ``lost`` where its acknowledgement failed (it runs again elsewhere).
      kept: For the observer, from begin to end.
    """

    __slots__ = ("actor", "began", "ended", "exception", "jid", "kept", "message", "outcome", "queue", "run_id")

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
        self.outcome = "lost"
        self.kept: Any = None

    @property
    def elapsed(self) -> float | None:
        """Seconds from begin to end of the actor; None where it never ran."""
        if self.began is None:
            return None
        return (self.ended or time.perf_counter()) - self.began


class _AtHand(threading.local):
    job: Observed | None = None


class JobObserver(Middleware):
    """Base of what watches jobs: :meth:`begin` and :meth:`end`, in the same thread.

    Its place among other middleware does not matter.
    """

    def __init__(self) -> None:
        self._at_hand = _AtHand()

    def begin(self, job: Observed) -> None:
        """The actor is about to run."""

    def end(self, job: Observed) -> None:
        """The job was acknowledged, and ``outcome`` says what became of it."""

    @property
    def watching(self) -> bool:
        """False where nobody would see what is observed."""
        return True

    def before_process_message(self, broker: Any, message: Any) -> None:
        left = self._at_hand.job
        if left is not None:
            self._at_hand.job = None
            self.end(left)
        if self.watching:
            job = Observed(message)
            job.began = time.perf_counter()
            self._at_hand.job = job
            self.begin(job)

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        job = self._at_hand.job
        if job is not None:
            job.ended = time.perf_counter()

    def after_skip_message(self, broker: Any, message: Any) -> None:
        job = self._at_hand.job
        if job is None or job.message is not message:
            if not self.watching:
                return
            # A middleware before this one skipped it.
            job = self._at_hand.job = Observed(message)
        job.outcome = "skip"
        job.ended = time.perf_counter()

    def after_ack(self, broker: Any, message: Any) -> None:
        job = self._at_hand.job
        if job is None or job.message is not message:
            if not self.watching:
                return
            # Never taken up by a worker: no actor has its name.
            job = Observed(message)
        else:
            self._at_hand.job = None
        # (On brokers other than ours a message has no `failure`.)
        failure = getattr(message, "failure", None)
        job.exception = message._exception
        if failure is not None:
            job.outcome = failure.action
        elif job.outcome != "skip":
            job.outcome = "done" if job.exception is None else "dead" if message.failed else "retry"
        self.end(job)

    after_nack = after_ack
