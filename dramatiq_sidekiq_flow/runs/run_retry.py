"""Retries of runs: of their dead steps, of what comes after these, or of whole runs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import attrs

from ..errors import UnknownRun
from ..process.poller import promotion
from ..store import job_search, keys, run_pause, run_records
from ..store.connection import Connection
from ..store.job_search import Place
from ..store.sets import Promotion
from ..store.step_records import death_key
from ..wire import codec
from ..wire.payload_fields import retry_count
from ..workflow.engine import Engine
from .repetition import Repetition
from .restarting import Restarting
from .run_reader import RunReader
from .run_sweep import Sweep
from .unknown_run import unknown_run

#: What is retried of a run.
MODES = ("failed", "failed_and_after", "all")


class Retrying:
    """Retries runs in one of three modes."""

    def __init__(self, engine: Engine, reader: RunReader, sweep: Sweep) -> None:
        self.connection = engine.broker.connection
        self.sweep = sweep
        self._restarting = Restarting(engine, reader, sweep)
        self._repetition = Repetition(engine, reader)
        self._modes = {"failed": self.retry_dead, "failed_and_after": self._retry_with_rest, "all": self._repeat}

    def retry(self, run_id: str, mode: str) -> str | None:
        """Retry a run; return the id of the run that goes on, None if there was nothing to retry.

        Raises:
          UnknownRun: if it has no record.
          CannotRetry: if it cannot be retried in this mode, or not now.
        """
        return self._modes[mode](run_id)

    def retry_all(self, run_ids: Sequence[str], mode: str) -> list[str]:
        """Retry runs; return the ids of those that go on."""
        if mode == "all":
            self._repetition.check(run_ids)
        tried = (self._tried(run_id, mode) for run_id in run_ids)
        return [run_id for run_id in tried if run_id is not None]

    def _tried(self, run_id: str, mode: str) -> str | None:
        try:
            return self.retry(run_id, mode)
        except UnknownRun:
            # It has expired meanwhile.
            return None

    def _retry_with_rest(self, run_id: str) -> str | None:
        return run_id if self._restarting.restart(run_id) else self.retry_dead(run_id)

    def _repeat(self, run_id: str) -> str | None:
        return self._repetition.repeat(run_id)

    def retry_dead(self, run_id: str) -> str | None:
        """Move the dead steps of a run from ``dead`` back to their queues, as Sidekiq's Web UI does."""
        if run_records.state_of(self.connection, run_id) is None:
            raise unknown_run(run_id, "so it cannot be retried")
        found = job_search.search(self.connection, run_id, [Place("dead", keys.DEAD)])
        jobs = [self.sweep.payload(run_id, job.payload) for job in found]
        steps = [(job.raw, death_key(job.step, job.jid)) for job in jobs if job is not None]
        moved = [retry_step(self.connection, run_id, raw, death) for raw, death in steps]
        return run_id if any(moved) else None


def retry_step(connection: Connection, run_id: str, member: bytes, death: int | str) -> bool:
    """Move a dead step of a run back to its queue; return False if it is not dead, or the run is cancelled.

    Parameters:
      member: As it is in ``dead``.
      death: ``step_records.death_key`` of it.

    Raises:
      WrongType: if a key that is needed holds another type.
    """
    pushed = retried(member, time.time())
    if pushed.queue is None:
        return False
    operation = run_pause.retry(run_id, member, pushed.queue, pushed.payload, death)
    return operation.run(connection) == "retried"


def retried(member: bytes, now: float) -> Promotion:
    """Decide where a dead job goes that a person retries (``api.rb``, ``SortedEntry#retry``): it counts no failure."""
    moved = promotion(member, now)
    if moved.queue is None:
        return moved
    fields = codec.decode(moved.payload)
    count = retry_count(fields)
    if count is not None:
        fields["retry_count"] = count - 1
    return attrs.evolve(moved, payload=codec.encode(fields))
