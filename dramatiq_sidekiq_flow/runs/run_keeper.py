"""RunKeeper: what the keeper does for runs: deadlines, callbacks that are due, expired entries of lists."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from dramatiq.logging import get_logger

from ..store import run_keeping
from ..workflow.engine import Engine
from .resting_runs import RestingRuns
from .run_cancellation import Cancellation
from .run_reader import RunReader

#: Seconds between two looks at the lists of runs.
TRIM = 60.0


class RunKeeper:
    """Looks after the runs of all brokers of a Redis.

    Parameters:
      is_elsewhere: True if steps may be on another broker.
      stopping: Returns True if this process stops: the next keeper does the rest.
    """

    def __init__(self, engine: Engine, *, is_elsewhere: bool, stopping: Callable[[], bool] = lambda: False) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = engine.broker.connection
        self._stopping = stopping
        self._cancellation = Cancellation(self.connection, engine.stacks.retrieve)
        reader = RunReader(self.connection, lambda run_id: {}, frozenset, is_elsewhere)
        self.resting = RestingRuns(self.connection, reader, stopping)
        #: State -> where the next look at its list begins.
        self._offsets = dict.fromkeys(run_keeping.LISTED, 0)
        self._trim_due = time.monotonic() + TRIM

    def keep(self) -> None:
        """Do all that is due."""
        self.cancel_overdue()
        self.resting.look()
        if time.monotonic() >= self._trim_due:
            self._trim_due = time.monotonic() + TRIM
            self.trim()

    def cancel_overdue(self) -> None:
        """Cancel the runs whose deadline has passed."""
        for run_id in run_keeping.overdue(self.connection):
            seconds = run_keeping.deadline_of(self.connection, run_id)
            if seconds is not None and not self._cancel(run_id, seconds):
                return
            run_keeping.forget_deadline(self.connection, run_id)

    def _cancel(self, run_id: str, seconds: float) -> bool:
        """Cancel a run, unless it has ended; return False if this process stops meanwhile."""
        reason = f"deadline of {timedelta(seconds=seconds)} passed"
        if not self._cancellation.mark_known(run_id, reason):
            return True
        self.logger.info("Run %s is cancelled: %s.", run_id, reason)
        return self._cancellation.clear(run_id, self._stopping)

    def trim(self) -> None:
        """Remove runs whose record has expired from a page of the list of each state."""
        for state, offset in self._offsets.items():
            self._offsets[state] = run_keeping.drop_expired(self.connection, state, offset)
