"""Counts the executions of this process, and knows the jobs that run now.

Every thread calls it for every job, so it does little: it sets an item of a dict
at the start, and appends to a deque at the end.  A beat writes the counts to Redis.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import Protocol

from ..store.stats import Counts, Executions
from ..wire import codec
from ..wire.payload import Payload

#: So many jobs are counted together, unless a beat comes before.
GATHER = 1000


class RunningJob(Protocol):
    """A message of this process; see ``broker.message``."""

    @property
    def queue_name(self) -> str: ...
    @property
    def actor_name(self) -> str: ...
    @property
    def payload(self) -> Payload: ...


_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class ExecutionStats:
    """Counts executions, as Sidekiq does (``processor.rb``, ``metrics/tracking.rb``)."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[RunningJob, float]] = {}
        # Appended to without a lock: a lock that every thread takes for every job
        # makes the threads wait for the interpreter, and halves the throughput.
        self._finished: deque[tuple[str | None, int, bool]] = deque()
        self._lock = threading.Lock()
        self._processed = self._failed = self._number = 0
        self._classes: dict[str, Executions] = {}

    def start(self, message: RunningJob) -> None:
        """Note that this thread starts a job."""
        self._running[threading.get_ident()] = (message, time.monotonic())

    def finish(self, message: RunningJob, failed: bool) -> None:
        """Count the job that this thread has ended."""
        begun = self._running.pop(threading.get_ident(), None)
        ms = 0 if begun is None else int((time.monotonic() - begun[1]) * 1000)
        self._finished.append((message.actor_name, ms, failed))
        if len(self._finished) >= GATHER and self._lock.acquire(blocking=False):
            try:
                self._gather()
            finally:
                self._lock.release()

    def count_unknown(self) -> None:
        """Count a job of an unknown class: a failure without a class (``processor.rb``)."""
        self._finished.append((None, 0, True))

    def _gather(self) -> None:
        """Add up finished jobs.  The lock is held."""
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
        work = {}
        for thread, (message, begun) in self._running.copy().items():
            job = {
                "queue": message.queue_name,
                "payload": message.payload.raw.decode("utf-8", "replace"),
                "run_at": int(now - (since - begun)),
            }
            work[_tid(thread)] = codec.encode(job)
        return work

    def drain(self) -> Counts | None:
        """The counts since the last call; None if no job has ended."""
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
