"""The application whose metrics are scraped: run by the real ``dramatiq`` command."""

from __future__ import annotations

import os
import time

import dramatiq

# As an application may: before the middleware has set up several processes.
import prometheus_client
import redis

from dramatiq_sidekiq_flow import JobLogging, OpenTelemetry, Prometheus, SidekiqBroker, WorkflowMiddleware

assert prometheus_client.values.ValueClass is prometheus_client.values.MutexValue

client = redis.Redis.from_url(os.environ["REDIS_URL"])
broker = SidekiqBroker(url=os.environ["REDIS_URL"], heartbeat_timeout=1_000)
for middleware in (WorkflowMiddleware(), OpenTelemetry(), Prometheus(host="127.0.0.1", port=0), JobLogging()):
    broker.add_middleware(middleware)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="python")
def meet() -> None:
    """Ends when each of two processes is in it."""
    client.sadd("met", os.getpid())
    deadline = time.monotonic() + 60
    while client.scard("met") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@dramatiq.actor(queue_name="python")
def step(number: int) -> None:
    client.sadd("steps", os.getpid())


@dramatiq.actor(queue_name="python")
def hold() -> None:
    client.set("held", os.getpid())
    while not client.exists("release"):
        time.sleep(0.01)
