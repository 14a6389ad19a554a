"""One line in the log for what happens again and again."""

from __future__ import annotations

import time

#: Names that are remembered at most.
_MOST = 10_000


class LogLimit:
    """Allows a line once in a while.

    Parameters:
      every: Seconds between two lines of the same name.
    """

    def __init__(self, every: float = 60.0) -> None:
        self.every = every
        self._last: dict[str, float] = {}

    def allows(self, name: str) -> bool:
        """Whether a line of this name may be written now."""
        now = time.monotonic()
        last = self._last.get(name)
        if last is not None and now - last < self.every:
            return False
        if len(self._last) >= _MOST:
            self._last.clear()
        self._last[name] = now
        return True
