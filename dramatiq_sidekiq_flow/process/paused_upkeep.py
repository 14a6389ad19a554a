"""Extends the lifetimes that the parked jobs of paused runs depend on.

What a script can name, it extends when it parks a job.  A stored chain that was
written just before is not among that, so once a day one process looks at all
paused runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import FlowError
from ..store import parked_jobs
from ..store.connection import Connection
from ..wire.payload import Payload

#: Seconds between two looks of all processes together, and after which one of them asks again.
INTERVAL, BETWEEN = 86_400, 3600

#: Jobs of one run that are looked at.
MOST = 10_000


class PausedUpkeep:
    """Looks at the parked jobs of paused runs.

    Parameters:
      extend: Extends the lifetimes that a job's run depends on.
    """

    def __init__(self, connection: Connection, extend: Callable[[Payload], object]) -> None:
        self.connection = connection
        self.extend = extend
        self._next = 0.0

    def look(self) -> None:
        """Look, unless another process did within the last day."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + BETWEEN
        if not parked_jobs.claim_upkeep(self.connection, INTERVAL):
            return
        for run_id in parked_jobs.paused_runs(self.connection):
            for job in _of_each_stack(parked_jobs.payloads(self.connection, run_id, MOST)):
                self.extend(job)


def _of_each_stack(payloads: Iterator[bytes]) -> Iterator[Payload]:
    """Read jobs; of those next to each other with the same callback stack, such as members of a group, the first."""
    last: Any = None
    for raw in payloads:
        try:
            job = Payload.decode(raw, lambda stored: None)
        except FlowError:
            continue
        stack = job.fields.get(job.dialect.callbacks_key)
        if stack and stack != last:
            last = stack
            yield job
