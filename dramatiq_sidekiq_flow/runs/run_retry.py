"""Retries of the dead steps of a run."""

from __future__ import annotations

import time
from collections.abc import Iterable

import attrs

from ..errors import UnknownRun
from ..process.poller import promotion
from ..store import job_search, keys, run_pause, run_records
from ..store.connection import Connection
from ..store.job_search import Place
from ..store.sets import Promotion
from ..store.step_records import death_key
from ..wire import codec
from ..wire.payload import Payload
from ..wire.payload_fields import retry_count
from .run_sweep import Sweep
from .unknown_run import unknown_run


class Retrying:
    """Moves the dead steps of runs from ``dead`` back to their queues, as Sidekiq's Web UI does."""

    def __init__(self, connection: Connection, sweep: Sweep) -> None:
        self.connection = connection
        self.sweep = sweep

    def retry(self, run_id: str) -> int:
        """Retry the dead steps of a run; return how many were dead.

        Raises:
          UnknownRun: if it has no record.
        """
        if run_records.state_of(self.connection, run_id) is None:
            raise unknown_run(run_id, "so it cannot be retried")
        found = job_search.search(self.connection, run_id, [Place("dead", keys.DEAD)])
        jobs = [self.sweep.payload(run_id, job.payload) for job in found]
        return sum(self._retry(run_id, job) for job in jobs if job is not None)

    def retry_all(self, run_ids: Iterable[str]) -> list[str]:
        """Retry the dead steps of runs; return those that had some."""
        return [run_id for run_id in run_ids if self._tried(run_id)]

    def _tried(self, run_id: str) -> int:
        try:
            return self.retry(run_id)
        except UnknownRun:
            # It has expired meanwhile.
            return 0

    def _retry(self, run_id: str, job: Payload) -> bool:
        pushed = retried(job.raw, time.time())
        if pushed.queue is None:
            return False
        death = death_key(job.step, job.jid)
        operation = run_pause.retry(run_id, job.raw, pushed.queue, pushed.payload, death)
        return operation.run(self.connection) == "retried"


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
