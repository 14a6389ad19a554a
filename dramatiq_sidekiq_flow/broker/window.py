"""The jobs of one queue that this process holds in flight."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque

import dramatiq.worker

#: Most jobs that one process holds in flight per queue.
MAX_WINDOW = 256

#: It holds as many as it finished within this time, in seconds: many when
#: jobs are short (round trips are shared), few when they are long (other
#: processes get their share).
WINDOW_TIME = 0.02

#: With more jobs than this in the process, others finish soon.
BUSY = 16

#: Numbers the fetches of the process, whatever window makes them: a thread that
#: outlived a shutdown must never acknowledge the job of a later one.
_fetches = itertools.count(1)


class Window:
    """The jobs of one queue that this process holds in flight.

    It outlives a consumer: when Dramatiq restarts one after a connection
    error, what was fetched is still here.
    """

    def __init__(self, queue_name: str, member: str) -> None:
        self.queue_name = queue_name
        self.member = member
        self.prefetch = 0
        self.fetched: deque[tuple[str, bytes]] = deque()
        self.handed_out: dict[str, None] = {}
        self.drained = False
        #: The member was in ``swf:workers`` when jobs were last fetched.
        self.registered = False
        #: Paused, or not to be fetched from: queues after it do not wait for it.
        self.unavailable = False
        self._base: str | None = None
        self._room = threading.Event()
        self._starved = False
        self._size = 0
        self._settled = 0
        self._since = time.monotonic()

    def allow(self, prefetch: int) -> None:
        """Hold at least so many."""
        if prefetch != self.prefetch:
            self.prefetch = self._size = prefetch

    @property
    def held(self) -> int:
        return len(self.fetched) + len(self.handed_out)

    @property
    def hurried(self) -> bool:
        """Jobs are short, and more of them are about to finish."""
        return self._size > self.prefetch and self.held > BUSY

    def room(self) -> int:
        """How many to fetch now; 0 until half of the window is free."""
        held = self.held
        return self._size - held if held <= self._size // 2 else 0

    def wait_for_room(self, seconds: float) -> None:
        self._room.clear()
        self._starved = True
        if not self.room():
            self._room.wait(seconds)
        self._starved = False

    def next_base(self) -> str:
        """The receipt base of the next fetch: the same again until it was answered."""
        if self._base is None:
            self._base = format(next(_fetches), "x")
        return self._base

    def add(self, base: str, payloads: list[bytes]) -> None:
        self._base = None
        self.fetched.extend((f"{base}:{i}", payload) for i, payload in enumerate(payloads, 1))
        self._resize()

    def settle(self, receipt: str) -> None:
        """A job has left.  Called by every thread for every job, so without a lock:
        each operation is atomic, but for the count, which may be a little low.
        """
        self.handed_out.pop(receipt, None)
        self._settled += 1
        if self._starved and self.held <= self._size // 2:
            self._room.set()

    def _resize(self) -> None:
        now = time.monotonic()
        elapsed = now - self._since
        # One at a time, or a number set for the whole process, is somebody's word.
        if elapsed < WINDOW_TIME or self.prefetch == 1 or dramatiq.worker.QUEUE_PREFETCH:
            return
        rate, self._settled, self._since = self._settled / elapsed, 0, now
        wanted = max(self.prefetch, min(MAX_WINDOW, int(rate * WINDOW_TIME)))
        self._size = (self._size + wanted + 1) // 2
