"""An application with a job that kills its process each time, and one that runs until it is let go."""

from __future__ import annotations

import os
import signal
import time

import dramatiq
import redis

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware

URL = os.environ["REDIS_URL"]

client = redis.Redis.from_url(URL)
broker = SidekiqBroker(url=URL, heartbeat_timeout=1000, poll_interval=50)
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="python")
def pill() -> None:
    if not client.exists("cured"):
        client.incr("killed")
        os.kill(os.getpid(), signal.SIGKILL)


@dramatiq.actor(queue_name="python")
def good(n: int) -> None:
    time.sleep(0.05)
    client.sadd("done", n)


@dramatiq.actor(queue_name="python")
def long(n: int) -> None:
    client.rpush("begun", n)
    while not client.exists("open"):
        time.sleep(0.01)
    client.sadd("done", n)
