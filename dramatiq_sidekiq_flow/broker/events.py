"""What happens beside single jobs, for those who count it.

Dramatiq's hooks tell of each job that a worker runs.  What no hook tells of
comes through here: jobs that were recovered, jobs that could not be read, and
acknowledgements that too few replicas have.
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
    """A job that nobody can run went to ``dead``.

    Attributes:
      queue: Where it came from: a queue, ``schedule`` or ``retry``.
      error: What is wrong with it; None where only the poller saw it.
    """

    queue: str
    error: FlowError | None = None


@attrs.frozen
class Unreplicated:
    """A round trip of acknowledgements that fewer replicas than wanted have confirmed.

    Attributes:
      shortage: How many have, and how many should.
    """

    shortage: Shortage


Event = Recovered | Buried | Unreplicated


class Events:
    """Tells its listeners; one that raises is logged and does no harm."""

    def __init__(self) -> None:
        self.logger = get_logger(__name__, type(self))
        self.listeners: list[Callable[[Event], None]] = []

    def tell(self, event: Event) -> None:
        """Call each listener, in the thread where it happened."""
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:
                self.logger.warning("A listener failed on %r.", event, exc_info=True)
