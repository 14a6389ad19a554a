"""An application with QUEUES queues, an actor on each, and few connections."""

from __future__ import annotations

import os
from typing import Any

import dramatiq
import redis

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware

options: dict[str, Any] = {"max_connections": int(os.environ["CONNECTIONS"])} if "CONNECTIONS" in os.environ else {}
broker = SidekiqBroker(url=os.environ["REDIS_URL"], client_name="worker", **options)
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)
client = redis.Redis.from_url(os.environ["REDIS_URL"])


def declare(number: int) -> Any:
    @dramatiq.actor(queue_name=f"queue{number}", actor_name=f"actor{number}")
    def note() -> None:
        client.rpush("ran", number)

    return note


for number in range(int(os.environ["QUEUES"])):
    declare(number)
