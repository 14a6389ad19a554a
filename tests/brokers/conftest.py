"""One suite for each kind of broker: ``DSF_TEST_BROKERS="stub redis rabbitmq"``, the first two unless given."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from typing import Any

import dramatiq
import dramatiq.worker
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker

from dramatiq_sidekiq_flow import RedisHashMemory, WorkflowMiddleware


from .rabbitmq import rabbitmq
from .ruby import FakeRuby

KINDS = os.environ.get("DSF_TEST_BROKERS", "stub redis").split()


class App:
    """An application on one kind of broker: its actors, its log, its workers."""

    def __init__(self, broker: dramatiq.Broker, url: str, **options: Any) -> None:
        self.broker = broker
        self.url = url
        self.client = redis.Redis.from_url(url)
        self.log: list[Any] = []
        self.middleware = WorkflowMiddleware(memory=RedisHashMemory(), url=url, **options)
        broker.add_middleware(self.middleware)
        self.trouble: dict[str, int] = {}
        self.lock = threading.Lock()

        @dramatiq.actor(queue_name="python", broker=broker, min_backoff=10, max_backoff=20)
        def step(name: Any) -> dict[str, Any]:
            with self.lock:
                self.log.append(name)
                left = self.trouble.get(name, 0)
                self.trouble[name] = left - 1
            if left > 0:
                raise RuntimeError(f"trouble in {name}")
            return {str(name): len(self.log)}

        self.step = step

    @contextlib.contextmanager
    def working(self, threads: int = 4) -> Iterator[dramatiq.Worker]:
        worker = dramatiq.Worker(self.broker, worker_threads=threads, worker_timeout=50)
        worker.start()
        try:
            yield worker
        finally:
            worker.stop()

    def ruby(self, *queues: str) -> FakeRuby:
        return FakeRuby(self.url, self.log, *(queues or ("ruby",)), classes={"step": {"queue": "python"}})

    def settled(self) -> bool:
        """Whether nothing is left of any run but what was released: all that waits has come."""
        return all(self.client.get(key) == b"0" for key in self.client.keys("*_ran")) and not any(
            self.client.get(key) for key in self.client.keys("*:f")
        )

    def dead(self) -> list[dict[str, Any]]:
        import json

        return [json.loads(member) for member in self.client.zrange("dead", 0, -1)]

    def close(self) -> None:
        if self.middleware._relay is not None:
            self.middleware._relay.broker.close()
        self.broker.close()
        self.client.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dramatiq.worker, "POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.1)
    monkeypatch.setattr(dramatiq.worker, "CONSUMER_RESTART_DELAY_SECS", 0.1)


@pytest.fixture(scope="session")
def rabbitmq_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as url:
        yield url


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make_broker(kind: str, request: pytest.FixtureRequest, url: str) -> dramatiq.Broker:
    """An empty broker."""
    if kind == "stub":
        return StubBroker(fail_fast_default=False)
    if kind == "redis":
        return RedisBroker(url=url)
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    broker = RabbitmqBroker(url=request.getfixturevalue("rabbitmq_url"), confirm_delivery=True)
    broker.declare_queue("python", ensure=True)
    broker.flush("python")
    return broker


@pytest.fixture
def app(kind: str, request: pytest.FixtureRequest, redis_url: str) -> Iterator[App]:
    app = App(make_broker(kind, request, redis_url), redis_url)
    yield app
    app.close()



