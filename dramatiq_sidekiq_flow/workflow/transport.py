"""Transports: they count the steps of a run, and push the next steps."""

from __future__ import annotations

from typing import Protocol

from dramatiq.logging import get_logger

from ..broker import SidekiqBroker
from ..broker.message import SidekiqMessage
from ..broker.next_job import offer
from ..broker.step_hooks import StepHooks
from ..store import fanouts, runs
from ..store.connection import LOST, Connection
from ..store.outcomes import Kept, NeedsPlan, Outcome, RunCancelled, StageLost
from ..store.runs import Writes
from ..wire.callbacks import Callback
from ..wire.payload import Payload
from .finished_job import FinishedJob
from .plan import Plan
from .plan_ids import Ids

_logger = get_logger(__name__)


class Transport(Protocol):
    """Protocol of a transport, used by an advance and by the start of a run.

    Attributes:
      derives_ids: True if the ids of a run's first jobs derive from its run id.
        A repeated start then makes the same jobs: needed if some are pushed
        before the run is marked as started.
      hands_over: True if the steps of a group may be counted together, by
        ``advance_group.lua``.
      replaces: True if a tree may replace a step when it ends (``replace.lua``).
    """

    derives_ids: bool
    hands_over: bool
    replaces: bool

    def start_ids(self, run_id: str) -> Ids | None:
        """Get makers of the ids of a run's first steps; None for random ids."""

    def ids_after(self, callback: Callback) -> Ids | None:
        """Get makers of the ids of a callback's continuation; None for random ids."""

    def hooks(self, message: SidekiqMessage | None) -> StepHooks | None:
        """Get the hooks of other middleware to call for pushed steps; None if no middleware has any.

        Parameters:
          message: The finished step; None at the start of a run.
        """

    def prepare(self, plan: Plan) -> None:
        """Create what must exist before the jobs of a plan are pushed."""

    def writes(self, plan: Plan) -> Writes:
        """Make the keys and arguments of a plan for the scripts."""

    def started(self, run_id: str, plan: Plan, *, before: bool) -> None:
        """Finish the start of a run.

        Parameters:
          before: True if an earlier call started it.
        """

    def first_due(self, job: FinishedJob) -> int:
        """Get the number of the callback to plan for before the first call of :meth:`send` (1 = the top); 0 for none.

        A custom barrier counts the job here.
        """

    def send(self, job: FinishedJob, due: int, plan: Plan | None) -> Outcome:
        """Count the job, and push the next steps.

        Parameters:
          due: Number of the callback that the plan belongs to; 0 without a plan.

        Returns:
          Done, Kept, Gone, RunCancelled, NeedsPlan or StageLost.
        """

    def extend(self, payload: Payload, ttl: int) -> None:
        """Let custom barriers of a job live for at least ``ttl`` seconds from now."""


class AtomicTransport:
    """Transport that counts, acknowledges and pushes in one script: ``advance.lua``."""

    derives_ids = False
    hands_over = True
    replaces = True

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
        following = None if plan is None or writes.fanout else plan.only_job(message.queue_name)
        keep = "" if following is None else offer(self.broker.process, message)
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
                keep=keep,
                record=job.record,
            )
        )
        if isinstance(outcome, Kept):
            message.next_job = outcome.payload or following
            # An earlier call kept the job of another plan.
            message.next_stack = None if plan is None or outcome.payload else plan.carried
        pour_committed(self.broker, writes, outcome)
        return outcome

    def extend(self, payload: Payload, ttl: int) -> None:
        """See Transport."""


def step_hooks(broker: SidekiqBroker, message: SidekiqMessage | None) -> StepHooks | None:
    """Get the hooks of other middleware on a SidekiqBroker; see Transport."""
    if not broker.has_enqueue_hooks:
        return None
    context = None if message is None else message.context
    return StepHooks(broker, context, raising=message is None)


def pour(connection: Connection, writes: Writes) -> None:
    """Push the jobs of a committed fan-out.

    Raises:
      ServerUnavailable, redis.ConnectionError: if Redis cannot be reached; the
        next beat of any worker pushes the remaining jobs.
    """
    if not writes.fanout:
        return
    # All fan-outs: if this call is a repetition, the list of an earlier call was committed.
    for error in fanouts.pour_all(connection, writes.fanout).values():
        _logger.error("%s", error)


def pour_committed(broker: SidekiqBroker, writes: Writes, outcome: Outcome) -> None:
    """Push the jobs of a fan-out if the advance has committed it.

    The step has left flight, so an unavailable Redis is not an error here: the
    next beat of any worker pushes the jobs.
    """
    if not writes.fanout or isinstance(outcome, (NeedsPlan, RunCancelled, StageLost)):
        return
    try:
        pour(broker.connection, writes)
    except LOST as e:
        broker.process.availability.lost(e)
