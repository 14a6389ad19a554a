"""The application of the tests with access rules: every feature has an actor.  What runs is written to a file."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import attrs
import dramatiq

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    Prometheus,
    RedisCallbackStorage,
    RedisHashMemory,
    RubyJob,
    SidekiqBroker,
    WorkflowMiddleware,
    actor,
    cancelled,
    current_run,
    extend_ttl,
    template,
)
from dramatiq_sidekiq_flow.broker.standing import STANDING
from dramatiq_sidekiq_flow.process import upkeep

broker = SidekiqBroker(url=os.environ["REDIS_URL"], heartbeat_timeout=1_000, poll_interval=50, metrics="both")
memory = None if "FORGETFUL" in os.environ else RedisHashMemory()
broker.add_middleware(WorkflowMiddleware(memory=memory, callback_storage=RedisCallbackStorage(min_bytes=200)))
if "METRICS" in os.environ:
    broker.add_middleware(Prometheus(host="127.0.0.1", port=int(os.environ["METRICS"])))
dramatiq.set_broker(broker)

# The keeper need not wait.
upkeep.BETWEEN = upkeep.IDLE = 0.3

FOLDER = os.environ["RECORD"]

#: Of Ruby: its options are asked of the registry.
THUMBNAIL = RubyJob("Images::Thumbnail", queue="ruby")


def note(text: str) -> None:
    record = os.open(f"{FOLDER}/ran", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(record, f"{text}\n".encode())
    os.close(record)


def once(name: str) -> bool:
    """True the first time, for all processes."""
    try:
        os.close(os.open(f"{FOLDER}/{name}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


@dramatiq.actor(queue_name="python")
def step(name: str) -> dict[str, Any]:
    note(name)
    return {name: name}


@dramatiq.actor(queue_name="python", max_retries=0)
def dies_once(name: str) -> None:
    if once(name):
        raise ValueError(name)


@dramatiq.actor(queue_name="python")
def told(name: str, run: Any = None) -> None:
    note(name)


@dramatiq.actor(queue_name="python")
def quick() -> None: ...


@dramatiq.actor(queue_name="forgetful")
def forgets(name: str) -> None:
    note(name)


for number in range(STANDING):

    @dramatiq.actor(actor_name=f"idle{number}", queue_name=f"idle{number}")
    def idle() -> None: ...


@dramatiq.actor(queue_name="python", max_retries=3)
def fails_once(name: str) -> None:
    note(name)
    if once(f"failed-{name}"):
        raise dramatiq.errors.Retry("once", delay=10)


@dramatiq.actor(queue_name="python", max_retries=0)
def fails(name: str) -> None:
    note(name)
    raise ValueError(name)


@dramatiq.actor(queue_name="python")
def remembers(name: str) -> None:
    memory = current_run().memory
    memory.write({"seen": 1})
    extend_ttl(86_400_000)
    note(f"{name}-{memory.read('doc')['doc']}")
    if name == "clears":
        memory.clear()


@dramatiq.actor(queue_name="python")
def sends(name: str) -> None:
    step.send(f"{name}-now")
    step.send_with_options(args=(f"{name}-later",), delay=10)


@dramatiq.actor(queue_name="python")
def dies(name: str) -> None:
    """Its process ends by SIGKILL, once."""
    note(name)
    if once(f"killed-{name}"):
        os.kill(os.getpid(), signal.SIGKILL)


@dramatiq.actor(queue_name="python", cancellable=True)
def waits(name: str) -> None:
    note(f"{name}-begun")
    while not cancelled(interval=0):
        time.sleep(0.02)
    note(f"{name}-cancelled")


@attrs.frozen
class Params:
    doc: str


@actor(queue_name="python")
def typed(params: Params) -> None:
    note(f"typed-{params.doc}")


@template("documented")
def documented(params: Params) -> Any:
    sides = Group(step.message(f"{params.doc}-left"), step.message(f"{params.doc}-right"))
    return Chain(typed.message(), sides, remembers.message("remembers"), remembers.message("clears"))
