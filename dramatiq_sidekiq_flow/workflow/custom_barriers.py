"""The transport for barriers of the application's own (``WorkflowMiddleware(barriers=...)``).

They count first; then one script takes the job out of flight, keeps its output
and pushes what follows.  A crash between the two runs the job again: the same
unit gets the same answer, and the ids of what follows are derived from the
barrier's, so that the same jobs are pushed.
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
from .plan import Ids, Plan, derived
from .transport import pour_committed, step_hooks


class CustomBarrierTransport:
    """Counts through a Barrier, and pushes with ``release.lua``."""

    derives_ids = False

    def __init__(self, broker: SidekiqBroker, barriers: Barrier) -> None:
        self.broker = broker
        self.barriers = barriers

    def start_ids(self, run_id: str) -> Ids | None:
        """See Transport: barriers made again for the same run must be the same ones."""
        return derived(run_id)

    def ids_after(self, callback: Callback) -> Ids | None:
        """See Transport."""
        return derived(callback.barrier)

    def hooks(self, message: SidekiqMessage | None) -> StepHooks | None:
        """See Transport."""
        return step_hooks(self.broker, message)

    def prepare(self, plan: Plan) -> None:
        """Make the barriers of a plan, before its jobs exist."""
        create(self.barriers, plan.barriers)

    def writes(self, plan: Plan) -> Writes:
        """See Transport; the barriers are made already."""
        return runs.writes(self.broker.connection, (), plan.pushes, plan.scheduled)

    def started(self, run_id: str, plan: Plan, *, before: bool) -> None:
        """See Transport."""

    def first_due(self, job: FinishedJob) -> int:
        """Count the job: number of the callback that fires."""
        return count(self.barriers, job.payload.stack, job.payload.jid)

    def send(self, job: FinishedJob, due: int, plan: Plan | None) -> Outcome:
        """Take the job, which is counted, out of flight, and push what follows."""
        message = job.message
        assert message is not None
        self.extend(job.payload, job.ttl)
        writes = runs.NOTHING if plan is None else self.writes(plan)
        outcome = self.broker.process.commit.run(
            runs.release(
                message.member,
                message.receipt,
                released=job.payload.stack[-due].barrier if due else "",
                ttl=RELEASED_TTL,
                output=as_long_as_the_run(job),
                plan=writes,
            )
        )
        pour_committed(self.broker, writes, outcome)
        return outcome

    def extend(self, payload: Payload, ttl: int) -> None:
        """Let the barriers of a stack live for so many seconds."""
        for callback in payload.stack:
            self.barriers.extend(callback.barrier, ttl * 1000)


def as_long_as_the_run(job: FinishedJob) -> Output:
    """A job's output; the memory lives at least as long as the barriers that wait."""
    output = job.output
    if not job.payload.stack:
        return output
    memory = attrs.evolve(output.memory, ttl=max(output.memory.ttl, job.ttl))
    return attrs.evolve(output, memory=memory)


def create(barriers: Barrier, made: tuple[NewBarrier, ...]) -> None:
    """Make barriers; those that have released need none."""
    for barrier in made:
        if barrier.value:
            barriers.create(barrier.id, barrier.value, barrier.ttl * 1000)


def count(barriers: Barrier, stack: tuple[Callback, ...], unit: str) -> int:
    """Walk a stack from the top; the number of the callback that fires (1 = the top), 0 = none."""
    for number, callback in enumerate(reversed(stack), 1):
        if not barriers.wait(callback.barrier, unit):
            return 0
        if callback.kind == "f":
            return number
        if callback.kind == "s":
            return 0
        unit = callback.barrier
    return 0
