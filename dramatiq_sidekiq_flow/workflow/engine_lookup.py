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
        return _of_sidekiq(broker)
    return _of_other(broker)


def _of_sidekiq(broker: SidekiqBroker) -> Engine:
    if isinstance(broker.completion, Completion):
        return broker.completion.engine
    raise _no_middleware(broker, "broker.add_middleware(WorkflowMiddleware()).")


def _of_other(broker: dramatiq.Broker) -> Engine:
    for middleware in broker.middleware:
        if isinstance(middleware, EngineProvider):
            return middleware.engine_of(broker)
    raise _no_middleware(
        broker,
        "if it was made by Dramatiq, dramatiq.set_broker(broker) with a SidekiqBroker was not called before the "
        "actors were declared. To run workflows on it: "
        'broker.add_middleware(WorkflowMiddleware(url="redis://...")), with the url of the Sidekiq Redis.',
    )


def _no_middleware(broker: dramatiq.Broker, cure: str) -> ConfigurationError:
    return ConfigurationError(f"The {type(broker).__name__} has no WorkflowMiddleware: {cure}", broker)
