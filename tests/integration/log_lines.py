"""Lines in the log, counted by the second in which they were logged."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator

Choice = Callable[[logging.LogRecord], bool]


def _every(record: logging.LogRecord) -> bool:
    return True


class Lines(logging.Handler):
    """Keeps what is logged.

    Parameters:
      kept: Records whose text is kept.
      counted: Those of them that are counted.
    """

    def __init__(self, kept: Choice = _every, counted: Choice = _every) -> None:
        super().__init__()
        self.kept, self.counted = kept, counted
        self.seconds: Counter[int] = Counter()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if self.kept(record):
            self.texts.append(record.getMessage())
            self.seconds[int(record.created)] += self.counted(record)

    @property
    def most(self) -> int:
        """The most in any one second."""
        return max(self.seconds.values(), default=0)


@contextlib.contextmanager
def logged(kept: Choice = _every, counted: Choice = _every) -> Iterator[Lines]:
    """What is logged in a block, by any logger."""
    lines = Lines(kept, counted)
    logging.getLogger().addHandler(lines)
    try:
        yield lines
    finally:
        logging.getLogger().removeHandler(lines)
