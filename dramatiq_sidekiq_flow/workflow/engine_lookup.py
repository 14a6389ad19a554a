"""Lookup of the engine of a broker's workflows."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import dramatiq

from ..broker import SidekiqBroker
from ..errors import ConfigurationError
from .engine import Engine


@runtime_checkable
class EngineProvider(Protocol):
    """Middleware that runs workflows on a broker: WorkflowMiddleware."""

    def engine_of(self, broker: dramatiq.Broker) -> Engine:
        """Get the engine of a broker that is not a SidekiqBroker.

        Raises:
          ConfigurationError: if the middleware has neither url nor client of Sidekiq's Redis, or belongs to
            another broker.
        """


def engine_of(broker: dramatiq.Broker) -> Engine:
    """Get the engine of a broker's workflows.

    Raises:
      ConfigurationError: if the broker has no WorkflowMiddleware, or one without url or client of Sidekiq's Redis.
    """
    if isinstance(broker, SidekiqBroker):
        return _of_sidekiq(broker)
    return _of_other(broker)


def _of_sidekiq(broker: SidekiqBroker) -> Engine:
    # Of a Completion, which imports more than this module may.
    engine = getattr(broker.completion, "engine", None)
    if isinstance(engine, Engine):
        return engine
    raise _no_middleware(broker, "call broker.add_middleware(WorkflowMiddleware()).")


def _of_other(broker: dramatiq.Broker) -> Engine:
    for middleware in broker.middleware:
        if isinstance(middleware, EngineProvider):
            return middleware.engine_of(broker)
    raise _no_middleware(
        broker,
        "if Dramatiq created this broker by itself, call dramatiq.set_broker(broker) with a SidekiqBroker before the "
        "actors are declared. To run workflows on it, call "
        'broker.add_middleware(WorkflowMiddleware(url="redis://...")) with the url of Sidekiq\'s Redis.',
    )


def _no_middleware(broker: dramatiq.Broker, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"The {type(broker).__name__} has no WorkflowMiddleware: {remedy}", broker)
