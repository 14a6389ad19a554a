"""Extends the lifetimes that the runs of dead jobs, and of parked ones, depend on.

A job that fails for good in Python extends its barriers for as long as ``dead``
keeps the job.  A job that Ruby buries, or that is killed in Sidekiq's Web UI,
does not.  So once a minute one process looks at new members of ``dead``, and
once a day at paused runs (``paused_upkeep.py``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import attrs
from dramatiq.logging import get_logger

from ..errors import FlowError
from ..store import sets
from ..store.connection import LOST, Connection
from ..wire.payload import Payload
from ..wire.payload_fields import DEATH_KEY
from .paused_upkeep import PausedUpkeep

#: Seconds between two looks, of all processes together.
INTERVAL = 60

#: Seconds before the last score that are read again: scores come from the clocks of the processes that bury.
OVERLAP = 60.0

#: Text of the payload of a step with a policy.
_POLICY = f'"{DEATH_KEY}"'.encode()

#: Jobs of one page, and pages of one look.
BATCH, PAGES = 50, 20


@attrs.frozen
class _Seen:
    """Position that one look reached in ``dead``: the last score, and True if it is the end of the set."""

    last: float
    reached_end: bool

    def next_start(self, start: float, now: float) -> float:
        """Compute the start score of the next look.

        Parameters:
          start: Start score of this look.
          now: Redis's time of this look.
        """
        if self.reached_end:
            # A score ahead of the clock must not hide those that come next.
            return max(start, min(self.last, now) - OVERLAP)
        return self.last if self.last > start else math.nextafter(self.last, math.inf)


class Upkeep:
    """Looks at new members of ``dead``.

    Attributes:
      extend_dead: Extends the lifetimes that a dead job's run depends on; None without workflows.
      replace_dead: Lets others take the place of a step in ``dead`` that has a policy; None without workflows.
    """

    def __init__(self, connection: Connection) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = connection
        self.extend_dead: Callable[[Payload], None] | None = None
        self.replace_dead: Callable[[bytes], None] | None = None
        self._next = 0.0
        self._paused = PausedUpkeep()

    def look(self) -> None:
        """Look, unless another process did within the last minute."""
        if self.extend_dead is None or time.monotonic() < self._next:
            return
        self._paused.look(self.connection, self.extend)
        self._next = time.monotonic() + INTERVAL
        claimed = sets.claim_upkeep(self.connection, INTERVAL)
        if claimed is None:
            return
        start, now = claimed
        next_start = self._extend_since(start).next_start(start, now)
        if next_start != start:
            sets.upkept(self.connection, next_start)

    def _extend_since(self, start: float) -> _Seen:
        """Extend the lifetimes of the jobs in ``dead`` from a score on, at most PAGES pages of them."""
        last = start
        for page in range(PAGES):
            found = sets.dead_since(self.connection, start, page * BATCH, BATCH)
            for member, score in found:
                self._extend_member(member)
                last = score
            if len(found) < BATCH:
                return _Seen(last, reached_end=True)
        return _Seen(last, reached_end=False)

    def extend(self, job: Payload) -> None:
        """Extend the lifetimes that the run of a dead or parked job depends on; an error is logged.

        Raises:
          redis.ConnectionError, ServerUnavailable: if Redis cannot be reached.
        """
        if self.extend_dead is None:
            return
        try:
            self.extend_dead(job)
        except LOST:
            raise
        except FlowError as e:
            # It may be in `dead` because it cannot be read.
            self.logger.debug("The run of the dead job %s cannot be extended: %s", job.jid, e)
        except Exception as e:
            self.logger.warning("The run of the dead job %s could not be extended: %s", job.jid, e)

    def replace(self, member: bytes) -> bool:
        """Let others take the place of a job in ``dead`` if it is a step with a policy; an error is logged.

        Returns:
          False if it has none.

        Raises:
          ConnectionClosed, redis.ConnectionError, ServerUnavailable: if Redis cannot be reached.
        """
        if self.replace_dead is None or _POLICY not in member:
            return False
        try:
            self.replace_dead(member)
        except LOST:
            raise
        except Exception as e:
            self.logger.warning("Nothing takes the place of a dead step yet: %s", e)
        return True

    def _extend_member(self, member: bytes) -> None:
        if self.replace(member):
            return
        if b"_completion_callbacks" not in member:
            return
        try:
            job = Payload.decode(member, lambda stored: None)
        except FlowError:
            return
        self.extend(job)
