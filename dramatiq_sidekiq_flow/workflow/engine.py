"""Engine of one broker's workflows: settings, job options, plans.

The start of a run and its advance need the same parts: the options of the
classes of the next steps, new ids, the context that is passed on, and a plan.
"""

from __future__ import annotations

import os
import time
from collections.abc import Hashable, Mapping
from datetime import timedelta
from typing import Any

import attrs
from dramatiq import Broker
from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from ..broker import SidekiqBroker
from ..broker.message import new_jid
from ..broker.step_hooks import StepHooks
from ..context import current_job
from ..protocols import Barrier, CallbackStorage, Memory
from ..registry.registry import Registry
from ..store.connection import LOST
from ..store.needs import Needs, needs
from ..wire.callbacks import Callback
from ..wire.dialect import NOOP_CLASSES, WORKFLOW, Dialect
from ..wire.nodes import Wire, is_ruby_constant
from ..wire.payload import Payload
from .finished_job import FinishedJob
from .job_options import JobOptions
from .outputs import Outputs
from .plan import Plan, Source, plan
from .plan_ids import Ids
from .precheck import Precheck
from .records import KEEP, Records
from .stacks import Stacks
from .transport import Transport


@attrs.frozen(kw_only=True)
class Settings:
    """Parameters of a WorkflowMiddleware, which documents them."""

    memory: Memory | None = None
    classes: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    tag_runs: bool = False
    records: bool = True
    record_args: bool = True
    keep_records: timedelta = KEEP
    dialect: Dialect = WORKFLOW
    barriers: Barrier | None = None
    callback_storage: CallbackStorage | None = None


class Engine:
    """Planner of the first and next steps, for one broker.

    Parameters:
      broker: The broker of Sidekiq's Redis.
      actors_on: The broker that the actors are declared on.
      transport: Counts and pushes steps.
    """

    def __init__(
        self,
        *,
        broker: SidekiqBroker,
        actors_on: Broker,
        settings: Settings,
        registry: Registry,
        transport: Transport,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.broker = broker
        self.settings = settings
        self.registry = registry
        self.transport = transport
        self.job_options = JobOptions(broker, settings.classes, registry)
        self.precheck = Precheck(
            broker=broker, job_options=self.job_options, registry=registry, derives_ids=transport.derives_ids
        )
        self.stacks = Stacks(broker.connection, settings.callback_storage, self.precheck.is_python)
        self.outputs = Outputs(settings.memory, actors_on)
        self.records = Records(
            broker.process.heartbeat,
            enabled=settings.records,
            keep=settings.keep_records,
            arguments=settings.record_args,
        )
        #: Warnings that were logged, so that each is logged once.
        self.warned: set[Hashable] = set()

    @property
    def memory(self) -> Memory | None:
        """Memory of runs; None if workflows have none."""
        return self.settings.memory

    def note_dialect(self, payload: Payload) -> None:
        """Warn, once per dialect, of a job whose dialect is not the configured one.  Its run keeps its dialect."""
        found, expected = payload.dialect.name, self.settings.dialect.name
        if found == expected or found in self.warned:
            return
        self.warned.add(found)
        self.logger.warning(
            "Job %s is a step in the dialect %r, but this process starts runs in %r. Python continues runs of both; "
            "a Ruby process reads only the dialect of its gem, and drops the next steps of the other. If Ruby has "
            "the gem of the first, set WorkflowMiddleware(dialect=%r).",
            payload.jid,
            found,
            expected,
            found,
        )

    def is_ruby(self, job: Mapping[str, Any]) -> bool:
        """Return True if a job is of a Ruby class: it has the name of one, and no actor of this broker has it."""
        return is_ruby_constant(job["class"]) and job["class"] not in (*NOOP_CLASSES, *self.broker.actors)

    # -- planning -------------------------------------------------------------

    def source(
        self,
        run_id: str | None,
        *,
        first: bool = False,
        finished: Payload | None = None,
        queue: str = "default",
        ids: Ids | None = None,
        hooks: StepHooks | None = None,
    ) -> Source:
        """Make the source of a plan: ids, time, options and context.

        Parameters:
          first: True for the first steps of a run.
          finished: The step before the plan's steps; None for the first steps of
            a run, which inherit the context of the job that starts it, if any.
          queue: Queue of a job that does nothing.
          ids: Makers of ids; random ids unless given.
          hooks: Hooks that are called for Python's steps.
        """
        return Source(
            run_id=run_id,
            now=time.time(),
            options=self.job_options.of_step,
            ids=ids or RANDOM_IDS,
            noop_queue=queue,
            inherited=self._inherited(finished),
            tags=(f"wf:{run_id[:8]}",) if self.settings.tag_runs and run_id else (),
            dialect=finished.dialect if finished else self.settings.dialect,
            store=self.stacks.store,
            prepare=None if hooks is None else hooks.before,
            references=self.stacks.references(first=first),
            number=None if finished is None or finished.step is None else finished.step + 1,
        )

    def _inherited(self, finished: Payload | None) -> dict[str, Any]:
        """Make the context that the next steps inherit from the step or job before them, with its trace."""
        before = finished or current_job()
        inherited = before.inherited(self.broker.inherit) if before else {}
        if self.broker.sender.stamps:
            self.broker.sender.stamp(inherited, "advance" if finished else "start")
        return inherited

    def plan(self, node: Wire, stack: tuple[Callback, ...], source: Source, ttl: int) -> Plan:
        """Plan the start of a node, and store the chains that its payloads refer to.

        Parameters:
          ttl: Seconds that its barriers must live.

        Raises:
          CallbacksMissing: if the node refers to a stored chain that is gone.
          ConnectionClosed: if Redis cannot be reached.
        """
        try:
            ready = plan(node, stack, source, ttl)
            if source.references is not None:
                source.references.write(ready.ttl)
            self.transport.prepare(ready)
        except LOST as e:
            raise ConnectionClosed(e) from None
        return ready

    def plan_after(self, job: FinishedJob, due: int) -> Plan:
        """Plan the continuation of a finished job.

        Parameters:
          due: Number of the callback that fires (1 = the top of the stack).
        """
        stack = job.payload.stack
        callback = stack[-due]
        assert callback.remaining is not None
        hooks = self.transport.hooks(job.message)
        source = self.source(
            job.payload.run_id,
            finished=job.payload,
            queue=job.queue,
            ids=self.transport.ids_after(callback),
            hooks=hooks,
        )
        ready = self.plan(callback.remaining, stack[:-due], source, job.ttl)
        if hooks is not None:
            hooks.after()
        return ready

    def pushed(self, ready: Plan) -> None:
        """Finish a written plan: wake the poller for its delayed jobs, and release the stored chains it has used up."""
        if ready.scheduled:
            self.broker.process.poller.nudge(ready.scheduled[0][0] - time.time())
        if not ready.consumed:
            return
        try:
            self.stacks.release(ready)
        except LOST as e:
            self.broker.process.availability.lost(e)

    # -- jobs that wait ---------------------------------------------------------

    def needs(self, payload: Payload, *, waits: float = 0.0) -> Needs:
        """List the keys that a job's run needs until the job is done.

        Parameters:
          waits: Seconds until the job may run.
        """
        return needs(payload, self.outputs.memory_key(payload), waits=waits)

    def extend_custom_barriers(self, payload: Payload, ttl: int) -> None:
        """Let custom barriers live for at least ``ttl`` seconds from now; log an error instead of raising it."""
        try:
            self.transport.extend(payload, ttl)
        except Exception as e:
            # The caller's own writes must be made even so.
            self.logger.error("The custom barriers of job %s were not extended and may expire: %s", payload.jid, e)


class _RandomIds:
    """Makers of random ids."""

    def new_jid(self) -> str:
        return new_jid()

    def new_barrier(self) -> str:
        # A UUID of version 4, as uuid.uuid4(), which takes three times as long.
        digits = os.urandom(16).hex()
        variant = "89ab"[int(digits[16], 16) & 3]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


RANDOM_IDS: Ids = _RandomIds()
