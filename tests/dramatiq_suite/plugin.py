"""The fixtures of Dramatiq's tests: each of its brokers is a SidekiqBroker, each worker a Worker on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import dramatiq
import dramatiq.rate_limits.backends
import dramatiq.results.backends
import pytest
import redis
from dramatiq.brokers.stub import _StubMessageProxy

from dramatiq_sidekiq_flow import SidekiqBroker
from dramatiq_sidekiq_flow.embedded import EmbeddedServer

#: Seconds for a test that is listed: some would wait for what never happens.
LISTED_TIMEOUT = 10


class StubLikeBroker(SidekiqBroker):
    """A SidekiqBroker with the join of a StubBroker, which raises what jobs failed with for good."""

    def __init__(self, **options: Any) -> None:
        self.failures = Failures()
        super().__init__(**options)
        self.add_middleware(self.failures)

    def join(self, queue_name: str, *, fail_fast: bool = True, **options: Any) -> None:
        super().join(queue_name, **options)
        if fail_fast and queue_name in self.failures.by_queue:
            raise self.failures.by_queue.pop(queue_name) from None


class Failures(dramatiq.Middleware):
    """Remembers the first exception that each queue's jobs failed with for good."""

    def __init__(self) -> None:
        self.by_queue: dict[str, BaseException] = {}

    def before_nack(self, broker: Any, message: Any) -> None:
        # Their test of leaks undoes StubBroker's keeping of exceptions.
        if _StubMessageProxy.clear_exception is dramatiq.MessageProxy.clear_exception:
            return
        if message.exception is not None:
            self.by_queue.setdefault(message.queue_name, message.exception)


class RabbitBroker(SidekiqBroker):
    """A SidekiqBroker with the parameters of a RabbitmqBroker's join, which has to look more than once."""

    def join(self, queue_name: str, min_successes: int = 1, idle_time: int = 0, **options: Any) -> None:
        super().join(queue_name, **options)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    listed = os.environ.get("DRAMATIQ_SUITE_LISTED", "").split()
    for item in items:
        if item.nodeid in listed:
            item.add_marker(pytest.mark.timeout(LISTED_TIMEOUT))


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        yield client


def _broker(broker: Any) -> Iterator[Any]:
    broker.emit_after("process_boot")
    dramatiq.set_broker(broker)
    yield broker
    broker.emit_before("process_stop")
    broker.close()
    # Some tests take whatever broker there is, and another's actors would be in their way.
    dramatiq.broker.global_broker = None


@pytest.fixture
def stub_broker(client: redis.Redis, server: EmbeddedServer) -> Iterator[StubLikeBroker]:
    yield from _broker(StubLikeBroker(url=server.url))


@pytest.fixture
def redis_broker(client: redis.Redis, server: EmbeddedServer) -> Iterator[SidekiqBroker]:
    yield from _broker(SidekiqBroker(url=server.url))


@pytest.fixture
def rabbitmq_broker(client: redis.Redis, server: EmbeddedServer) -> Iterator[RabbitBroker]:
    yield from _broker(RabbitBroker(url=server.url))


def _worker(broker: Any, **options: Any) -> Iterator[dramatiq.Worker]:
    worker = dramatiq.Worker(broker, worker_threads=32, **options)
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture
def stub_worker(stub_broker: StubLikeBroker) -> Iterator[dramatiq.Worker]:
    yield from _worker(stub_broker, worker_timeout=100)


@pytest.fixture
def redis_worker(redis_broker: SidekiqBroker) -> Iterator[dramatiq.Worker]:
    yield from _worker(redis_broker)


@pytest.fixture
def rabbitmq_worker(rabbitmq_broker: SidekiqBroker) -> Iterator[dramatiq.Worker]:
    yield from _worker(rabbitmq_broker)


@pytest.fixture
def redis_result_backend(client: redis.Redis) -> Any:
    return dramatiq.results.backends.RedisBackend(client=client)


@pytest.fixture(params=["redis", "stub"])
def result_backend(request: pytest.FixtureRequest, client: redis.Redis) -> Any:
    if request.param == "redis":
        return dramatiq.results.backends.RedisBackend(client=client)
    return dramatiq.results.backends.StubBackend()


@pytest.fixture(params=["redis", "stub"])
def rate_limiter_backend(request: pytest.FixtureRequest, client: redis.Redis) -> Any:
    if request.param == "redis":
        return dramatiq.rate_limits.backends.RedisBackend(client=client)
    return dramatiq.rate_limits.backends.StubBackend()
