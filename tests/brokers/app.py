"""An application of RedisBroker or RabbitmqBroker, run by the real ``dramatiq`` command.

  BROKER_URL  redis:// or amqp://
KILL_AT    in_actor | before_count | after_count | after_enqueue | after_mark | after_ack
KILL_STEP  the step in which, once, the process dies by SIGKILL
"""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from dramatiq_sidekiq_flow import RedisHashMemory, WorkflowMiddleware, current_run
from dramatiq_sidekiq_flow.store import scripts
from dramatiq_sidekiq_flow.store.outcomes import Done, Fires, Operation

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
doing = threading.local()


def die(place: str) -> None:
    step = getattr(doing, "step", None)
    if (place, step) == (os.environ.get("KILL_AT"), os.environ.get("KILL_STEP")) and client.set(
        "killed", place, nx=True
    ):
        os.kill(os.getpid(), signal.SIGKILL)


class Places(dramatiq.Middleware):
    """Added after WorkflowMiddleware: hears of what was enqueued, and of the acknowledgement."""

    def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
        die("after_enqueue")

    def before_ack(self, broker: Any, message: Any) -> None:
        die("after_mark")

    def after_ack(self, broker: Any, message: Any) -> None:
        die("after_ack")
        doing.step = None


broker: dramatiq.Broker
if os.environ["BROKER_URL"].startswith("amqp"):
    broker = RabbitmqBroker(url=os.environ["BROKER_URL"], confirm_delivery=True)
else:
    broker = RedisBroker(url=os.environ["BROKER_URL"], heartbeat_timeout=1000, maintenance_chance=1_000_000)
middleware = WorkflowMiddleware(memory=RedisHashMemory(), url=URL, bridge=os.environ.get("BRIDGE", "yes") == "yes")
broker.add_middleware(middleware)
broker.add_middleware(Places())
dramatiq.set_broker(broker)

commit = middleware.engine_of(broker).broker.process.commit
run = commit.run


def run_and_die(operation: Operation[Any]) -> Any:
    counts = operation.command[1] == scripts.COUNT.sha
    if counts:
        die("before_count")
    outcome = run(operation)
    # The last of a group is first told to send its plan: nothing is written by then.
    if counts and isinstance(outcome, (Done, Fires)):
        die("after_count")
    return outcome


commit.run = run_and_die  # type: ignore[method-assign]


@dramatiq.actor(queue_name="python")
def step(name: str) -> dict[str, int]:
    here = current_run()
    doing.step = name
    for what in ("start", "end"):
        client.rpush("events", json.dumps({"what": what, "step": name, "jid": here.jid, "run": here.run_id}))
        die("in_actor")
    return {name: os.getpid()}
