"""Actors of the demo; `demo.py` runs them with the real `dramatiq` command."""

from __future__ import annotations

import json
import os
import time

import dramatiq
import redis

from dramatiq_sidekiq_flow import RedisHashMemory, SidekiqBroker, WorkflowMiddleware, current_run

URL = os.environ["REDIS_URL"]

# A worker without a heartbeat for 1.5 seconds is dead. This is short, for the demo.
broker = SidekiqBroker(url=URL, heartbeat_timeout=1_500)
broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
dramatiq.set_broker(broker)

observer = redis.Redis.from_url(URL)


def observe(what: str, task: str, **more: object) -> None:
    """Report an event to the demo, outside the workflow."""
    run = current_run()
    event = {"what": what, "task": task, "jid": run.jid, "worker": os.environ["WORKER"], "at": time.time(), **more}
    observer.rpush("demo:events", json.dumps({**event, "memory": run.memory.read()}))


def work(task: str, seconds: float) -> dict[str, str]:
    observe("start", task)
    time.sleep(seconds)
    returned = {task: f"done by {os.environ['WORKER']}"}
    observe("end", task, returns=returned)
    return returned  # a returned mapping is saved in the run's memory


@dramatiq.actor(queue_name="demo")
def task1() -> dict[str, str]:
    return work("task1", 0.4)


@dramatiq.actor(queue_name="demo")
def task2() -> dict[str, str]:
    return work("task2", 0.9)


@dramatiq.actor(queue_name="demo")
def task3() -> dict[str, str]:
    return work("task3", 1.4)


@dramatiq.actor(queue_name="demo")
def task4() -> dict[str, str]:
    return work("task4", 0.4)
