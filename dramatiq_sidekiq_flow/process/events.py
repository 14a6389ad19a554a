"""Events that no Dramatiq hook reports.

Recovered jobs, jobs that cannot be read, and acknowledgements that too few
replicas confirm.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from dramatiq.logging import get_logger

from ..errors import FlowError
from ..store.replication import Shortage


@attrs.frozen
class Recovered:
    """A dead worker's jobs left flight.

    Attributes:
      queue: Where they came from.
      back: How many are in the queue again.
      dead: How many are in ``dead``: they have outlived too many workers.
    """

    queue: str
    back: int
    dead: int


@attrs.frozen
class Buried:
    """A job that cannot be run went to ``dead``.

    Attributes:
      queue: Where it came from: a queue, ``schedule`` or ``retry``.
      error: What is wrong with it; None if the poller found it.
    """

    queue: str
    error: FlowError | None = None


@attrs.frozen
class Unreplicated:
    """A round trip of acknowledgements that too few replicas confirmed.

    Attributes:
      shortage: How many confirmed it, and how many should.
    """

    shortage: Shortage


Event = Recovered | Buried | Unreplicated


class Events:
    """Calls listeners; an error of one is logged."""

    def __init__(self) -> None:
        self.logger = get_logger(__name__, type(self))
        self.listeners: list[Callable[[Event], None]] = []

    def emit(self, event: Event) -> None:
        """Call each listener, in the thread that emits."""
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:
                self.logger.warning("A listener failed on %r.", event, exc_info=True)
