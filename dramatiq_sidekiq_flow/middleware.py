"""The Dramatiq middleware that makes jobs steps of a workflow."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq import Middleware
from dramatiq.logging import get_logger

from .broker import SidekiqBroker
from .context import CurrentRun, Memory, RunMemory, set_current_run
from .errors import ConfigurationError
from .store.barriers import Barrier
from .store.callback_storage import CallbackStorage
from .store.memory import RedisHashMemory
from .typed import manifest
from .typed.registry import Registry
from .wire import dialect as dialects
from .wire.payload import NAMESPACE_KEY
from .workflow import Completion
from .workflow.ttl import keep, keep_dead

_logger = get_logger(__name__)


class WorkflowMiddleware(Middleware):
    """Advances workflows, keeps what their steps return, and knows the current run.

    Parameters:
      memory: Where mappings that actors return are kept, e.g.
        ``RedisHashMemory(ttl=timedelta(days=1))``, or a Memory of your own.
        None keeps nothing.
      classes: Options of Ruby classes that Python advances onto:
        ``{"Docs::Load": {"queue": "critical", "retry": 3}}``; see also RubyJob.
      tag_runs: Tag each job with ``wf:`` and the first 8 characters of its run
        id, so that Sidekiq's Web UI finds a run's jobs.
      registry: A JSON file of what each language's classes are, for what
        neither actors nor ``classes`` nor RubyJob say; after it comes the
        registry in Redis, which workers of both languages write.
      barriers: Barriers of your own, instead of those that count in the very
        step that pushes what follows (see Barrier for what that gives up).
      callback_storage: Where callback stacks are kept: in the payload unless
        given, or by reference with ``RedisCallbackStorage()``.
      dialect: ``"sideline"`` where Ruby has the renamed gem sidekiq-sideline.
        Jobs of either gem are read; a run goes on as it began.

    Raises:
      ConfigurationError: for an unknown dialect, or a file that is no registry.
    """

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
    ) -> None:
        self.memory = memory
        self.classes = classes
        self.tag_runs = tag_runs
        self.registry = None if registry is None else manifest.read(registry)
        self.dialect = dialects.named(dialect)
        self.barriers = barriers
        self.callback_storage = callback_storage

    @property
    def actor_options(self) -> set[str]:
        return {NAMESPACE_KEY}

    def attach(self, broker: dramatiq.Broker) -> None:
        """Called by the broker that this middleware was added to."""
        if not isinstance(broker, SidekiqBroker):
            raise ConfigurationError(
                f"WorkflowMiddleware needs a SidekiqBroker, not a {type(broker).__name__}.", broker
            )
        if isinstance(self.memory, RedisHashMemory):
            self.memory.bind(broker.connection, self.dialect)
        registry = Registry(broker.connection, self.registry)
        broker.completion = Completion(
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
        broker.heartbeat.keep = partial(keep_dead, broker.completion)
        for name in ("dramatiq.worker.WorkerThread", "dramatiq.results.middleware.Results"):
            _quieten(name)

    def after_worker_boot(self, broker: Any, worker: Any) -> None:
        try:
            broker.completion.registry.beat(broker)
        except Exception as e:
            # The heartbeat tries again; a worker must start without it, too.
            _logger.warning("The registry could not be written: %s", e)

    def before_process_message(self, broker: Any, message: Any) -> None:
        payload = message.payload
        if payload.run_id is not None:
            spoken = self.memory
            if isinstance(spoken, RedisHashMemory):
                spoken = spoken.running(payload.dialect)
            memory = RunMemory(spoken, payload.run_id, payload.namespace)
            keeper = partial(keep, broker.completion, payload)
            set_current_run(CurrentRun(payload.run_id, payload.jid, len(payload.stack), memory, keeper))

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if message.payload.run_id is not None:
            message.output = result
            set_current_run(None)

    def after_skip_message(self, broker: Any, message: Any) -> None:
        set_current_run(None)


class _KeptOutput(logging.Filter):
    """Drops Dramatiq's warning that a returned value was discarded, where it was kept.

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
