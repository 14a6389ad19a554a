"""The engine of one broker's workflows: settings, options, plans.

Starting a run and advancing one need the same: the options of the classes that
follow, fresh ids, the context that is handed on, and a plan.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Hashable, Mapping
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
from ..wire.dialect import WORKFLOW, Dialect
from ..wire.nodes import Wire
from ..wire.payload import Payload
from .finished_job import FinishedJob
from .job_options import JobOptions
from .outputs import Outputs
from .plan import Ids, Plan, Source, plan
from .precheck import Precheck
from .stacks import Stacks
from .transport import Transport


@attrs.frozen(kw_only=True)
class Settings:
    """What a WorkflowMiddleware was given; its docstring describes each."""

    memory: Memory | None = None
    classes: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    tag_runs: bool = False
    dialect: Dialect = WORKFLOW
    barriers: Barrier | None = None
    callback_storage: CallbackStorage | None = None


class Engine:
    """Plans what follows, for one broker.

    Parameters:
      broker: The Sidekiq Redis.
      actors_on: The broker that the actors are declared on.
      transport: How steps are counted and pushed.
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
        #: Warnings that were logged, each once.
        self.warned: set[Hashable] = set()

    @property
    def memory(self) -> Memory | None:
        """The memory of runs."""
        return self.settings.memory

    def note_dialect(self, payload: Payload) -> None:
        """Warn, once, of a job in another dialect than the setting's.  Its run goes on in its own."""
        found, expected = payload.dialect.name, self.settings.dialect.name
        if found == expected or found in self.warned:
            return
        self.warned.add(found)
        self.logger.warning(
            "Job %s is a step in the dialect %r, this process starts runs in %r. Python goes on with both; a Ruby "
            "process knows only that of its gem, and drops what follows otherwise. Set "
            "WorkflowMiddleware(dialect=%r) where Ruby has that gem.",
            payload.jid,
            found,
            expected,
            found,
        )

    # -- planning -------------------------------------------------------------

    def source(
        self,
        run_id: str | None,
        *,
        finished: Payload | None = None,
        queue: str = "default",
        ids: Ids | None = None,
        hooks: StepHooks | None = None,
    ) -> Source:
        """Where a plan takes ids, time and options from.

        Parameters:
          finished: The step that the plan follows.  The first steps of a run
            have the context of the job that starts it, if one does.
          queue: For a job that does nothing.
          ids: Makers of ids; random ones unless given.
          hooks: Called for Python's steps.
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
            references=self.stacks.references(),
        )

    def _inherited(self, finished: Payload | None) -> dict[str, Any]:
        """The context that the next steps inherit from the step or job before them, with a trace of this one."""
        before = finished or current_job()
        inherited = before.inherited(self.broker.inherit) if before else {}
        self.broker.sender.stamp(inherited, "advance" if finished else "start")
        return inherited

    def plan(self, node: Wire, stack: tuple[Callback, ...], source: Source, ttl: int) -> Plan:
        """Work out what starting a node writes, and store what its payloads refer to.

        Parameters:
          ttl: Seconds that its barriers must live.

        Raises:
          CallbacksMissing: if the node is a reference to a chain that is gone.
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
        """Plan what follows a finished job.

        Parameters:
          due: Number of the callback that fires; 1 is the top of the stack.
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
        """A plan is written: wake the poller, and let chains expire that are used up."""
        if ready.scheduled:
            self.broker.process.poller.nudge(ready.scheduled[0][0] - time.time())
        try:
            self.stacks.release(ready)
        except LOST as e:
            self.broker.process.availability.lost(e)

    # -- what waits -------------------------------------------------------------

    def needs(self, payload: Payload, *, waits: float = 0.0) -> Needs:
        """What a job's run needs until the job is done.

        Parameters:
          waits: Seconds until the job may run.
        """
        return needs(payload, self.outputs.memory_key(payload), waits=waits)

    def extend_custom_barriers(self, payload: Payload, ttl: int) -> None:
        """Let barriers of the application's own live for so many seconds; an error is logged."""
        try:
            self.transport.extend(payload, ttl)
        except Exception as e:
            # The caller's own writes must be made all the same.
            self.logger.error("The barriers of job %s could not be extended: %s", payload.jid, e)


class _RandomIds:
    """Makers of new ids."""

    def new_jid(self) -> str:
        return new_jid()

    def new_barrier(self) -> str:
        return str(uuid.uuid4())


RANDOM_IDS: Ids = _RandomIds()
