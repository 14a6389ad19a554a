"""Keeps alive what dead jobs' runs need, whoever put those jobs into ``dead``.

A job that fails for good here keeps its barriers alive as long as ``dead``
keeps the job.  One that Ruby buries, or a person by *Kill* in Sidekiq's Web UI,
does not; so once a minute one process looks at what is new in ``dead``.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from dramatiq.logging import get_logger

from ..errors import FlowError
from ..store import sets
from ..store.connection import LOST
from ..wire.payload import Payload

if TYPE_CHECKING:
    from .heartbeat import Heartbeat

#: Seconds between two looks, of all processes together.
INTERVAL = 60

#: Scores are of the clock of whoever buried the job: so many seconds are looked at again.
OVERLAP = 60.0

#: Jobs read at once, and how often in one look.
BATCH, PAGES = 50, 20


class Upkeep:
    """Looks at what is new in ``dead``."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self.logger = get_logger(__name__, type(self))
        self.heartbeat = heartbeat
        self._next = 0.0

    def look(self) -> None:
        """Look, unless another process did within the last minute."""
        if self.heartbeat.keep is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + INTERVAL
        connection = self.heartbeat.connection
        claimed = sets.claim_upkeep(connection, INTERVAL)
        if claimed is None:
            return
        start, now = claimed
        last, found = start, []
        for page in range(PAGES):
            found = sets.dead_since(connection, start, page * BATCH, BATCH)
            for member, score in found:
                self._keep(member)
                last = score
            if len(found) < BATCH:
                break
        if len(found) < BATCH:
            # A score ahead of the clock must not hide those that come next.
            next_start = max(start, min(last, now) - OVERLAP)
        else:
            next_start = last if last > start else math.nextafter(last, math.inf)
        if next_start != start:
            sets.upkept(connection, next_start)

    def _keep(self, member: bytes) -> None:
        keep = self.heartbeat.keep
        if keep is None or b"_completion_callbacks" not in member:
            return
        try:
            keep(Payload.decode(member, lambda stored: None))
        except LOST:
            raise
        except FlowError:
            # It is in `dead` because it cannot be read.
            return
        except Exception as e:
            self.logger.warning("What a dead job needs could not be kept alive: %s", e)
