"""The Dramatiq middleware that makes jobs steps of a workflow."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import dramatiq
from dramatiq import Middleware
from dramatiq.logging import get_logger

from .broker import SidekiqBroker
from .broker.bridge import Bridge
from .broker.gateway import Gateway
from .context import CurrentRun, Memory, RunMemory, set_current_run
from .errors import ConfigurationError
from .store.barriers import Barrier
from .store.callback_storage import CallbackStorage
from .store.memory import RedisHashMemory
from .store.replication import Replication
from .typed import manifest
from .typed.registry import Registry
from .wire import dialect as dialects
from .wire.option_rules import RESERVED
from .wire.payload import NAMESPACE_KEY
from .workflow import Completion
from .workflow.relay import NotReady, Relay
from .workflow.ttl import keep, keep_dead

if TYPE_CHECKING:
    import redis

_B = TypeVar("_B", bound=SidekiqBroker)
_C = TypeVar("_C", bound=Completion)

_logger = get_logger(__name__)


class WorkflowMiddleware(Middleware):
    """Advances workflows, keeps what their steps return, and knows the current run.

    Parameters:
      memory: Where mappings that actors return are kept, e.g.
        ``RedisHashMemory(ttl=timedelta(days=1))``, or a Memory of your own.
        None keeps nothing.
      classes: Options of Ruby classes that Python advances onto:
        ``{"Docs::Load": {"queue": "critical", "retry": 3}}``; see also RubyJob.
      inherit: Names of further keys of a payload that a job hands on to the
        jobs that follow it and that it sends, as it does with the usual ones:
        ``cattr``, ``cattr_*``, ``locale``, ``tz``, ``traceparent``,
        ``tracestate``, ``baggage``, ``apartment``, ``acts_as_tenant``,
        ``multi_tenant``, ``trace_propagation_headers``, ``sentry_user`` and
        ``x-datadog-*``.  See ``current_run().context``.
      tag_runs: Tag each job with ``wf:`` and the first 8 characters of its run
        id, so that Sidekiq's Web UI finds a run's jobs.
      registry: A JSON file of what each language's classes are, for what
        neither actors nor ``classes`` nor RubyJob say; after it comes the
        registry in Redis, which workers of both languages write.
      barriers: Barriers of your own, instead of those that count in the very
        step that pushes what follows (see Barrier for what that gives up).
      callback_storage: Where callback stacks are kept: in the payload unless
        given, but from 256 kB by reference where only Python steps carry it;
        always by reference with ``RedisCallbackStorage()``.
      dialect: ``"sideline"`` where Ruby has the renamed gem sidekiq-sideline.
        Jobs of either gem are read; a run goes on as it began.
      url, client: Of the Sidekiq Redis, where the broker is not a SidekiqBroker:
        barriers, memory and Ruby's queues are there.
      replication: How many of its replicas must have what is written there, as
        for a SidekiqBroker.
      bridge: On such a broker, what Ruby pushes for its actors is brought
        over by each worker process, from the queues that it consumes; False
        leaves that to other processes, and names say which queues.

    Raises:
      ConfigurationError: for an unknown dialect, a file that is not a registry, a
        memory (barriers, callback_storage) that is none, and a key that cannot be handed on.
    """

    #: Its after_enqueue is for steps on other brokers; see ``broker.step_hooks``.
    sees_steps = True

    def __init__(
        self,
        memory: Memory | None = None,
        *,
        classes: Mapping[str, Mapping[str, Any]] | None = None,
        tag_runs: bool = False,
        registry: str | Path | None = None,
        dialect: str = "workflow",
        barriers: Barrier | None = None,
        callback_storage: CallbackStorage | None = None,
        url: str | None = None,
        client: redis.Redis | None = None,
        bridge: bool | Iterable[str] = True,
        inherit: Iterable[str] = (),
        replication: Replication | None = None,
    ) -> None:
        _check_parts(memory=memory, barriers=barriers, callback_storage=callback_storage)
        self.memory = memory
        self.classes = classes
        self.tag_runs = tag_runs
        self.registry = None if registry is None else manifest.read(registry)
        self.dialect = dialects.get(dialect)
        self.barriers = barriers
        self.callback_storage = callback_storage
        self.inherit = _inherited(inherit)
        self.url, self.client, self.replication = url, client, replication
        self.bridge = bridge if isinstance(bridge, bool) else frozenset(bridge)
        self._relay: Relay | None = None
        self._lock = threading.Lock()

    @property
    def actor_options(self) -> set[str]:
        return {NAMESPACE_KEY}

    def attach(self, broker: dramatiq.Broker) -> None:
        """Called by the broker that this middleware was added to."""
        if not isinstance(broker, SidekiqBroker):
            self.completion_of(broker)
            return
        if any(given is not None for given in (self.url, self.client, self.replication)):
            raise ConfigurationError(
                "A SidekiqBroker has its own Redis; leave url, client and replication to it.", broker
            )
        broker.completion = self._complete(broker, Completion)

    def completion_of(self, broker: dramatiq.Broker) -> Relay:
        """What advances runs on a broker that is not a SidekiqBroker; made when it is first asked for.

        Raises:
          ConfigurationError: for a SidekiqBroker, for a second broker, or where no Sidekiq Redis was named.
        """
        if isinstance(broker, SidekiqBroker):
            raise NotReady("A SidekiqBroker needs no bridge: its workers take from Sidekiq's queues.", broker)
        with self._lock:
            if self._relay is None:
                if self.url is None and self.client is None:
                    raise NotReady(
                        f"On a {type(broker).__name__} a WorkflowMiddleware needs to know the Sidekiq Redis: "
                        'WorkflowMiddleware(url="redis://..."). On a SidekiqBroker it does not.',
                        broker,
                    )
                if getattr(broker, "confirm_delivery", True) is False:
                    _logger.warning("Without RabbitmqBroker(confirm_delivery=True), steps may be lost on their way.")
                gateway = Gateway(broker, self.url, client=self.client, replication=self.replication)
                self._relay = self._complete(gateway, Relay)
            if self._relay.local is not broker:
                raise NotReady("This WorkflowMiddleware serves another broker; each needs one of its own.", broker)
            return self._relay

    def bridge_of(self, broker: dramatiq.Broker) -> Bridge:
        """What brings jobs from Sidekiq's queues onto a broker that is not a SidekiqBroker."""
        return self.completion_of(broker).bridge

    def _complete(self, broker: _B, kind: Callable[..., _C]) -> _C:
        if isinstance(self.memory, RedisHashMemory):
            self.memory.bind(broker.connection, self.dialect)
        broker.inherit = self.inherit
        registry = Registry(broker.connection, self.registry)
        completion = kind(
            broker,
            self.memory,
            self.classes,
            self.tag_runs,
            registry,
            self.dialect,
            self.barriers,
            self.callback_storage,
        )
        broker.heartbeat.tasks.append(lambda: registry.beat(broker))
        broker.heartbeat.keep = partial(keep_dead, completion)
        for name in ("dramatiq.worker.WorkerThread", "dramatiq.results.middleware.Results"):
            _quieten(name)
        return completion

    def before_worker_boot(self, broker: Any, worker: Any) -> None:
        if not isinstance(broker, SidekiqBroker):
            self.completion_of(broker)

    def after_worker_boot(self, broker: Any, worker: Any) -> None:
        if self._relay is not None:
            if self.bridge is not False:
                self._relay.bridge.start(worker.consumer_whitelist if self.bridge is True else self.bridge)
            broker = self._relay.broker
        try:
            (self._relay or broker.completion).registry.beat(broker)
        except Exception as e:
            # The heartbeat tries again; a worker must start without it, too.
            _logger.warning("The registry could not be written: %s", e)

    def before_worker_shutdown(self, broker: Any, worker: Any) -> None:
        if self._relay is not None:
            self._relay.bridge.stop()

    def before_process_message(self, broker: Any, message: Any) -> None:
        completion = broker.completion if self._relay is None else self._relay
        payload = message.payload if self._relay is None else self._relay.begin(message)
        if payload is not None and payload.run_id is not None:
            spoken = self.memory
            if isinstance(spoken, RedisHashMemory):
                spoken = spoken.for_running_step(payload.dialect)
            memory = RunMemory(spoken, payload.run_id, payload.namespace)
            keeper = partial(keep, completion, payload)
            context = partial(payload.inherited, self.inherit)
            set_current_run(CurrentRun(payload.run_id, payload.jid, len(payload.stack), memory, keeper, context))
            completion.note_dialect(payload)

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if self._relay is not None:
            self._relay.end(message, result, exception)
            set_current_run(None)
        elif message.payload.run_id is not None:
            message.output = result
            if broker.has_enqueue_hooks:
                message.context = copy_context()
            set_current_run(None)

    def after_skip_message(self, broker: Any, message: Any) -> None:
        set_current_run(None)
        if self._relay is not None:
            self._relay.end(message, None, None, skipped=True)

    # What a SidekiqBroker's consumer does in one step, other brokers leave to these.

    def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
        if self._relay is not None:
            self._relay.enqueued(message)

    def before_ack(self, broker: Any, message: Any) -> None:
        if self._relay is not None:
            self._relay.settle(message)

    def before_nack(self, broker: Any, message: Any) -> None:
        if self._relay is not None:
            self._relay.reject(message)


class _KeptOutput(logging.Filter):
    """Drops Dramatiq's warning that a returned value was discarded, where it was kept, and where we say it.

    Dramatiq warns for each job that returns something without the Results
    middleware.  The record does not hold the value, so it is looked up in the
    frame that logs.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if "returned a value that is not None" not in str(record.msg):
            return True
        frame = sys._getframe()
        while frame is not None:
            if frame.f_code.co_name in ("process_message", "after_process_message"):
                value = frame.f_locals.get("res", frame.f_locals.get("result"))
                payload = getattr(frame.f_locals.get("message"), "payload", None)
                if record.name.endswith("WorkerThread") and payload is not None and payload.run_id is not None:
                    return False  # said once, with what to do: workflow.dropped_output
                if value is not None:
                    return not isinstance(value, Mapping)
            if frame.f_back is None:
                return True
            frame = frame.f_back
        return True


def _quieten(name: str) -> None:
    logger = logging.getLogger(name)
    if not any(isinstance(f, _KeptOutput) for f in logger.filters):
        logger.addFilter(_KeptOutput())


def _inherited(names: Iterable[str]) -> frozenset[str]:
    """The keys of ``inherit=``.

    Raises:
      ConfigurationError: if one cannot be handed on.
    """
    if isinstance(names, str):
        raise ConfigurationError(f"inherit takes a list of names: inherit=[{names!r}].", names)
    found = frozenset(names)
    for name in found:
        if not isinstance(name, str) or not name or name in _NEVER_INHERITED:
            raise ConfigurationError(f"inherit: {name!r} cannot be handed on from job to job.", name)
    return found


#: What each job has of its own.
_NEVER_INHERITED = RESERVED | {"queue", "retry", "created_at", "wrapped", "display_class", "dramatiq", "retry_count"}

#: What each part of the middleware must have, and an example of one.
_PARTS = {
    "memory": (("read", "write"), "RedisHashMemory()"),
    "barriers": (("create", "wait"), "MyBarriers()"),
    "callback_storage": (("store", "retrieve"), "RedisCallbackStorage()"),
}


def _check_parts(**parts: Any) -> None:
    for name, value in parts.items():
        methods, example = _PARTS[name]
        if value is None:
            continue
        if isinstance(value, type):
            raise ConfigurationError(
                f"{name}={value.__name__} is the class; pass one: {name}={value.__name__}().", value
            )
        if not all(callable(getattr(value, method, None)) for method in methods):
            raise ConfigurationError(
                f"{name} must be an object such as {example}, not a {type(value).__name__}.",
                value,
            )
