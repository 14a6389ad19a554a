"""Finds the engine of a broker's workflows."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import dramatiq

from ..broker import SidekiqBroker
from ..errors import ConfigurationError
from .completion import Completion
from .engine import Engine


@runtime_checkable
class EngineProvider(Protocol):
    """A middleware that makes workflows run on a broker: WorkflowMiddleware."""

    def engine_of(self, broker: dramatiq.Broker) -> Engine:
        """The engine of a broker that is not a SidekiqBroker.

        Raises:
          ConfigurationError: if the middleware lacks the Sidekiq Redis, or serves another broker.
        """


def engine_of(broker: dramatiq.Broker) -> Engine:
    """The engine of a broker's workflows.

    Raises:
      ConfigurationError: if the broker has no WorkflowMiddleware, or one that lacks the Sidekiq Redis.
    """
    if isinstance(broker, SidekiqBroker):
        if isinstance(broker.completion, Completion):
            return broker.completion.engine
    else:
        for middleware in broker.middleware:
            if isinstance(middleware, EngineProvider):
                return middleware.engine_of(broker)
    if isinstance(broker, SidekiqBroker):
        cure = "broker.add_middleware(WorkflowMiddleware())."
    else:
        cure = (
            "if it was made by Dramatiq, dramatiq.set_broker(broker) with a SidekiqBroker was not called before the "
            "actors were declared. To run workflows on it: "
            'broker.add_middleware(WorkflowMiddleware(url="redis://...")), with the url of the Sidekiq Redis.'
        )
    raise ConfigurationError(f"The {type(broker).__name__} has no WorkflowMiddleware: {cure}", broker)
