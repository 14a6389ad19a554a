"""Middleware that needs to know which broker it serves before a worker starts."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import dramatiq


@runtime_checkable
class BrokerAware(Protocol):
    """A middleware that is told which broker it serves.

    ``SidekiqBroker.add_middleware`` calls :meth:`attach` at once; Dramatiq's own
    hooks name the broker only when something happens.
    """

    def attach(self, broker: dramatiq.Broker) -> None:
        """Serve a broker, which this middleware was just added to.

        Raises:
          ConfigurationError: if it cannot serve this one.
        """
