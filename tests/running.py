"""What integration tests share: a broker with a worker, and waiting for conditions."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import redis

from dramatiq_sidekiq_flow import SidekiqBroker

from .redis_values import raws


def eventually(condition: Callable[..., Any], seconds: float = 20.0, what: str = "") -> Any:
    """Wait until a condition holds; its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.005)


@contextlib.contextmanager
def working(broker: SidekiqBroker, threads: int = 4, timeout: int = 100, **options: Any) -> Iterator[dramatiq.Worker]:
    """A worker in this process, for as long as the block."""
    worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=timeout, **options)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def members(client: redis.Redis, name: str) -> list[dict[str, Any]]:
    """The jobs of a queue or set."""
    if name in ("schedule", "retry", "dead"):
        raw = client.zrange(name, 0, -1)
    else:
        raw = client.lrange(f"queue:{name}", 0, -1)
    return [json.loads(member) for member in raws(raw)]


def in_flight(client: redis.Redis) -> list[bytes]:
    """All payloads in flight, of any worker."""
    return raws(payload for key in client.keys("swf:inflight:*") for payload in client.hvals(key))


def advance(broker: SidekiqBroker, count: int = 1) -> None:
    """Finish the next jobs of the queue ``python``, one after another, without running them."""
    consumer = broker.consume("python", prefetch=1, timeout=2000)
    for _ in range(count):
        message = next(consumer)
        assert message is not None
        consumer.ack(message)


def chains(client: redis.Redis) -> list[Any]:
    """The keys of all stored chains."""
    return sorted(client.keys("swf:callbacks:*"))
