"""WorkflowMiddleware: the Dramatiq middleware that runs workflows."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dramatiq
from dramatiq import Middleware
from dramatiq.logging import get_logger
from dramatiq.middleware import MiddlewareError

from .broker import SidekiqBroker
from .broker.hook_table import for_other_brokers
from .context import CurrentRun, PendingRun, RunMemory, set_current_run
from .errors import ConfigurationError
from .process.paused_upkeep import PausedUpkeep
from .protocols import Barrier, CallbackStorage, Memory
from .registry import file as registry_file
from .registry.registry import Registry
from .store.callback_storage import is_custom
from .store.connection import RedisClient
from .store.memory import RedisHashMemory
from .store.replication import Replication
from .wire import dialect as dialects
from .wire.option_rules import RESERVED
from .wire.payload import NAMESPACE_KEY, Payload
from .wire.payload_fields import is_callback
from .wire.replace import Changes
from .workflow import death_policy, ttl
from .workflow.completion import Completion
from .workflow.custom_barriers import CustomBarrierTransport
from .workflow.dropped_output import quieten_dramatiq
from .workflow.engine import Engine, Settings
from .workflow.hooks import SidekiqHooks, WorkflowHooks
from .workflow.inferred_deaths import note_death
from .workflow.part_checks import check_parts
from .workflow.records import KEEP
from .workflow.transport import AtomicTransport, Transport

if TYPE_CHECKING:
    from .foreign.bridge import Bridge
    from .foreign.foreign_hooks import ForeignHooks

_logger = get_logger(__name__)


class NotConfigured(ConfigurationError, MiddlewareError):
    """A ConfigurationError that also stops a worker from starting."""


class WorkflowMiddleware(Middleware):
    """Advance workflows, keep the output of their steps, and set the current run.

    Parameters:
      memory: Memory for the mappings that actors return, e.g.
        ``RedisHashMemory(ttl=timedelta(days=1))`` or your own Memory.  None
        discards them.
      classes: Options of the Ruby classes that Python pushes:
        ``{"Docs::Load": {"queue": "critical", "retry": 3}}``; see also RubyJob.
      inherit: Further keys of a payload that a job passes on to the next steps
        and to the jobs that it sends.  By default: ``cattr``, ``cattr_*``,
        ``locale``, ``tz``, ``traceparent``, ``tracestate``, ``baggage``,
        ``apartment``, ``acts_as_tenant``, ``multi_tenant``,
        ``trace_propagation_headers``, ``sentry_user`` and ``x-datadog-*``.  See
        ``current_run().context``.
      tag_runs: Tag each job with ``wf:`` and the first 8 characters of its run
        id, so that Sidekiq's Web UI finds the jobs of a run.
      records: Keep a record of each run, which ``Runs`` and the command line read.
        It costs a step one read and one write more, in the script that runs anyway.
      record_args: Show the arguments of steps in records, shortened.
      keep_records: Time that a record is kept after the end of its run.
      registry: Path of a registry file.  It is asked after actors, ``classes``
        and RubyJob, and before the registry in Redis, which workers of both
        languages write.
      barriers: Your own Barrier.  By default one script counts a step and
        pushes the next steps; see Barrier for the guarantees that change.
      callback_storage: Storage of callback stacks.  By default the payload
        carries the stack; from 4 kB it carries a reference if only Python
        steps read it.  ``RedisCallbackStorage()`` always stores a reference.
      dialect: ``"sideline"`` if Ruby has the renamed gem sidekiq-sideline.
        Jobs of both gems are read, and a run keeps the dialect it began with.
      url, client: Sidekiq's Redis, for a broker that is not a SidekiqBroker: it
        holds the barriers, the memory and Ruby's queues.
      replication: Number of replicas that must confirm a write there, as for a
        SidekiqBroker.
      bridge: On such a broker, True moves the jobs that Ruby pushes for its
        actors to that broker, in each worker process, from the queues that it
        consumes.  Names select the queues.  False: another process does it.

    Raises:
      ConfigurationError: if the dialect is unknown, the registry file is invalid,
        a memory, barrier or storage lacks its methods, or a key of ``inherit``
        cannot be passed on.
    """

    def __init__(
        self,
        memory: Memory | None = None,
        *,
        classes: Mapping[str, Mapping[str, Any]] | None = None,
        tag_runs: bool = False,
        records: bool = True,
        record_args: bool = True,
        keep_records: timedelta = KEEP,
        registry: str | Path | None = None,
        dialect: str = "workflow",
        barriers: Barrier | None = None,
        callback_storage: CallbackStorage | None = None,
        url: str | None = None,
        client: RedisClient | None = None,
        bridge: bool | Iterable[str] = True,
        inherit: Iterable[str] = (),
        replication: Replication | None = None,
    ) -> None:
        check_parts(memory=memory, barriers=barriers, callback_storage=callback_storage)
        self.memory = memory
        self.settings = Settings(
            memory=memory,
            classes=dict(classes or {}),
            tag_runs=tag_runs,
            records=records,
            record_args=record_args,
            keep_records=_kept(keep_records),
            dialect=dialects.get(dialect),
            barriers=barriers,
            callback_storage=callback_storage,
        )
        self.registry = None if registry is None else registry_file.read(registry)
        self.inherit = _inherited(inherit)
        self.url, self.client, self.replication = url, client, replication
        self.bridge = bridge if isinstance(bridge, bool) else frozenset(bridge)
        self._hooks: WorkflowHooks = SidekiqHooks()
        self._lock = threading.Lock()

    @property
    def actor_options(self) -> set[str]:
        return {NAMESPACE_KEY}

    # -- the broker ----------------------------------------------------------------

    def attach(self, broker: dramatiq.Broker) -> None:
        """Called by the broker that this middleware was added to."""
        if not isinstance(broker, SidekiqBroker):
            self._foreign_hooks(broker)
            return
        if any(given is not None for given in (self.url, self.client, self.replication)):
            raise ConfigurationError(
                "A SidekiqBroker has its own Redis: pass url, client and replication to the broker.", broker
            )
        transport: Transport = AtomicTransport(broker)
        if self.settings.barriers is not None:
            transport = CustomBarrierTransport(broker, self.settings.barriers)
        self._equip(broker, broker, transport)

    def engine_of(self, broker: dramatiq.Broker) -> Engine:
        """Get the engine of a broker that is not a SidekiqBroker; created by the first call.

        Raises:
          ConfigurationError: if it is a SidekiqBroker or a second broker, or if neither url nor client was given.
        """
        return self._foreign_hooks(broker).engine(broker)

    def bridge_of(self, broker: dramatiq.Broker) -> Bridge:
        """Get the bridge from Sidekiq's queues to a broker that is not a SidekiqBroker.

        Raises:
          ConfigurationError: as :meth:`engine_of`.
        """
        return self._foreign_hooks(broker).bridge

    def close(self) -> None:
        """Close the connections that were opened for a broker that is not a SidekiqBroker."""
        self._hooks.close()

    def _foreign_hooks(self, broker: dramatiq.Broker) -> ForeignHooks:
        from .foreign.foreign_hooks import ForeignHooks

        if isinstance(broker, SidekiqBroker):
            raise NotConfigured("A SidekiqBroker needs no bridge: its workers consume Sidekiq's queues.", broker)
        with self._lock:
            hooks = self._hooks
            if not isinstance(hooks, ForeignHooks):
                hooks = self._hooks = self._serve(broker)
        if hooks.local is not broker:
            raise NotConfigured("This WorkflowMiddleware belongs to another broker: create one for each.", broker)
        return hooks

    def _serve(self, local: dramatiq.Broker) -> ForeignHooks:
        """Make the hooks for a broker that is not a SidekiqBroker."""
        # Only such a broker needs them.
        from .foreign.foreign_broker import ForeignSidekiqBroker
        from .foreign.foreign_hooks import ForeignHooks
        from .foreign.foreign_transport import ForeignTransport

        if self.url is None and self.client is None:
            raise NotConfigured(
                f"On a {type(local).__name__} a WorkflowMiddleware needs the URL of Sidekiq's Redis: "
                'WorkflowMiddleware(url="redis://..."). A SidekiqBroker has it already.',
                local,
            )
        if self.settings.barriers is not None or is_custom(self.settings.callback_storage):
            raise NotConfigured(
                "Your own barriers and callback storage need a SidekiqBroker: on another broker, counts and next steps "
                "are not written in one place.",
                local,
            )
        if getattr(local, "confirm_delivery", True) is False:
            _logger.warning("Without RabbitmqBroker(confirm_delivery=True), steps may be lost on their way.")
        broker = ForeignSidekiqBroker(local, self.url, client=self.client, replication=self.replication)
        engine = self._equip(broker, local, ForeignTransport(broker))
        return ForeignHooks(broker, engine, self.bridge)

    def _equip(self, broker: SidekiqBroker, actors_on: dramatiq.Broker, transport: Transport) -> Engine:
        """Give a SidekiqBroker a registry, an engine and a completion."""
        if isinstance(self.memory, RedisHashMemory):
            self.memory.bind(broker.connection, self.settings.dialect)
        broker.inherit = self.inherit
        registry = Registry(broker.connection, self.registry)
        engine = Engine(
            broker=broker, actors_on=actors_on, settings=self.settings, registry=registry, transport=transport
        )
        broker.completion = Completion(engine)
        broker.process.heartbeat.tasks.append(lambda: registry.beat(broker))
        upkeep = broker.process.heartbeat.upkeep
        upkeep.handlers.append(partial(death_policy.handle_dead, engine))
        upkeep.handlers.append(partial(ttl.extend_dead, engine))
        if self.settings.records:
            upkeep.handlers.append(partial(note_death, engine))
            extend = partial(upkeep.call, partial(ttl.extend_dead, engine))
            upkeep.duties.append(PausedUpkeep(broker.connection, extend).look)
            upkeep.duties.append(_keeping(engine, is_elsewhere=actors_on is not broker))
        quieten_dramatiq()
        return engine

    # -- hooks ---------------------------------------------------------------------

    def before_worker_boot(self, broker: Any, worker: Any) -> None:
        if not isinstance(broker, SidekiqBroker):
            self._foreign_hooks(broker)

    def after_worker_boot(self, broker: Any, worker: Any) -> None:
        self._hooks.after_worker_boot(worker)
        engine = self._hooks.engine(broker)
        try:
            engine.registry.beat(engine.broker)
        except Exception as e:
            # A worker must start without it, too.
            _logger.warning("The registry could not be written; the heartbeat tries again: %s", e)

    def before_worker_shutdown(self, broker: Any, worker: Any) -> None:
        self._hooks.before_worker_shutdown()

    def before_process_message(self, broker: Any, message: Any) -> None:
        payload = self._hooks.started(message)
        if payload is not None and payload.run_id is not None:
            if self.settings.records:
                message.began = time.time()
            set_current_run(PendingRun(partial(self._run_of, broker, message, payload, payload.run_id)))
            if payload.dialect is not self.settings.dialect:
                self._hooks.engine(broker).note_dialect(payload)

    def _run_of(self, broker: dramatiq.Broker, message: Any, payload: Payload, run_id: str) -> CurrentRun:
        engine = self._hooks.engine(broker)
        backend = self.memory
        if isinstance(backend, RedisHashMemory):
            backend = backend.for_running_step(payload.dialect)
        memory = RunMemory(backend, run_id, payload.namespace)
        extend = partial(ttl.extend, engine, payload)
        context = partial(payload.inherited, self.inherit)
        asks, changes = None, None
        if not is_callback(payload.fields):
            asks = partial(engine.broker.process.cancelled_runs.knows, run_id)
            changes = message.changes = Changes() if engine.transport.replaces else None
        return CurrentRun(run_id, payload.jid, len(payload.stack), memory, extend, context, asks, changes)

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        self._hooks.finished(broker, message, result, exception)
        set_current_run(None)

    def after_skip_message(self, broker: Any, message: Any) -> None:
        set_current_run(None)
        self._hooks.skipped(message)

    @for_other_brokers
    def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
        self._hooks.enqueued(message)

    @for_other_brokers
    def before_ack(self, broker: Any, message: Any) -> None:
        self._hooks.before_ack(message)

    @for_other_brokers
    def before_nack(self, broker: Any, message: Any) -> None:
        self._hooks.before_nack(message)


def _keeping(engine: Engine, *, is_elsewhere: bool) -> Callable[[], None]:
    """Make the duty of the keeper, which few processes import."""

    @functools.cache
    def keeper() -> Callable[[], None]:
        from .runs.run_keeper import RunKeeper

        upkeep = engine.broker.process.heartbeat.upkeep
        return RunKeeper(engine, is_elsewhere=is_elsewhere, stopping=lambda: upkeep.stopping).keep

    return lambda: keeper()()


def _kept(keep: Any) -> timedelta:
    """Check ``keep_records=``.

    Raises:
      ConfigurationError: if it is not a time above 0.
    """
    if not isinstance(keep, timedelta) or keep <= timedelta():
        raise ConfigurationError(f"keep_records takes a time: keep_records=timedelta(days=7), not {keep!r:.50}.", keep)
    return keep


def _inherited(names: Iterable[str]) -> frozenset[str]:
    """Check the keys of ``inherit=``.

    Raises:
      ConfigurationError: if one cannot be passed on.
    """
    if isinstance(names, str):
        raise ConfigurationError(f"inherit takes a list of names: inherit=[{names!r}].", names)
    found = frozenset(names)
    for name in found:
        if not isinstance(name, str) or not name or name in _NEVER_INHERITED:
            raise ConfigurationError(f"inherit: {name!r} belongs to one job and cannot be passed on.", name)
    return found


#: Keys that each job has for itself.
_NEVER_INHERITED = RESERVED | {"queue", "retry", "created_at", "wrapped", "display_class", "dramatiq", "retry_count"}
