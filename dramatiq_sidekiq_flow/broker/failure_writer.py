"""Moves failed jobs of one queue out of flight, into ``retry`` or ``dead``."""

from __future__ import annotations

import time
from functools import partial
from typing import Literal

from dramatiq.logging import get_logger

from ..errors import WrongType
from ..store import sets
from ..store.needs import NO_NEEDS, Needs, needs
from ..store.step_records import NO_DEATH, Death
from ..wire.lifetimes import DEAD_TIMEOUT
from ..wire.payload import Payload
from ..wire.payload_fields import DEATH_KEY
from .job_completion import JobReplacement
from .retries import Failure
from .worker_process import WorkerProcess


class FailureWriter:
    """Writes the decisions about failed jobs of one queue (``retries.decide``)."""

    def __init__(self, process: WorkerProcess, queue_name: str, member: str) -> None:
        self.logger = get_logger(__name__, type(self))
        self.process = process
        self.queue_name = queue_name
        self.member = member

    def write(self, receipt: str, failure: Failure, payload: Payload | None) -> None:
        """Move a job to ``retry`` or ``dead``, or drop it.

        If the set holds another type, the job stays in flight, and each
        heartbeat tries again.

        Parameters:
          payload: The job; None if it cannot be read.

        Raises:
          ConnectionClosed: if Redis cannot be reached.
        """
        try:
            self._write(receipt, failure, payload)
        except WrongType as e:
            self._set_aside(receipt, failure, payload, e)

    def _write(self, receipt: str, failure: Failure, payload: Payload | None) -> None:
        assert failure.action != "requeue"
        now = time.time()
        if self._replace(receipt, failure, payload, now):
            return
        self.process.commit.run(
            sets.fail(
                self.member,
                receipt,
                failure.action,
                now=now,
                at=failure.at,
                payload=failure.payload,
                needs=self._needs(failure, payload, now),
                death=self._death(failure, payload, now),
            )
        )
        if failure.action == "retry":
            self.process.poller.nudge(failure.at - now)

    def _replace(self, receipt: str, failure: Failure, payload: Payload | None, now: float) -> bool:
        """Let others take the place of a step that failed for good; return False if nothing does."""
        found = self._replacement(failure, payload, now)
        if found is None:
            return False
        action: Literal["dead", "discard"] = "discard" if failure.action == "discard" else "dead"
        move = partial(sets.fail, self.member, receipt, action, now=now, payload=found.payload)
        needs, death = found.needs, found.death
        found.write(self.process.commit.run, lambda plan: move(needs=needs, death=death, plan=plan))
        return True

    def _replacement(self, failure: Failure, payload: Payload | None, now: float) -> JobReplacement | None:
        if failure.action == "retry" or payload is None or DEATH_KEY not in payload.fields:
            return None
        completion = self.process.completion
        return None if completion is None else completion.replacement(payload, failure.payload, now)

    def _death(self, failure: Failure, payload: Payload | None, now: float) -> Death:
        """Make what the record of the job's run holds of its death."""
        completion = self.process.completion
        if completion is None or payload is None or failure.action == "discard":
            return NO_DEATH
        if failure.action == "retry":
            # The script looks whether the run is cancelled.
            return Death(completion.record_of(payload))
        return completion.record_of_death(payload, failure.payload, now)

    def _needs(self, failure: Failure, payload: Payload | None, now: float) -> Needs:
        """List the keys that the failed job's run needs until the job runs again."""
        if payload is None or failure.action == "discard":
            return NO_NEEDS
        # A dead job may be retried for as long as `dead` keeps it.
        waits = DEAD_TIMEOUT if failure.action == "dead" else failure.at - now
        completion = self.process.completion
        if completion is None:
            return needs(payload, waits=waits)
        return completion.prepare_wait(payload, waits=waits)

    def _set_aside(self, receipt: str, failure: Failure, payload: Payload | None, error: WrongType) -> None:
        """Keep a failed job in flight until ``retry`` or ``dead`` can take it."""
        if self.process.log_limit.allows(f"aside {failure.action}"):
            self.logger.error("Failed jobs of queue %r stay in flight for now: %s", self.queue_name, error)

        def write() -> None:
            self._write(receipt, failure, payload)

        self.process.set_aside[self.member, receipt] = write
