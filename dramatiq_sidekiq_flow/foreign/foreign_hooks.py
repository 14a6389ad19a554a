"""Hooks of a WorkflowMiddleware on a broker that is not a SidekiqBroker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dramatiq

from ..broker.dramatiq_internals import wanted_queues
from ..wire.payload import Payload
from ..workflow.engine import Engine
from .bridge import Bridge
from .foreign_broker import ForeignSidekiqBroker
from .foreign_steps import ForeignSteps


class ForeignHooks:
    """Hooks that do the work of a SidekiqBroker's consumer on another broker.

    Parameters:
      broker: The broker of Sidekiq's Redis.
      bridged: The queues of Sidekiq to bridge; True for those that the worker
        consumes, False for none.
    """

    def __init__(self, broker: ForeignSidekiqBroker, engine: Engine, bridged: bool | Iterable[str]) -> None:
        self.broker = broker
        self.local = broker.local
        self._engine = engine
        self.bridge = Bridge(broker)
        self._bridged = bridged
        self._steps = ForeignSteps(engine)

    def engine(self, broker: dramatiq.Broker) -> Engine:
        """Get the engine of a broker's workflows."""
        return self._engine

    def after_worker_boot(self, worker: dramatiq.Worker) -> None:
        """Start the bridge."""
        if self._bridged is True:
            self.bridge.start(wanted_queues(worker))
        elif self._bridged is not False:
            self.bridge.start(self._bridged)

    def before_worker_shutdown(self) -> None:
        """Stop the bridge."""
        self.bridge.stop()

    def started(self, message: Any) -> Payload | None:
        """Follow a message before its actor runs.  Return its job; None if it is not a job of Sidekiq or a run."""
        return self._steps.started(message)

    def finished(self, broker: dramatiq.Broker, message: Any, result: Any, exception: BaseException | None) -> None:
        """Record that the actor has returned or raised."""
        self._steps.finished(message, result, exception)

    def skipped(self, message: Any) -> None:
        """Record that a middleware has skipped the message."""
        self._steps.finished(message, None, None, skipped=True)

    def enqueued(self, message: Any) -> None:
        """Record that a message was enqueued, perhaps as a retry of the current step."""
        self._steps.enqueued(message)

    def before_ack(self, message: Any) -> None:
        """Advance the run of a message before the broker acknowledges it."""
        self._steps.before_ack(message)

    def before_nack(self, message: Any) -> None:
        """Move a step to ``dead`` before the broker rejects it."""
        self._steps.before_nack(message)

    def close(self) -> None:
        """Stop the bridge, and close the connections to Sidekiq's Redis."""
        self.bridge.stop()
        self.broker.close()
