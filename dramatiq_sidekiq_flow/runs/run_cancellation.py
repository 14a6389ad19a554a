"""Cancellation of runs: what of a run runs, ends, and nothing new of it starts."""

from __future__ import annotations

from collections.abc import Callable

from ..store import job_removal, run_cancel, run_pause, run_signals
from ..store.job_removal import Removal
from ..store.job_search import FoundJob
from .run_sweep import Sweep, never
from .unknown_run import unknown_run


class Cancellation(Sweep):
    """Cancels runs, removes the jobs of a cancelled run that wait, and disarms its barriers."""

    def mark(self, run_id: str, reason: str) -> bool:
        """Record that a run is cancelled; return False if it is done.

        Raises:
          UnknownRun: if it has no record.
        """
        outcome = run_cancel.cancel(run_id, reason).run(self.connection)
        if outcome == "unknown":
            raise unknown_run(run_id, "so it cannot be cancelled")
        return outcome != "done"

    def mark_known(self, run_id: str, reason: str) -> bool:
        """Record that a run is cancelled; return False if it is done, or if its record has expired."""
        return run_cancel.cancel(run_id, reason).run(self.connection) in ("cancelled", "before")

    def clear(self, run_id: str, stopping: Callable[[], bool] = never) -> bool:
        """Remove the jobs of a cancelled run that wait, and disarm its barriers.  Return False if it was stopped."""
        is_cleared = super().clear(run_id, stopping)
        run_pause.drop(self.connection, run_id)
        run_signals.drop(self.connection, run_id)
        return is_cleared

    def look(self, run_id: str) -> bool:
        """See Sweep."""
        barriers: set[str] = set()
        for _, at_work in self.at_work(run_id):
            barriers.update(callback.barrier for callback in at_work.stack)

        def is_ours(job: FoundJob) -> bool:
            payload = self.payload(run_id, job.payload)
            if payload is not None:
                barriers.update(callback.barrier for callback in payload.stack)
            return payload is not None

        cleared = job_removal.clear(self.connection, run_id, is_ours, Removal(self.connection))
        armed = run_cancel.disarm(self.connection, sorted(barriers))
        return bool(cleared.waiting or armed)
