"""Whether Redis can be used now, as the threads of one process find out.

Each thread that meets an outage waits and tries again by itself.  This object
tells them for how long, and logs one line when the outage begins, one every half
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

#: Seconds without an error after which an outage is over. Where the server
#: refuses some commands only, others succeed all the time.
QUIET = 1.0


class Availability:
    """Knows of an outage of Redis.  Safe to share between threads."""

    def __init__(self) -> None:
        self.logger = get_logger(__name__, type(self))
        self._lock = threading.Lock()
        self._since: float | None = None
        self._last = 0.0
        self._logged = 0.0

    @property
    def lasts(self) -> bool:
        """Whether an outage lasts."""
        return self._since is not None

    def lost(self, error: BaseException) -> float:
        """Note that Redis is away, or refuses.

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
        """Note that Redis has answered.  Called for every batch, so cheap while all is well."""
        if self._since is None:
            return
        now = time.monotonic()
        with self._lock:
            if self._since is not None and now - self._last >= QUIET:
                self.logger.info("Redis is available again after %.1f seconds.", self._last - self._since)
                self._since = None


def _short(error: BaseException) -> str:
    return f"{error}"[:300] or type(error).__name__
