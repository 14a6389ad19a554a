"""SidekiqBroker of a process whose actors are on another broker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dramatiq

from ..broker.broker import SidekiqBroker
from ..broker.message import actor_options
from ..broker.noop_actor import noop_actor
from ..broker.unknown_actor import unknown_actor
from ..store.connection import RedisClient
from ..store.replication import Replication
from ..wire.dialect import NOOP_CLASSES


class ForeignSidekiqBroker(SidekiqBroker):
    """SidekiqBroker with the actors and queues of another broker.

    No Dramatiq worker runs on it.  It pushes steps to Sidekiq's queues, and the
    bridge fetches jobs from them.

    Parameters:
      local: The broker that the actors are declared on.
      url, client, replication: For Sidekiq's Redis, as for SidekiqBroker.
    """

    def __init__(
        self,
        local: dramatiq.Broker,
        url: str | None = None,
        *,
        client: RedisClient | None = None,
        heartbeat_timeout: int = 60_000,
        poll_interval: int = 1_000,
        replication: Replication | None = None,
    ) -> None:
        self.local = local
        super().__init__(
            url,
            client=client,
            middleware=[],
            heartbeat_timeout=heartbeat_timeout,
            poll_interval=poll_interval,
            replication=replication,
        )
        # The same mapping, so that it includes actors that are declared later.
        self.actors = self.process.actors = local.actors
        for name in NOOP_CLASSES - local.actors.keys():
            # Runs the job of a delayed empty chain or group. Not declared, since
            # declaring an actor declares its queue, which workers then consume.
            local.actors[name] = noop_actor(local, name)

    def declare_queue(self, queue_name: str) -> None:
        """Do nothing: queues are declared on the other broker."""

    def get_declared_queues(self) -> set[str]:
        """List the names of the other broker's queues, without its delay queues."""
        return {name for name in self.local.get_declared_queues() if name not in self.local.get_declared_delay_queues()}

    def get_actor(self, actor_name: str) -> dramatiq.Actor[Any, Any]:
        """Look up an actor of the other broker.

        Raises:
          ActorNotFound: if it has no such actor.
        """
        actor = self.actors.get(actor_name)
        if actor is None:
            raise unknown_actor(actor_name, self.actors)
        return actor

    def options_of(self, actor_name: str) -> Mapping[str, Any] | None:
        """Get the job options of an actor of the other broker; None if it has no such actor."""
        options = self._options.get(actor_name)
        if options is None:
            actor = self.actors.get(actor_name)
            if actor is None or actor_name in NOOP_CLASSES:
                return None
            options = self._options[actor_name] = actor_options(actor)
        return options
