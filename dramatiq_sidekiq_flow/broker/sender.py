"""Pushes the messages of a broker as Sidekiq jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from ..errors import NotReplicated
from ..store import queues
from ..store.connection import LOST
from ..store.replication import Unconfirmed
from ..wire import codec
from .worker_process import WorkerProcess

#: Reason of a push: ``send``, ``start`` (the first jobs of a run) or ``advance``.
Why = Literal["send", "start", "advance"]


class Sender:
    """Pushes the jobs of one broker.

    Attributes:
      stamps: Functions called with the keys of each job before it is pushed, and the reason.
    """

    def __init__(self, process: WorkerProcess) -> None:
        self.logger = get_logger(__name__, type(self))
        self.process = process
        self.stamps: list[Callable[[dict[str, Any], Why], None]] = []

    def stamp(self, fields: dict[str, Any], why: Why) -> None:
        """Call each of :attr:`stamps`, which add keys such as a trace context; an error is logged."""
        for stamp in self.stamps:
            try:
                stamp(fields, why)
            except Exception:
                self.logger.warning("%r failed, so the job is pushed without what it adds.", stamp, exc_info=True)

    def push(self, fields: dict[str, Any], delay: int | None, *, now: float) -> NotReplicated | None:
        """Push a job to its queue, or to ``schedule``.

        Parameters:
          delay: Milliseconds.
          now: Epoch seconds.

        Returns:
          The error to raise after all other work, if the job was pushed but too
          few replicas confirm it; else None.

        Raises:
          ConnectionClosed: if Redis cannot be reached.
        """
        try:
            if delay is not None and delay > 0:
                self._schedule(fields, delay / 1000, now)
            else:
                fields["enqueued_at"] = now
                queues.push(self.process.connection, fields["queue"], (codec.encode_payload(fields),))
        except Unconfirmed as e:
            return e.of_job(fields["jid"])
        except LOST as e:
            raise ConnectionClosed(e) from None
        return None

    def _schedule(self, fields: dict[str, Any], seconds: float, now: float) -> None:
        self.process.poller.nudge(seconds)
        queues.schedule(self.process.connection, now + seconds, codec.encode_payload(fields))
