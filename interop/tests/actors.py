"""The Python steps, which do what Ruby's do (ruby/jobs.rb, ruby/steps.rb) and record it alike."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from datetime import datetime
from typing import Any

import attrs
import dramatiq
import redis
from dramatiq.middleware import CurrentMessage

from dramatiq_sidekiq_flow import (
    Chain,
    Job,
    RedisCallbackStorage,
    RedisHashMemory,
    RubyJob,
    SidekiqBroker,
    WorkflowMiddleware,
    actor,
    current_run,
)
from dramatiq_sidekiq_flow.wire.run_end import is_end

EVENTS = "interop:events"

# What Python must know of Ruby's classes to advance onto them.
RubyJob("Rb::Step", queue="ruby")
RubyJob("Rb::Critical", queue="critical", retry=3, backtrace=True, tags=["etl"])
RubyJob("Rb::DeadAtOnce", queue="ruby", retry=0)
RubyJob("Rb::Typed", queue="ruby", retry=1)
RubyJob("Rb::Gate", queue="ruby")
RubyJob("Rb::Echo", queue="ruby")


class Recorder(dramatiq.Middleware):
    """One JSON line an execution, as ``Interop::Recorder`` writes it: when it ends, before its run advances."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.local = threading.local()

    def before_process_message(self, broker: Any, message: Any) -> None:
        self.local.start = time.time()

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        fields = message.payload.fields
        if is_end(fields.get("swf_step")):
            # It is not a step, and does nothing.
            return
        event = {
            "language": "python",
            "class": fields["class"],
            "jid": message.message_id,
            "args": fields["args"],
            "run_id": fields.get("workflow_run_id"),
            "queue": message.queue_name,
            "retry_count": fields.get("retry_count"),
            "pid": os.getpid(),
            "start": self.local.start,
            "outcome": "done" if exception is None else "failed",
        }
        if "wrapped" in fields:
            event["wrapped"] = fields["wrapped"]
        if exception is not None:
            event["error"] = f"{type(exception).__name__}: {exception}"
        event["end"] = time.time()
        self.client.rpush(EVENTS, json.dumps(event))


@attrs.frozen
class TypedInput:
    """Some of what there is; ``ratio`` as JSON and Ruby tell 1.0 from 1."""

    text: str
    ratio: float | None = None
    tags: dict[str, list[int]] = attrs.field(factory=dict)
    at: datetime | None = None


@attrs.frozen
class TypedOutput:
    """What ``Rb::Typed`` takes, and what was taken."""

    text: str
    times: int
    seen: TypedInput


def build(
    url: str,
    *,
    poll: int = 50,
    queues: tuple[str, ...] = (),
    heartbeat: int = 60_000,
    references: int | None = None,
) -> SidekiqBroker:
    """A broker with the actors of these tests.

    Parameters:
      poll: Milliseconds between two looks at schedule and retry.
      queues: To declare beside the actors'.
      heartbeat: Milliseconds of silence after which a worker is dead.
      references: Bytes from which chains are kept by reference; None: never.
    """
    client = redis.Redis.from_url(url)
    broker = SidekiqBroker(url=url, poll_interval=poll, heartbeat_timeout=heartbeat)
    storage = None if references is None else RedisCallbackStorage(min_bytes=references)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(), callback_storage=storage))
    broker.add_middleware(CurrentMessage())
    broker.add_middleware(Recorder(client))
    for queue in queues:
        broker.declare_queue(queue)

    def behave(*args: Any) -> Any:
        options = args[-1] if args and isinstance(args[-1], dict) else {}
        if "fail" in options:
            message: Any = CurrentMessage.get_current_message()
            key = f"{EVENTS}:tries:{message.message_id}"
            number = client.incr(key)
            client.expire(key, 3600)
            if number <= options["fail"]:
                raise RuntimeError(f"try {number} of {options['fail']} that fail")
        return options.get("return")

    def slow(options: dict[str, Any], name: str) -> Any:
        return behave(name, options)

    def declare(function: Any, name: str, **options: Any) -> None:
        dramatiq.actor(actor_name=name, queue_name="python", broker=broker, **options)(function)

    def gate(name: str) -> None:
        # In short waits: a client gives up on a socket that is silent for longer.
        if not any(client.blpop(name, 1) for _ in range(60)):
            raise RuntimeError(f"nobody opened {name}")

    def grow(name: str, tree: list[list[str]]) -> None:
        """A step that a chain of steps of both languages replaces."""
        python = broker.get_actor("docs.step without a Ruby name")
        steps = [Job("Rb::Step", one) if language == "ruby" else python.message(one) for language, one in tree]
        current_run().replace(Chain(*steps))

    def echo() -> dict[str, Any]:
        run = current_run()
        return {"echo": run.memory.read()}

    def typed(input: TypedInput) -> TypedOutput:
        return TypedOutput(input.text.upper(), 3, input)

    actor(actor_name="Py::Typed", queue_name="python", broker=broker, max_retries=3)(typed)
    declare(behave, "Py::Step", max_retries=3, min_backoff=1000, max_backoff=1500)
    declare(behave, "Py::DeadAtOnce", max_retries=0)
    declare(behave, "docs.step without a Ruby name", max_retries=3, min_backoff=1000, max_backoff=1500)
    # A failure of it waits for somebody to press a button.
    declare(slow, "Py::Slow", max_retries=3, min_backoff=3_600_000, max_backoff=3_600_000)
    declare(gate, "Py::Gate")
    declare(echo, "Py::Echo")
    declare(grow, "docs.grow")
    return broker


def is_constant(name: str) -> bool:
    """Whether Ruby can have a class of this name."""
    return re.fullmatch(r"[A-Z]\w*(::[A-Z]\w*)*", name, re.ASCII) is not None
