"""The hooks of a WorkflowMiddleware, which differ by broker."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any, Protocol

import dramatiq

from ..wire.payload import Payload
from .engine import Engine
from .engine_lookup import engine_of


class WorkflowHooks(Protocol):
    """What a WorkflowMiddleware leaves to the kind of broker that it serves."""

    def engine(self, broker: dramatiq.Broker) -> Engine:
        """The engine of a broker's workflows."""

    def after_worker_boot(self, worker: dramatiq.Worker) -> None:
        """A worker has started."""

    def before_worker_shutdown(self) -> None:
        """A worker is about to stop."""

    def started(self, message: Any) -> Payload | None:
        """An actor is about to run; the job, if the message is one of a workflow."""

    def finished(self, broker: dramatiq.Broker, message: Any, result: Any, exception: BaseException | None) -> None:
        """The actor has run, or failed."""

    def skipped(self, message: Any) -> None:
        """A middleware skipped the message."""

    def enqueued(self, message: Any) -> None:
        """A message was enqueued."""

    def before_ack(self, message: Any) -> None:
        """The broker is about to acknowledge a message."""

    def before_nack(self, message: Any) -> None:
        """The broker is about to reject a message."""

    def close(self) -> None:
        """Stop threads, and close connections, that the hooks have opened."""


class SidekiqHooks:
    """The hooks on a SidekiqBroker, whose consumer acknowledges and advances."""

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
        """Keep the output, and the context for hooks of what follows, for the advance."""
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
