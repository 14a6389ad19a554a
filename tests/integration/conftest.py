from __future__ import annotations

from collections.abc import Iterator

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import RedisHashMemory, SidekiqBroker, WorkflowMiddleware
from dramatiq_sidekiq_flow.store.connection import Connection


@pytest.fixture
def broker(redis_url: str) -> Iterator[SidekiqBroker]:
    """A broker with workflows and memory, the global one for the test."""
    broker = SidekiqBroker(url=redis_url, poll_interval=50)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
    dramatiq.set_broker(broker)
    yield broker
    # Also where a test registered it by hand: its beats would turn up in other tests.
    broker.process.heartbeat.stop()
    broker.close()


@pytest.fixture
def connection(client: redis.Redis) -> Iterator[Connection]:
    """The way to the server of ``client``, for calls of the store alone."""
    connection = Connection(client)
    yield connection
    connection.close()
