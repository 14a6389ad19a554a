"""Hooks of a WorkflowMiddleware, which differ by the kind of broker."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any, Protocol

import dramatiq

from ..wire.payload import Payload
from .engine import Engine
from .engine_lookup import engine_of


class WorkflowHooks(Protocol):
    """Protocol of the hooks that depend on the kind of broker."""

    def engine(self, broker: dramatiq.Broker) -> Engine:
        """Get the engine of a broker's workflows."""

    def after_worker_boot(self, worker: dramatiq.Worker) -> None:
        """Called after a worker has started."""

    def before_worker_shutdown(self) -> None:
        """Called before a worker stops."""

    def started(self, message: Any) -> Payload | None:
        """Called before an actor runs.  Return the message's job; None if it is not a job of Sidekiq or a run."""

    def finished(self, broker: dramatiq.Broker, message: Any, result: Any, exception: BaseException | None) -> None:
        """Called after the actor has returned or raised."""

    def skipped(self, message: Any) -> None:
        """Called after a middleware has skipped a message."""

    def enqueued(self, message: Any) -> None:
        """Called after a message was enqueued."""

    def before_ack(self, message: Any) -> None:
        """Called before the broker acknowledges a message."""

    def before_nack(self, message: Any) -> None:
        """Called before the broker rejects a message."""

    def close(self) -> None:
        """Stop the threads and close the connections that the hooks have opened."""


class SidekiqHooks:
    """Hooks on a SidekiqBroker, whose consumer acknowledges jobs and advances runs."""

    def engine(self, broker: dramatiq.Broker) -> Engine:
        """See WorkflowHooks."""
        return engine_of(broker)

    def after_worker_boot(self, worker: dramatiq.Worker) -> None:
        """See WorkflowHooks."""

    def before_worker_shutdown(self) -> None:
        """See WorkflowHooks."""

    def started(self, message: Any) -> Payload | None:
        """See WorkflowHooks."""
        payload: Payload = message.payload
        return payload

    def finished(self, broker: Any, message: Any, result: Any, exception: BaseException | None) -> None:
        """Keep the output for the advance, and the context for the hooks that are called for the next steps."""
        if message.payload.run_id is None:
            return
        message.output = result
        if broker.has_enqueue_hooks:
            message.context = copy_context()

    def skipped(self, message: Any) -> None:
        """See WorkflowHooks."""

    def enqueued(self, message: Any) -> None:
        """See WorkflowHooks."""

    def before_ack(self, message: Any) -> None:
        """See WorkflowHooks."""

    def before_nack(self, message: Any) -> None:
        """See WorkflowHooks."""

    def close(self) -> None:
        """See WorkflowHooks."""
