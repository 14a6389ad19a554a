"""Waits until a queue has no jobs left.  For tests."""

from __future__ import annotations

import time

from dramatiq.errors import QueueJoinTimeout

from ..store import queues
from ..store.connection import Connection
from ..wire.payload_fields import queue_of


def join(connection: Connection, queue_name: str, interval: float, timeout: float | None) -> None:
    """Wait until a queue has nothing waiting, in flight, scheduled or to be retried.

    Parameters:
      interval, timeout: Seconds.

    Raises:
      QueueJoinTimeout: if the timeout passes first.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while _is_unfinished(connection, queue_name):
        if deadline is not None and time.monotonic() >= deadline:
            raise QueueJoinTimeout(queue_name)
        time.sleep(interval)


def _is_unfinished(connection: Connection, queue_name: str) -> bool:
    count, later = queues.unfinished(connection, queue_name)
    return bool(count) or any(queue_of(member) == queue_name for member in later)
