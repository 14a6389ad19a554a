"""One suite for each kind of broker: ``DSF_TEST_BROKERS="stub redis rabbitmq"``, the first two unless given."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import dramatiq.worker
import pytest
import redis
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker

from dramatiq_sidekiq_flow import RedisHashMemory, WorkflowMiddleware

from ..redis_values import raws
from .rabbitmq import rabbitmq
from .ruby import FakeRuby

KINDS = os.environ.get("DSF_TEST_BROKERS", "stub redis").split()


class App:
    """An application on one kind of broker: its actors, its log, its workers."""

    def __init__(self, broker: dramatiq.Broker, url: str, max_retries: int = 5, **options: Any) -> None:
        self.broker = broker
        self.url = url
        self.client = redis.Redis.from_url(url)
        self.log: list[Any] = []
        self.middleware = WorkflowMiddleware(memory=RedisHashMemory(), url=url, **options)
        broker.add_middleware(self.middleware)
        self.trouble: dict[str, int] = {}
        self.lock = threading.Lock()

        retries: dict[str, Any] = (
            {} if "max_retries" not in broker.actor_options else {"max_retries": max_retries, "min_backoff": 10}
        )

        @dramatiq.actor(queue_name="python", broker=broker, **retries)
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
        return [json.loads(member) for member in raws(self.client.zrange("dead", 0, -1))]

    def retry_dead(self) -> None:
        """What a person does in Sidekiq's UI: retry all that is dead (``api.rb``, ``SortedEntry#retry``)."""
        for member in raws(self.client.zrange("dead", 0, -1)):
            job = json.loads(member)
            job["retry_count"] -= 1
            self.client.zrem("dead", member)
            self.client.lpush(f"queue:{job['queue']}", json.dumps(job))

    def close(self) -> None:
        self.middleware.close()
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


def make_broker(kind: str, request: pytest.FixtureRequest, url: str, **options: Any) -> dramatiq.Broker:
    """An empty broker."""
    if kind == "stub":
        return StubBroker(fail_fast_default=False, **options)
    if kind == "redis":
        return RedisBroker(url=url, **options)
    broker = RabbitmqBroker(url=request.getfixturevalue("rabbitmq_url"), confirm_delivery=True, **options)
    broker.declare_queue("python", ensure=True)
    broker.flush("python")
    return broker


Make = Callable[..., App]


@pytest.fixture
def make(kind: str, request: pytest.FixtureRequest, redis_url: str) -> Iterator[Make]:
    """Makes applications: ``sidekiq_url``, ``middleware`` of the broker, and App's options."""
    with contextlib.ExitStack() as stack:

        def make(sidekiq_url: str = redis_url, middleware: list[Any] | None = None, **options: Any) -> App:
            app = App(make_broker(kind, request, redis_url, middleware=middleware), sidekiq_url, **options)
            stack.callback(app.close)
            return app

        yield make


@pytest.fixture
def app(make: Make) -> App:
    return make()
