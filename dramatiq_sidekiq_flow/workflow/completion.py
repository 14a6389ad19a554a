"""Where a finished job advances its workflow.

:meth:`Completion.advance` is called from ``Consumer.ack``.  It sends one
script that takes the job out of flight, keeps its output, counts down its
barriers and pushes what follows.  A chain step always fires, so its plan goes
along at once: one round trip.  A group's children send none; the last one is
told which callback fires, builds that plan and sends again.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from ..broker import SidekiqBroker
from ..broker.message import SidekiqMessage, new_jid
from ..broker.step_hooks import StepHooks
from ..context import Memory, current_job, namespaced
from ..errors import BarrierExpired, FlowError, WrongType
from ..store import fanouts, runs
from ..store.barriers import Barrier
from ..store.callback_storage import CallbackStorage, InlineCallbackStorage, RedisCallbackStorage
from ..store.chains import StoredChains
from ..store.connection import LOST
from ..store.memory import RedisHashMemory
from ..store.runs import Walk
from ..typed import ruby
from ..typed.registry import Registry
from ..wire.callbacks import Callback
from ..wire.dialect import NOOP_CLASSES, WORKFLOW, Dialect
from ..wire.nodes import Wire
from ..wire.payload import DEFAULTS, RETRY_HORIZON, Payload
from . import own_barriers
from .collisions import Collision, collisions
from .dropped_output import DroppedOutput
from .plan import Ids, Plan, Source, barrier_ttl, completes_at_once, plan
from .precheck import Precheck
from .references import LargeReferences, References, StorageReferences


class Completion:
    """Advances runs for one broker.

    Parameters:
      memory: Where returned mappings are kept; None keeps none.
      classes: Options of Ruby classes: name -> ``{"queue": ..., "retry": ...}``.
      tag_runs: Tag each job with ``wf:`` and the first 8 characters of its run.
      registry: What is known of classes that nothing here says anything of.
      dialect: Of the runs that start here; each job goes on in its own.
      barriers: The application's own, instead of those inside ``advance.lua``.
      callback_storage: Where callback stacks are kept; None: in the payload,
        but large ones of Python steps by reference.
    """

    #: Whether a run that is started again under its id must make the same jobs, whatever their messages' ids.
    derives_ids = False

    def __init__(
        self,
        broker: SidekiqBroker,
        memory: Memory | None = None,
        classes: Mapping[str, Mapping[str, Any]] | None = None,
        tag_runs: bool = False,
        registry: Registry | None = None,
        dialect: Dialect = WORKFLOW,
        barriers: Barrier | None = None,
        callback_storage: CallbackStorage | None = None,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.broker = broker
        self.memory = memory
        self.classes = dict(classes or {})
        self.tag_runs = tag_runs
        self.registry = registry or Registry(broker.connection)
        self.dialect = dialect
        self.barriers = barriers
        #: References are read whatever storage is used: another process may write them.
        self.chains = StoredChains(broker.connection)
        self.storage: RedisCallbackStorage | None = None
        #: Of a storage of the application's own: the stack for what a payload holds, and back.
        self.retrieve: Callable[[Any], Any] | None = None
        self._store: Callable[[list[list[Any]]], Any] | None = None
        if isinstance(callback_storage, RedisCallbackStorage):
            callback_storage.bind(self.chains)
            self.storage = callback_storage
        elif callback_storage is not None and not isinstance(callback_storage, InlineCallbackStorage):
            self.retrieve, self._store = callback_storage.retrieve, callback_storage.store
        #: Payloads hold whole callback stacks.
        self.inline = self.storage is None and self.retrieve is None
        #: But those of Python steps refer to what is large.
        self.refers = callback_storage is None
        self.dropped = DroppedOutput(getattr(broker, "local", broker), memory is not None)
        self._warned: set[str] = set()
        self._precheck = Precheck(self)
        self._collided: set[Collision] = set()

    # -- what a step is pushed with -------------------------------------------

    def options(self, name: str) -> Mapping[str, Any]:
        """The options that a class or actor has of itself; Sidekiq's defaults where it is known nowhere."""
        found = self.known(name)
        return DEFAULTS if found is None else {**DEFAULTS, **found}

    def known(self, name: str) -> Mapping[str, Any] | None:
        """What is said of a class or actor, nearest first; None where nothing is.

        The actor in this process, ``WorkflowMiddleware(classes=...)``, RubyJob,
        and for what these leave open the registry.

        Raises:
          ConnectionClosed: where the registry is needed and cannot be reached:
            a guess would send the step where nobody takes it.
        """
        said = self.said_here(name)
        if name in NOOP_CLASSES or (said is not None and "queue" in said and "retry" in said):
            return said
        try:
            entry = self.registry.find(name)
        except LOST as e:
            raise ConnectionClosed(e) from None
        return said if entry is None else {**entry.options, **(said or {})}

    def said_here(self, name: str) -> Mapping[str, Any] | None:
        """What this process says of a class or actor; None where it says nothing."""
        own = self.broker.options_of(name)
        if own is not None:
            return own
        of_class, declared = self.classes.get(name), ruby.declared(name)
        return None if of_class is None and declared is None else {**(declared or {}), **(of_class or {})}

    def of_step(self, node: Wire) -> Mapping[str, Any]:
        """As :meth:`options`, for a step; warns where its queue is a guess."""
        name = node["class"]
        found = self.known(name)
        if found is not None:
            return {**DEFAULTS, **found}
        if "queue" not in node and name not in self._warned:
            self._warned.add(name)
            self.logger.warning(
                "Nothing is known of %s, so its jobs go to queue %r with Sidekiq's retries. If its sidekiq_options "
                "say otherwise, say so here: RubyJob(%r, queue=..., retry=...).",
                name,
                DEFAULTS["queue"],
                name,
            )
        return DEFAULTS

    def note_dialect(self, payload: Payload) -> None:
        """Warn, once, of a job in another dialect than the setting's.  It goes on in its own."""
        found = payload.dialect
        if found is not self.dialect and found.name not in self._warned:
            self._warned.add(found.name)
            self.logger.warning(
                "Job %s is a step in the dialect %r, this process starts runs in %r. Python goes on with both; a Ruby "
                "process knows only that of its gem, and drops what follows otherwise. Set "
                "WorkflowMiddleware(dialect=%r) where Ruby has that gem.",
                payload.jid,
                found.name,
                self.dialect.name,
                found.name,
            )

    def check_queues(self, wire: Wire) -> None:
        """See, before a run starts, that each step has a class and a process that takes it.

        Raises:
          QueueShared: if Ruby would take a step of Python's and pass it without its work.
        """
        self._precheck.check(wire)

    def noop_queue(self, wire: Wire) -> str:
        """Where a delayed empty node goes that starts with its run: a queue that Python consumes."""
        return self._precheck.noop_queue(wire)

    def warn_of_collisions(self, wire: Wire) -> None:
        """Warn, once, of steps that run side by side and are known to write the same fields."""
        declared = {name: getattr(actor, "output_fields", None) for name, actor in self.broker.actors.items()}
        if self.memory is None or not any(declared.values()):
            return
        for found in collisions(wire, lambda name: declared.get(name) or ()):
            if found not in self._collided:
                self._collided.add(found)
                self.logger.warning("%s", found)

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
          hooks: Told of Python's steps.
        """
        new_jid_, new_barrier = ids or (new_jid, _new_barrier)
        before = finished or current_job()
        inherited = before.inherited(self.broker.inherit) if before else {}
        self.broker.stamp(inherited, "advance" if finished else "start")
        return Source(
            run_id=run_id,
            now=time.time(),
            options=self.of_step,
            new_jid=new_jid_,
            new_barrier=new_barrier,
            noop_queue=queue,
            inherited=inherited,
            tags=(f"wf:{run_id[:8]}",) if self.tag_runs and run_id else (),
            dialect=finished.dialect if finished else self.dialect,
            store=self._store,
            prepare=None if hooks is None else hooks.before,
            references=self._references(),
        )

    def _references(self) -> References:
        if self.storage is not None:
            return StorageReferences(self.chains, self.storage)
        return LargeReferences(self.chains, self._precheck.is_python) if self.refers else References(self.chains)

    def hooks(self, message: SidekiqMessage | None = None) -> StepHooks | None:
        """Hooks of other middleware for what is pushed now; None where no middleware has any.

        Parameters:
          message: The finished step; without one, a run is started.
        """
        if not self.broker.has_enqueue_hooks:
            return None
        context = None if message is None else message.context
        return StepHooks(self.broker, context, raising=message is None)

    def plan(self, node: Wire, stack: tuple[Callback, ...], source: Source, *, delays: bool = True) -> Plan:
        """Work out what starting a node writes, and store what its payloads refer to.

        Raises:
          CallbacksMissing: where the node is a reference to what is gone.
        """
        try:
            ready = plan(node, stack, source, delays=delays)
            if source.references is not None:
                source.references.write(ready.ttl)
            if self.barriers is not None:
                own_barriers.create(self.barriers, ready.barriers)
        except LOST as e:
            raise ConnectionClosed(e) from None
        return ready

    def writes(self, planned: Plan) -> runs.Writes:
        """A plan as the scripts take it."""
        barriers = planned.barriers if self.barriers is None else ()
        return runs.writes(self.broker.connection, barriers, planned.pushes, planned.scheduled)

    def pour(self, writes: runs.Writes) -> None:
        """Push what a committed fan-out holds.

        Raises:
          ServerUnavailable, redis.ConnectionError: the next beat of any worker pushes what is left.
        """
        if not writes.fanout:
            return
        # Others, too: where this call is a repetition, an earlier list was committed.
        for error in fanouts.pour_all(self.broker.connection, writes.fanout).values():
            self.logger.error("%s", error)

    def keep(self, stack: tuple[Callback, ...], ttl: int) -> None:
        """Let barriers of the application's own, that a failed job hangs on, live for so many seconds."""
        if self.barriers is not None:
            try:
                own_barriers.extend(self.barriers, stack, ttl)
            except Exception as e:
                # The failure must be written all the same.
                self.logger.error("Barriers of a failed job could not be prolonged: %s", e)

    def output(self, payload: Payload, value: Any) -> tuple[tuple[str, int], dict[str, bytes]]:
        """The memory's key and ttl, and the fields that a job's output sets there.

        A memory of another kind is written to here: it cannot be part of the
        advance, so it comes before it, and a crash in between writes it again.
        """
        memory = self.memory_of(payload)
        if value is not None and payload.run_id is not None:
            self.dropped.warn(payload.actor_name, value)
        if self.memory is None or payload.run_id is None or not isinstance(value, Mapping):
            return memory, {}
        values = namespaced(value, payload.namespace)
        if not isinstance(self.memory, RedisHashMemory):
            self.memory.write(payload.run_id, values)
            return memory, {}
        return memory, self.memory.encode(values)

    def memory_of(self, payload: Payload) -> tuple[str, int]:
        """The key of the memory of a job's run, and how many seconds it outlives the run; ``("", 0)`` for none."""
        if not isinstance(self.memory, RedisHashMemory) or payload.run_id is None:
            return ("", 0)
        return (self.memory.for_dialect(payload.dialect).key(payload.run_id), self.memory.ttl_seconds)

    def started(self, run_id: str, planned: Plan, *, before: bool) -> None:
        """A run was started, or had been before; its jobs are where they belong."""

    # -- the advance ------------------------------------------------------------

    def advance(self, message: SidekiqMessage) -> None:
        """Go on after a job that succeeded.

        Raises:
          BarrierExpired, WrongType, InvalidOutput: the run cannot go on;
            nothing was written, the job is still in flight.
          ConnectionClosed: Redis cannot be reached; calling again is safe.
        """
        payload = message.payload
        memory, fields = self.output(payload, message.output)
        if not payload.stack and not memory[0]:
            self.broker.commit.done(message.member, message.receipt)
            return
        if self.barriers is not None:
            own_barriers.advance(self, self.barriers, message, memory, fields)
            return

        # Both a delay and a reference to a chain with delays have this key; a job with a time of its own has "at".
        delays = b'"delay"' in payload.raw or b'"at"' in payload.raw or self.retrieve is not None
        ttl = barrier_ttl(None, payload.stack) if delays else RETRY_HORIZON
        walk = [Walk(callback.barrier, kind_of(callback)) for callback in reversed(payload.stack)]
        planned = 1 if walk and walk[0].kind == "f" else 0
        ready: Plan | None = None
        if b'"reference"' in payload.raw:
            self.keep_chains(payload.stack, ttl)
        while True:
            if planned and ready is None:
                remaining = payload.stack[-planned].remaining
                assert remaining is not None
                hooks = self.hooks(message)
                source = self.source(payload.run_id, finished=payload, queue=message.queue_name, hooks=hooks)
                ready = self.plan(remaining, payload.stack[:-planned], source, delays=delays)
                if hooks is not None:
                    hooks.after()
            writes = self.writes(ready) if ready is not None else runs.NOTHING
            reply = self.broker.commit.run(
                runs.advance(
                    message.member,
                    message.receipt,
                    payload.jid,
                    walk,
                    ttl=ttl,
                    memory=memory,
                    fields=fields,
                    planned=planned,
                    plan=writes,
                )
            )
            outcome = reply[0]
            if outcome in (b"DONE", b"GONE"):
                self.pour_soon(writes)
            if outcome == b"DONE":
                self.release_chains(ready)
                if ready is not None and ready.scheduled:
                    self.broker.poller.nudge(ready.scheduled[0][0] - time.time())
                return
            if outcome == b"GONE":
                self.logger.debug("Job %s had left flight: sent twice, or recovered elsewhere.", payload.jid)
                return
            if outcome == b"PLAN":
                planned, ready = int(reply[1]), None
            elif outcome != b"STAGE":
                raise refusal(reply)
            # STAGE: what was staged has vanished; stage it again.

    def pour_soon(self, writes: runs.Writes) -> None:
        """As :meth:`pour`, where the step has left flight: a Redis that is away now is left to the next beat."""
        try:
            self.pour(writes)
        except LOST as e:
            self.broker.availability.lost(e)

    def release_chains(self, planned: Plan | None) -> None:
        """Let stored chains of this run, whose last steps were pushed, expire in a day; what fails expires later."""
        if planned is not None and planned.consumed and self.refers:
            try:
                for error in self.chains.release(planned.consumed):
                    self.logger.warning("A stored chain is not needed any longer, but expires late: %s", error)
            except LOST as e:
                self.broker.availability.lost(e)

    def keep_chains(self, stack: tuple[Callback, ...], ttl: int) -> None:
        """Let the chains that a stack refers to live for so many seconds."""
        try:
            self.chains.keep((callback.remaining for callback in stack), ttl)
        except LOST as e:
            raise ConnectionClosed(e) from None


def refusal(reply: list[Any]) -> FlowError:
    """What a reply EXPIRED or TYPE of ``advance.lua`` and ``count.lua`` means."""
    key = reply[1].decode()
    if reply[0] == b"EXPIRED":
        return BarrierExpired(
            f"The barrier {key} is gone, so the run cannot go on from here: it expired, or it was deleted. The "
            "step itself is done; a retry runs it again, and ends here again. To start what remains of the run "
            "without it: python -m dramatiq_sidekiq_flow release app:broker JID, or restart_remaining(broker, jid).",
            key,
        )
    return WrongType(f"The Redis key {key!r} holds another type than a workflow needs there.", reply[1])


def kind_of(callback: Callback) -> str:
    """What happens when a callback's barrier releases, as :class:`runs.Walk` names it."""
    remaining = callback.remaining
    if remaining is not None:
        # What remains may be empty: then it completes at once, and the walk goes on.
        return "n" if completes_at_once(remaining) else "f"
    return "n" if callback.propagate else "s"


def _new_barrier() -> str:
    return str(uuid.uuid4())


__all__ = ["Completion"]
