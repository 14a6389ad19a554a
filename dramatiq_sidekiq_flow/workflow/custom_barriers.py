"""Transport for custom barriers (``WorkflowMiddleware(barriers=...)``).

The barriers count first; then one script takes the job out of flight, saves its
output and pushes the next steps.  After a crash between the two the job runs
again: the same unit gets the same answer, and the ids of the next steps are
derived from the barrier's id, so the same jobs are pushed.
"""

from __future__ import annotations

import attrs

from ..broker import SidekiqBroker
from ..broker.message import SidekiqMessage
from ..broker.step_hooks import StepHooks
from ..protocols import Barrier
from ..store import runs
from ..store.outcomes import Outcome
from ..store.runs import Output, Writes
from ..wire.barrier import NewBarrier
from ..wire.callbacks import Callback
from ..wire.lifetimes import RELEASED_TTL
from ..wire.payload import Payload
from .finished_job import FinishedJob
from .plan import Plan
from .plan_ids import Ids, derived
from .transport import pour_committed, step_hooks

#: Number of the callback that fires after the last step of a run.
OVER = -1


class CustomBarrierTransport:
    """Transport that counts through a Barrier, and pushes with ``release.lua``."""

    derives_ids = False
    hands_over = False
    replaces = False

    def __init__(self, broker: SidekiqBroker, barriers: Barrier) -> None:
        self.broker = broker
        self.barriers = barriers

    def start_ids(self, run_id: str) -> Ids | None:
        """See Transport; derived, so that a repeated start creates the same barriers."""
        return derived(run_id)

    def ids_after(self, callback: Callback) -> Ids | None:
        """See Transport."""
        return derived(callback.barrier)

    def hooks(self, message: SidekiqMessage | None) -> StepHooks | None:
        """See Transport."""
        return step_hooks(self.broker, message)

    def prepare(self, plan: Plan) -> None:
        """Create the barriers of a plan, before its jobs are pushed."""
        create(self.barriers, plan.barriers)

    def writes(self, plan: Plan) -> Writes:
        """See Transport; :meth:`prepare` has created the barriers."""
        return runs.writes(self.broker.connection, (), plan.pushes, plan.scheduled)

    def started(self, run_id: str, plan: Plan, *, before: bool) -> None:
        """See Transport."""

    def first_due(self, job: FinishedJob) -> int:
        """Count the job; return the number of the callback that fires (1 = the top), 0 for none, or OVER."""
        return count(self.barriers, job.payload.stack, job.payload.jid)

    def send(self, job: FinishedJob, due: int, plan: Plan | None) -> Outcome:
        """Take the counted job out of flight, and push the next steps."""
        message = job.message
        assert message is not None
        self.extend(job.payload, job.ttl)
        writes = runs.NOTHING if plan is None else self.writes(plan)
        outcome = self.broker.process.commit.run(
            runs.release(
                message.member,
                message.receipt,
                released=job.payload.stack[-due].barrier if due > 0 else "",
                ttl=RELEASED_TTL,
                output=as_long_as_the_run(job),
                plan=writes,
                record=job.record,
                is_over=due == OVER,
            )
        )
        pour_committed(self.broker, writes, outcome)
        return outcome

    def extend(self, payload: Payload, ttl: int) -> None:
        """Let the barriers of a stack live for at least ``ttl`` seconds from now."""
        for callback in payload.stack:
            self.barriers.extend(callback.barrier, ttl * 1000)


def as_long_as_the_run(job: FinishedJob) -> Output:
    """Get a job's output, with a memory that lives at least as long as the barriers that still wait."""
    output = job.output
    if not job.payload.stack:
        return output
    memory = attrs.evolve(output.memory, ttl=max(output.memory.ttl, job.ttl))
    return attrs.evolve(output, memory=memory)


def create(barriers: Barrier, made: tuple[NewBarrier, ...]) -> None:
    """Create barriers, except those that have already released."""
    for barrier in made:
        if barrier.value:
            barriers.create(barrier.id, barrier.value, barrier.ttl * 1000)


def count(barriers: Barrier, stack: tuple[Callback, ...], unit: str) -> int:
    """Walk a stack from the top; return the number of the callback that fires (1 = the top).

    Returns:
      0 if none fires, or OVER if none is left.
    """
    for number, callback in enumerate(reversed(stack), 1):
        if not barriers.wait(callback.barrier, unit):
            return 0
        if callback.kind == "f":
            return number
        if callback.kind == "s":
            return 0
        unit = callback.barrier
    return OVER
