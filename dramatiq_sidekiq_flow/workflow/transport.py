"""Transports: how a run's steps are counted, and how what follows reaches its workers."""

from __future__ import annotations

from typing import Protocol

from dramatiq.logging import get_logger

from ..broker import SidekiqBroker
from ..broker.message import SidekiqMessage
from ..broker.step_hooks import StepHooks
from ..store import fanouts, runs
from ..store.connection import LOST, Connection
from ..store.outcomes import NeedsPlan, Outcome, StageLost
from ..store.runs import Writes
from ..wire.callbacks import Callback
from ..wire.payload import Payload
from .finished_job import FinishedJob
from .plan import Ids, Plan

_logger = get_logger(__name__)


class Transport(Protocol):
    """What an advance, and the start of a run, leave open.

    Attributes:
      derives_ids: A run that is started again under its id makes the same
        jobs, since some of them are pushed before it is known as started.
    """

    derives_ids: bool

    def start_ids(self, run_id: str) -> Ids | None:
        """Makers of the ids of a run's first steps; None for new ones."""

    def ids_after(self, callback: Callback) -> Ids | None:
        """Makers of the ids of what a callback starts; None for new ones."""

    def hooks(self, message: SidekiqMessage | None) -> StepHooks | None:
        """Hooks of other middleware for what is pushed; None if none has any.

        Parameters:
          message: The finished step; without one, a run is started.
        """

    def prepare(self, plan: Plan) -> None:
        """Make what must exist before a plan's jobs do."""

    def writes(self, plan: Plan) -> Writes:
        """A plan as the scripts take it."""

    def started(self, run_id: str, plan: Plan, *, before: bool) -> None:
        """Finish the start of a run.

        Parameters:
          before: It was started by an earlier call.
        """

    def first_due(self, job: FinishedJob) -> int:
        """Number of the callback to plan for before anything is sent (1 = the top); 0 for none."""

    def send(self, job: FinishedJob, due: int, plan: Plan | None) -> Outcome:
        """Count the job, and write what follows.

        Parameters:
          due: Number of the callback that the plan is for; 0 without a plan.

        Returns:
          Done, Gone, NeedsPlan or StageLost.
        """

    def extend(self, payload: Payload, ttl: int) -> None:
        """Let barriers that are not in this Redis live for so many seconds."""


class AtomicTransport:
    """Counts, acknowledges and pushes in one script: ``advance.lua``."""

    derives_ids = False

    def __init__(self, broker: SidekiqBroker) -> None:
        self.broker = broker

    def start_ids(self, run_id: str) -> Ids | None:
        """See Transport."""
        return None

    def ids_after(self, callback: Callback) -> Ids | None:
        """See Transport."""
        return None

    def hooks(self, message: SidekiqMessage | None) -> StepHooks | None:
        """See Transport."""
        return step_hooks(self.broker, message)

    def prepare(self, plan: Plan) -> None:
        """See Transport."""

    def writes(self, plan: Plan) -> Writes:
        """See Transport."""
        return runs.writes(self.broker.connection, plan.barriers, plan.pushes, plan.scheduled)

    def started(self, run_id: str, plan: Plan, *, before: bool) -> None:
        """See Transport."""

    def first_due(self, job: FinishedJob) -> int:
        """See Transport."""
        return job.first_due

    def send(self, job: FinishedJob, due: int, plan: Plan | None) -> Outcome:
        """See Transport."""
        message = job.message
        assert message is not None
        writes = runs.NOTHING if plan is None else self.writes(plan)
        outcome = self.broker.process.commit.run(
            runs.advance(
                message.member,
                message.receipt,
                job.payload.jid,
                job.walk,
                ttl=job.ttl,
                output=job.output,
                planned=due,
                plan=writes,
            )
        )
        pour_committed(self.broker, writes, outcome)
        return outcome

    def extend(self, payload: Payload, ttl: int) -> None:
        """See Transport."""


def step_hooks(broker: SidekiqBroker, message: SidekiqMessage | None) -> StepHooks | None:
    """Hooks of other middleware on a SidekiqBroker; see Transport."""
    if not broker.has_enqueue_hooks:
        return None
    context = None if message is None else message.context
    return StepHooks(broker, context, raising=message is None)


def pour(connection: Connection, writes: Writes) -> None:
    """Push what a committed fan-out holds.

    Raises:
      ServerUnavailable, redis.ConnectionError: if Redis cannot be reached; the
        next beat of any worker pushes what is left.
    """
    if not writes.fanout:
        return
    # Others as well: where this call is a repetition, an earlier list was committed.
    for error in fanouts.pour_all(connection, writes.fanout).values():
        _logger.error("%s", error)


def pour_committed(broker: SidekiqBroker, writes: Writes, outcome: Outcome) -> None:
    """Push what a fan-out holds, if an advance has committed it.

    The step has left flight, so a Redis that is unavailable now is left to the next beat.
    """
    if not writes.fanout or isinstance(outcome, (NeedsPlan, StageLost)):
        return
    try:
        pour(broker.connection, writes)
    except LOST as e:
        broker.process.availability.lost(e)
