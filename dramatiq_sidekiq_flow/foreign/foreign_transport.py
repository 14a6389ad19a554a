"""Transport for steps on another Dramatiq broker.

That broker acknowledges a message by itself, so a step cannot be acknowledged
and advanced in one script.  Instead: count (``count.lua``, idempotent), enqueue
the next steps on that broker, and mark them as enqueued (``fired.lua``).  After
a crash in between this is repeated; the ids of the next steps are derived from
the barrier's id, so a repetition counts once.
"""

from __future__ import annotations

import time

import attrs
import dramatiq

from ..broker.message import SidekiqMessage
from ..broker.step_hooks import StepHooks
from ..store import foreign_runs, runs
from ..store.outcomes import DONE, Done, Fires, Outcome
from ..store.runs import Writes
from ..wire.callbacks import Callback
from ..wire.payload import Payload
from ..workflow.custom_barriers import as_long_as_the_run
from ..workflow.finished_job import FinishedJob
from ..workflow.plan import Plan
from ..workflow.plan_ids import Ids, derived
from ..workflow.transport import pour
from .foreign_broker import ForeignSidekiqBroker
from .foreign_messages import to_foreign


@attrs.frozen
class ForeignStep:
    """Step to enqueue on the other broker.

    Attributes:
      at: Due time in epoch seconds; None for now.
    """

    payload: Payload
    at: float | None = None


@attrs.frozen
class Split:
    """Two parts of a plan.

    Attributes:
      sidekiq: The barriers, and the jobs for Sidekiq's queues.
      steps: The steps for the other broker.
    """

    sidekiq: Plan
    steps: list[ForeignStep]


class ForeignTransport:
    """Transport that counts with ``count.lua``, and enqueues Python's steps on another broker.

    Parameters:
      broker: The broker of Sidekiq's Redis.
    """

    derives_ids = True
    hands_over = False
    replaces = False

    def __init__(self, broker: ForeignSidekiqBroker) -> None:
        self.broker = broker
        self.local: dramatiq.Broker = broker.local

    def start_ids(self, run_id: str) -> Ids | None:
        """See Transport."""
        return derived(f"run:{run_id}")

    def ids_after(self, callback: Callback) -> Ids | None:
        """See Transport."""
        return derived(callback.barrier)

    def hooks(self, message: SidekiqMessage | None) -> StepHooks | None:
        """Return None: the other broker's ``enqueue`` calls the hooks."""
        return None

    def prepare(self, plan: Plan) -> None:
        """See Transport."""

    def writes(self, plan: Plan) -> Writes:
        """See Transport; only the barriers, and the jobs for Sidekiq's queues."""
        return self._writes(self._split(plan).sidekiq)

    def started(self, run_id: str, plan: Plan, *, before: bool) -> None:
        """Enqueue a run's first steps on the other broker, unless they are marked as enqueued."""
        steps = self._split(plan).steps
        if not steps or (before and foreign_runs.is_enqueued(self.broker.connection, run_id)):
            return
        self._enqueue(steps)
        foreign_runs.enqueued(self.broker.connection, run_id)

    def first_due(self, job: FinishedJob) -> int:
        """See Transport."""
        return job.first_due

    def send(self, job: FinishedJob, due: int, plan: Plan | None) -> Outcome:
        """See Transport."""
        split = None if plan is None else self._split(plan)
        writes = runs.NOTHING if split is None else self._writes(split.sidekiq)
        steps = [] if split is None else split.steps
        outcome = self.broker.process.commit.run(
            foreign_runs.count(
                job.payload.jid,
                job.walk,
                ttl=job.ttl,
                output=as_long_as_the_run(job),
                planned=due,
                elsewhere=bool(steps),
                plan=writes,
                record=job.record,
            )
        )
        if isinstance(outcome, (Done, Fires)):
            # The barriers must exist before a step that counts one down is enqueued.
            pour(self.broker.connection, writes)
        if not isinstance(outcome, Fires):
            return outcome
        self._enqueue(steps)
        self.broker.process.commit.run(foreign_runs.fired(job.walk[:due]))
        return DONE

    def extend(self, payload: Payload, ttl: int) -> None:
        """See Transport."""

    def _writes(self, plan: Plan) -> Writes:
        return runs.writes(self.broker.connection, plan.barriers, plan.pushes, plan.scheduled)

    def _split(self, plan: Plan) -> Split:
        steps: list[ForeignStep] = []
        pushes: dict[str, tuple[bytes, ...]] = {}
        for queue, payloads in plan.pushes.items():
            others = self._without_steps(payloads, steps)
            if others:
                pushes[queue] = others
        scheduled = tuple((at, raw) for at, raw in plan.scheduled if not self._is_here(raw, at, steps))
        return Split(attrs.evolve(plan, pushes=pushes, scheduled=scheduled), steps)

    def _without_steps(self, payloads: tuple[bytes, ...], steps: list[ForeignStep]) -> tuple[bytes, ...]:
        """Select the payloads for Sidekiq's queue; add the others to ``steps``."""
        return tuple(raw for raw in payloads if not self._is_here(raw, None, steps))

    def _is_here(self, raw: bytes, at: float | None, steps: list[ForeignStep]) -> bool:
        """Return True if a job is a step for the other broker, and add it to ``steps``."""
        payload = Payload.decode(raw)
        if payload.actor_name not in self.local.actors:
            return False
        steps.append(ForeignStep(payload, at))
        return True

    def _enqueue(self, steps: list[ForeignStep]) -> None:
        for step in steps:
            delay = None if step.at is None else max(0, round((step.at - time.time()) * 1000))
            self.local.enqueue(to_foreign(step.payload, str(step.payload.fields["queue"])), delay=delay)
