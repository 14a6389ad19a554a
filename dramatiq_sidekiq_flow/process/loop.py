"""A background thread of a worker process."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable


class Loop:
    """Daemon thread that calls a function at intervals, or earlier on request.

    Parameters:
      name: Name of the thread.
      interval: Returns the seconds from one call of ``work`` to the next.
      work: The function; it must not raise.
      at_once: True for a first call when the thread starts, else it comes one interval later.
    """

    def __init__(
        self, name: str, *, interval: Callable[[], float], work: Callable[[], None], at_once: bool = False
    ) -> None:
        self.name = name
        self._interval = interval
        self._work = work
        self._at_once = at_once
        self.forget()

    def forget(self) -> None:
        """Reset to no thread.  Called in a forked child, which does not have the parent's thread."""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._due = self._again = math.inf
        self._thread: threading.Thread | None = None

    @property
    def stopping(self) -> bool:
        """True once :meth:`stop` was called."""
        return self._stop.is_set()

    def start(self) -> None:
        """Start the thread, unless it runs."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._stop, self._wake = threading.Event(), threading.Event()
            self._due = time.monotonic() + (0.0 if self._at_once else self._interval())
            self._thread = threading.Thread(target=self._run, args=(self._stop,), name=self.name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and wait for it."""
        # Not while another thread starts it: a thread that is not started cannot be joined.
        with self._lock:
            self._stop.set()
            self._wake.set()
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def hurry(self, delay: float = 0.0) -> None:
        """Run the work in ``delay`` seconds, if it is not due earlier."""
        now = time.monotonic()
        with self._lock:
            if now + delay < self._due:
                self._due = now + delay
            elif self._due <= now:
                # The work is about to run, but perhaps before the caller's time: run it again then.
                self._again = min(self._again, now + delay)
                return
            else:
                return
        self._wake.set()

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            remaining = self._due - time.monotonic()
            if remaining > 0:
                # hurry() wakes it: wait again, for the shorter time.
                self._wake.wait(remaining)
                self._wake.clear()
                continue
            with self._lock:
                self._due = min(time.monotonic() + self._interval(), self._again)
                self._again = math.inf
            self._work()
