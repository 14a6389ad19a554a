"""The hooks of a WorkflowMiddleware on a broker that is not a SidekiqBroker."""

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
    """What a SidekiqBroker's consumer does by itself, done in the hooks of another broker.

    Parameters:
      broker: The Sidekiq Redis.
      bridged: The queues to bring jobs over from; True for those that a worker
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
        """The engine of a broker's workflows."""
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
        """An actor is about to run; the job, if the message is one of a workflow."""
        return self._steps.started(message)

    def finished(self, broker: dramatiq.Broker, message: Any, result: Any, exception: BaseException | None) -> None:
        """The actor has run, or failed."""
        self._steps.finished(message, result, exception)

    def skipped(self, message: Any) -> None:
        """A middleware skipped the message."""
        self._steps.finished(message, None, None, skipped=True)

    def enqueued(self, message: Any) -> None:
        """A message was enqueued."""
        self._steps.enqueued(message)

    def before_ack(self, message: Any) -> None:
        """The broker is about to acknowledge a message."""
        self._steps.before_ack(message)

    def before_nack(self, message: Any) -> None:
        """The broker is about to reject a message."""
        self._steps.before_nack(message)

    def close(self) -> None:
        """Stop the bridge, and close the connections to the Sidekiq Redis."""
        self.bridge.stop()
        self.broker.close()
