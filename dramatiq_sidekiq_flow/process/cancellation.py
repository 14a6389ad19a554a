"""Cancels jobs of actors, as Sidekiq cancels iterable jobs (``job/iterable.rb``).

``cancel!`` in Ruby sets a field of the hash ``it-JID``.  An actor with the
option ``cancellable=True`` is not started if its job was cancelled, and calls
``cancelled()`` from time to time while it runs.  As in Ruby, a cancelled job
is done, not failed: its workflow continues.
"""

from __future__ import annotations

import time
from contextvars import ContextVar

from ..store import processes
from ..store.connection import Connection

#: Milliseconds between two requests to Redis (``STATE_FLUSH_INTERVAL``).
INTERVAL = 5_000


class _Job:
    __slots__ = ("asked", "cancelled", "connection", "jid")

    def __init__(self, connection: Connection, jid: str) -> None:
        self.connection = connection
        self.jid = jid
        self.cancelled = False
        self.asked = float("-inf")

    def ask(self, interval: int) -> bool:
        if not self.cancelled and time.monotonic() - self.asked >= interval / 1000:
            self.cancelled = processes.cancelled(self.connection, self.jid)
            self.asked = time.monotonic()
        return self.cancelled


_current: ContextVar[_Job | None] = ContextVar("dramatiq_sidekiq_flow_cancellable", default=None)


def cancelled(interval: int = INTERVAL) -> bool:
    """Return True if the current job was cancelled.  For actors with ``cancellable=True``; false for others.

    Parameters:
      interval: Milliseconds between two requests to Redis; between them, the
        last answer is returned.
    """
    job = _current.get()
    return job is not None and job.ask(interval)


def enter(connection: Connection, jid: str) -> bool:
    """Set the current job, of a cancellable actor; returns whether it was cancelled before it began."""
    job = _Job(connection, jid)
    _current.set(job)
    return job.ask(0)


def leave() -> None:
    """Clear the current job."""
    _current.set(None)
