"""Middleware that needs to know which broker it serves before a worker starts."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import dramatiq


@runtime_checkable
class BrokerAware(Protocol):
    """A middleware with ``attach``, which ``SidekiqBroker.add_middleware`` calls at once.

    Dramatiq's hooks get the broker only when something happens.
    """

    def attach(self, broker: dramatiq.Broker) -> None:
        """Prepare for the broker that this middleware was added to.

        Raises:
          ConfigurationError: if it does not work with this broker.
        """
