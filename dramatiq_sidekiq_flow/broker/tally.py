"""What this process works on, and what it has done.

Called for every job by every thread, so it does next to nothing: a place in a
dict at the start, a few additions at the end.  Redis hears of it with a beat.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from ..store.stats import Counts, Executions
from ..wire import codec

if TYPE_CHECKING:
    from .message import SidekiqMessage

#: So many jobs are counted together, where a beat does not come before.
GATHER = 1000

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Tally:
    """Counts executions, as Sidekiq does (``processor.rb``, ``metrics/tracking.rb``)."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[SidekiqMessage, float]] = {}
        # Appended to without a lock: one that every thread takes for every job
        # makes them wait in line for the interpreter, and halves what it does.
        self._finished: deque[tuple[str | None, int, bool]] = deque()
        self._lock = threading.Lock()
        self._processed = self._failed = self._number = 0
        self._classes: dict[str, Executions] = {}

    def start(self, message: SidekiqMessage) -> None:
        """This thread begins with a job."""
        self._running[threading.get_ident()] = (message, time.monotonic())

    def finish(self, message: SidekiqMessage, failed: bool) -> None:
        """This thread is done with it."""
        begun = self._running.pop(threading.get_ident(), None)
        ms = 0 if begun is None else int((time.monotonic() - begun[1]) * 1000)
        self._finished.append((message.actor_name, ms, failed))
        if len(self._finished) >= GATHER and self._lock.acquire(blocking=False):
            try:
                self._gather()
            finally:
                self._lock.release()

    def refuse(self) -> None:
        """A job of a class that is not known here: a failure, but of no class (``processor.rb``)."""
        self._finished.append((None, 0, True))

    def _gather(self) -> None:
        """Count what has finished.  The lock is held."""
        while self._finished:
            name, ms, failed = self._finished.popleft()
            self._processed += 1
            self._failed += failed
            if name is not None:
                done = self._classes.get(name)
                if done is None:
                    done = self._classes[name] = Executions()
                done.add(ms, failed)

    def running(self) -> dict[str, bytes]:
        """Thread -> JSON of the job that it works on, as ``:work`` holds it."""
        now, since = time.time(), time.monotonic()
        return {
            _tid(thread): codec.encode(
                {
                    "queue": message.queue_name,
                    "payload": message.payload.raw.decode("utf-8", "replace"),
                    "run_at": int(now - (since - begun)),
                }
            )
            for thread, (message, begun) in self._running.copy().items()
        }

    def take(self) -> Counts | None:
        """All that was counted since it was last taken; None for nothing."""
        with self._lock:
            self._gather()
            processed, failed, classes = self._processed, self._failed, self._classes
            self._processed, self._failed, self._classes = 0, 0, {}
            if not processed:
                return None
            self._number += 1
            number = self._number
        return Counts(number, time.time(), processed, failed, {_field(name): done for name, done in classes.items()})


def _field(name: str) -> str:
    # Sidekiq splits fields at the bar (``metrics/query.rb``), and its page of a
    # class has the name in its path.
    return name.replace("|", "_").replace("/", "_")


def _tid(thread: int) -> str:
    """A thread's id as Sidekiq forms it (``component.rb``): base 36."""
    number, text = thread ^ os.getpid(), ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text or "0"
