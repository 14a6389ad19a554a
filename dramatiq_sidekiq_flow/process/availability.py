"""Tracks outages of Redis for all threads of one process.

Each thread that gets an error waits and tries again by itself.  This object
computes the time to wait, and logs one line when an outage begins, one every half
minute, and one when it is over.
"""

from __future__ import annotations

import threading
import time

from dramatiq.logging import get_logger

#: Seconds between two tries: at the beginning of an outage, and later.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0

#: Seconds between two lines in the log during one outage.
LOG_EVERY = 30.0

#: Seconds without an error after which an outage is over: if the server refuses
#: some commands only, a success of another one does not end it.
QUIET = 1.0


class Availability:
    """The current outage of Redis, if there is one.  Safe to share between threads."""

    def __init__(self) -> None:
        self.logger = get_logger(__name__, type(self))
        self._lock = threading.Lock()
        self._since: float | None = None
        self._last = 0.0
        self._logged = 0.0

    @property
    def lasts(self) -> bool:
        """True if there is an outage now."""
        return self._since is not None

    def lost(self, error: BaseException) -> float:
        """Record that Redis cannot be reached, or refuses a command.

        Returns:
          Seconds to wait before the next try.
        """
        now = time.monotonic()
        with self._lock:
            self._last = now
            if self._since is None:
                self._since = self._logged = now
                self.logger.warning("Redis is unavailable, trying again until it is back: %s", _short(error))
            elif now - self._logged >= LOG_EVERY:
                self._logged = now
                self.logger.warning(
                    "Redis has been unavailable for %d seconds; jobs in flight are kept: %s",
                    now - self._since,
                    _short(error),
                )
            return min(LONGEST_PAUSE, FIRST_PAUSE + (now - self._since) / 4)

    def back(self) -> None:
        """Record that Redis has answered.  Called for every batch, so it is cheap without an outage."""
        if self._since is None:
            return
        now = time.monotonic()
        with self._lock:
            if self._since is not None and now - self._last >= QUIET:
                self.logger.info("Redis is available again after %.1f seconds.", self._last - self._since)
                self._since = None


def _short(error: BaseException) -> str:
    return f"{error}"[:300] or type(error).__name__
