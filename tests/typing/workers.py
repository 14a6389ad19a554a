"""What runs in a worker: the current run, its memory, middleware, other parts of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import dramatiq
import redis
from typing_extensions import assert_type

from dramatiq_sidekiq_flow import (
    Barrier,
    CallbackStorage,
    InlineCallbackStorage,
    JobLogging,
    Memory,
    OpenTelemetry,
    Prometheus,
    RedisCallbackStorage,
    RedisHashMemory,
    Replication,
    SidekiqBroker,
    WorkflowMiddleware,
    cancelled,
    current_run,
    extend_ttl,
)
from dramatiq_sidekiq_flow.context import CurrentRun, RunMemory


# In an actor.
def act() -> None:
    run = current_run()
    assert_type(run, CurrentRun)
    assert_type(run.run_id, str)
    assert_type(run.jid, str)
    assert_type(run.depth, int)
    assert_type(run.memory, RunMemory)
    assert_type(run.memory.read(), dict[str, Any])
    assert_type(run.memory.read("text", "size"), dict[str, Any])
    assert_type(run.memory.within("left"), RunMemory)
    assert_type(run.context, Mapping[str, Any])
    run.memory.write({"text": "x"})
    run.memory.clear()
    assert_type(extend_ttl(), bool)
    assert_type(extend_ttl(60_000), bool)
    assert_type(extend_ttl(timedelta(days=60)), bool)
    assert_type(cancelled(), bool)
    assert_type(cancelled(interval=500), bool)


# Parts of one's own need no base class.
class OwnMemory:
    def write(self, run_id: str, values: Mapping[str, Any]) -> None: ...

    def read(self, run_id: str, keys: Iterable[str] | None = None) -> dict[str, Any]:
        return {}

    def clear(self, run_id: str) -> None: ...


class OwnBarriers:
    def create(self, barrier_id: str, parties: int, ttl: int) -> None: ...

    def wait(self, barrier_id: str, unit: str) -> bool:
        return True

    def extend(self, barrier_id: str, ttl: int) -> None: ...


class OwnStorage:
    def store(self, callbacks: list[list[Any]]) -> Any:
        return callbacks

    def retrieve(self, stored: Any) -> list[list[Any]]:
        return list(stored)


def take(memory: Memory, barriers: Barrier, storage: CallbackStorage) -> None: ...


take(OwnMemory(), OwnBarriers(), OwnStorage())
take(RedisHashMemory(), OwnBarriers(), RedisCallbackStorage())
take(RedisHashMemory(ttl=86_400_000), OwnBarriers(), InlineCallbackStorage())
take(RedisHashMemory(timedelta(days=1)), OwnBarriers(), RedisCallbackStorage(min_bytes=1000))

# The broker and its middleware.
broker = SidekiqBroker(
    client=redis.Redis(),
    heartbeat_timeout=60_000,
    queue_order={"critical": 3, "default": 1},
    labels=["python"],
    metrics="both",
    replication=Replication(1),
    socket_timeout=5,
)
SidekiqBroker("redis://localhost:6379/0", queue_order=["critical", "default"])
middleware = WorkflowMiddleware(
    OwnMemory(),
    classes={"Images::Thumbnail": {"queue": "ruby", "retry": 3}},
    barriers=OwnBarriers(),
    callback_storage=OwnStorage(),
    inherit=["shop_id"],
)
assert_type(middleware.memory, Memory | None)
broker.add_middleware(middleware)
broker.add_middleware(WorkflowMiddleware(url="redis://localhost:6379/0", bridge=["ruby"]))
broker.add_middleware(JobLogging(args=True))
broker.add_middleware(OpenTelemetry())
broker.add_middleware(Prometheus(host="127.0.0.1", port=9191, folder="/tmp/metrics"))
dramatiq.set_broker(broker)
