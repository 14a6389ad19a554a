"""Limits the log lines about events that repeat."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: The most names that are remembered.
_MOST = 10_000


class LogLimit:
    """Allows one line of each name per interval.

    Parameters:
      every: Seconds between two lines of the same name.
    """

    def __init__(self, every: float = 60.0) -> None:
        self.every = every
        self._last: dict[str, float] = {}

    def allows(self, name: str) -> bool:
        """Return True if a line of this name may be written now."""
        now = time.monotonic()
        last = self._last.get(name)
        if last is not None and now - last < self.every:
            return False
        if len(self._last) >= _MOST:
            self._last.clear()
        self._last[name] = now
        return True


class LogBurst:
    """Limits the lines per second, and logs how many were left out.

    For lines about single jobs: a queue may hold thousands of bad ones.

    Parameters:
      most: The most lines in one second.
    """

    def __init__(self, most: int = 20) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._since = float("-inf")
        self._written = self._left_out = 0

    def __call__(self, log: Callable[..., None], text: str, *values: object) -> None:
        """Call a logger's method, unless there were too many lines in this second."""
        with self._lock:
            now = time.monotonic()
            left_out = 0
            if now - self._since >= 1.0:
                left_out, self._left_out = self._left_out, 0
                self._since, self._written = now, 0
            if self._written >= self.most:
                self._left_out += 1
                return
            self._written += 1
        if left_out:
            log("%d similar lines were left out.", left_out)
        log(text, *values)
