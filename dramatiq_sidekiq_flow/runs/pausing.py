"""Pauses of runs: what runs, ends, and what would follow is parked until the run is resumed."""

from __future__ import annotations

from collections.abc import Iterable

from ..process.fleet import plain_ruby
from ..store import job_removal, run_pause, run_records, runs
from ..store.job_removal import Parking
from ..store.job_search import FoundJob
from ..wire.lifetimes import DEAD_TIMEOUT
from ..wire.payload import Payload
from ..workflow.engine import Engine
from ..workflow.firing_job import firing_jobs
from .run_sweep import Sweep
from .unknown_run import unknown_run

#: Keys that are prolonged in one call.
AT_ONCE = 1000


class Pausing(Sweep):
    """Pauses runs, parks the jobs of a paused run that wait, and resumes it."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.broker.connection, engine.stacks.retrieve)
        self.engine = engine

    def pause(self, run_id: str, reason: str) -> None:
        """Pause a run, unless it has ended.

        Raises:
          UnknownRun: if it has no record.
        """
        if self._known(run_id, run_pause.pause(run_id, reason).run(self.connection)) == "paused":
            self.clear(run_id)

    def pause_all(self, run_ids: Iterable[str], reason: str) -> list[str]:
        """Pause runs, all of them before the search for their jobs; return those that are paused."""
        paused = [each for each in run_ids if run_pause.pause(each, reason).run(self.connection) == "paused"]
        for run_id in paused:
            self.clear(run_id)
        return paused

    def resume(self, run_id: str) -> None:
        """Resume a run; finish what a call that was killed has left.

        Raises:
          UnknownRun: if it has no record.
        """
        if self._known(run_id, run_pause.unpause(run_id).run(self.connection)) != "cancelled":
            self._go_on(run_id)

    def resume_all(self, run_ids: Iterable[str]) -> list[str]:
        """Resume runs; return those that were paused."""
        resumed = [each for each in run_ids if run_pause.unpause(each).run(self.connection) == "resumed"]
        for run_id in resumed:
            self._go_on(run_id)
        return resumed

    def _go_on(self, run_id: str) -> None:
        run_pause.unpark(self.connection, run_id)
        run_pause.rearm(self.connection, run_id)

    def _known(self, run_id: str, state: str) -> str:
        if not state:
            raise unknown_run(run_id, "so it cannot be paused or resumed")
        return state

    def look(self, run_id: str) -> bool:
        """See Sweep."""
        if run_records.state_of(self.connection, run_id) != "paused":
            return False
        found = _Found(self.engine)
        plain = plain_ruby(self.connection)
        for work, payload in self.at_work(run_id):
            found.add(payload, may_go_on=work.identity in plain)

        def is_ours(job: FoundJob) -> bool:
            payload = self.payload(run_id, job.payload)
            if payload is not None:
                # A step that is retried out of `dead` may run in Ruby.
                found.add(payload, may_go_on=bool(plain) and job.place.kind == "dead")
            return payload is not None

        cleared = job_removal.clear(self.connection, run_id, is_ours, Parking(self.connection, run_id))
        found.keep()
        held = run_pause.hold(self.connection, run_id, found.barriers)
        return bool(cleared.waiting or held)


class _Found:
    """Jobs of a paused run that one look found.

    Attributes:
      barriers: Barriers that the plain gem may release, and what fires each of them later.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.barriers: dict[str, bytes] = {}
        self.keys: dict[str, None] = {}
        self.ttl = 0

    def add(self, payload: Payload, *, may_go_on: bool) -> None:
        """Add a job.

        Parameters:
          may_go_on: True if the plain gem may run it, or runs it.  A barrier waits for each parked job below it, so
            that those of such a job need not be disarmed.
        """
        needs = self.engine.needs(payload, waits=DEAD_TIMEOUT)
        self.keys.update(dict.fromkeys(needs.keys))
        self.ttl = max(self.ttl, needs.ttl)
        self.engine.extend_custom_barriers(payload, needs.ttl)
        if may_go_on:
            self.barriers.update(firing_jobs(self.engine, payload))

    def keep(self) -> None:
        """Let what the jobs need live as long as they are parked."""
        names = list(self.keys)
        for first in range(0, len(names), AT_ONCE):
            runs.extend(self.engine.broker.connection, names[first : first + AT_ONCE], ttl=self.ttl)
