"""The application of the acceptance tests: run by the real ``dramatiq`` command.

It records each start and end in the Redis list ``events``, and can be told to
die by SIGKILL, once, at a precise place:

  KILL_AT    in_actor | before_ack | before_advance | after_advance | before_death | after_death
  KILL_STEP  the step in which
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any

import dramatiq
import redis

from dramatiq_sidekiq_flow import RedisHashMemory, SidekiqBroker, WorkflowMiddleware, current_run
from dramatiq_sidekiq_flow.store import scripts
from dramatiq_sidekiq_flow.store.outcomes import Done, Kept, Operation
from dramatiq_sidekiq_flow.store.run_signals import Parked

URL = os.environ["REDIS_URL"]
KILL_AT = os.environ.get("KILL_AT")
KILL_STEP = os.environ.get("KILL_STEP")

client = redis.Redis.from_url(URL)
doing = threading.local()


def die(place: str, step: object) -> None:
    if place == KILL_AT and str(step) == KILL_STEP and client.set("killed", place, nx=True):
        os.kill(os.getpid(), signal.SIGKILL)


class Executioner(dramatiq.Middleware):
    def before_ack(self, broker: Any, message: Any) -> None:
        doing.step = message.args[0] if message.args else None
        die("before_ack", doing.step)

    def before_nack(self, broker: Any, message: Any) -> None:
        doing.step = message.args[0] if message.args else None


broker = SidekiqBroker(url=URL, heartbeat_timeout=int(os.environ.get("HEARTBEAT", "1000")), poll_interval=50)
broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
broker.add_middleware(Executioner())
dramatiq.set_broker(broker)

#: The scripts that end a step.
ADVANCES = {script.sha for script in (scripts.ADVANCE, scripts.REPLACE, scripts.WAIT)}

run = broker.process.commit.run


def run_and_die(operation: Operation[Any]) -> Any:
    """The group commit, with an end before or after the advance."""
    advances = operation.command[1] in ADVANCES
    if advances:
        die("before_advance", getattr(doing, "step", None))
    buries = operation.command[1] == scripts.FAIL.sha
    if buries:
        die("before_death", getattr(doing, "step", None))
    outcome = run(operation)
    if buries:
        die("after_death", getattr(doing, "step", None))
    # The last of a group is first told to send its plan: nothing is written by then.
    if advances and isinstance(outcome, (Done, Kept, Parked)):
        die("after_advance", getattr(doing, "step", None))
    return outcome


broker.process.commit.run = run_and_die  # type: ignore[method-assign]


def record(what: str, step: Any) -> None:
    here = current_run()
    event = {"what": what, "step": step, "run": here.run_id, "jid": here.jid, "pid": os.getpid(), "at": time.time()}
    client.rpush("events", json.dumps(event))


@dramatiq.actor(queue_name="python")
def step(name: Any, seconds: float = 0.0, dies: bool = False) -> dict[str, Any]:
    record("start", name)
    die("in_actor", name)
    time.sleep(seconds)
    record("end", name)
    if dies:
        raise RuntimeError("as it was told")
    return {str(name): os.getpid()}


@dramatiq.actor(queue_name="python")
def grow(name: Any, tree: list[Any]) -> dict[str, Any]:
    """A step that a group replaces: of steps, and of others that a group replaces."""
    record("start", name)
    die("in_actor", name)
    current_run().add(*(step.message(one) if isinstance(one, str) else grow.message(*one) for one in tree))
    record("end", name)
    return {str(name): os.getpid()}
