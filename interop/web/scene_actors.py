"""The Python actors that the Web UI is to show, and a record of what they did."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import dramatiq
import redis
from dramatiq.middleware import CurrentMessage

from dramatiq_sidekiq_flow import RedisHashMemory, SidekiqBroker, WorkflowMiddleware, current_run

#: Redis list: one JSON line for each execution.
EXECUTIONS = "scene:executions"

#: Redis set of what is broken: an actor given one of these as its first argument fails.
BROKEN = "scene:broken"

#: An actor name that no Ruby class can have: as a step, it travels in a carrier.
NO_CONSTANT = "docs.résumé in Python"

#: Milliseconds until a retry: longer than any test.
RETRY_IN = 7_200_000


class Recorder(dramatiq.Middleware):
    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        event = {
            "jid": message.message_id,
            "name": message.actor_name,
            "args": message.args,
            "run_id": message.payload.run_id,
            "failed": exception is not None,
            "pid": os.getpid(),
        }
        self.client.rpush(EXECUTIONS, json.dumps(event))


def build(url: str) -> SidekiqBroker:
    """A broker with the actors.  All are in the queue ``python`` but one, whose queue ``waiting`` nobody serves."""
    client = redis.Redis.from_url(url)
    broker = SidekiqBroker(url=url, heartbeat_timeout=15_000, poll_interval=200, tag="docs", labels=("python", "beta"))
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(), tag_runs=True))
    broker.add_middleware(CurrentMessage())
    broker.add_middleware(Recorder(client))

    def extract(what: Any, *more: Any) -> dict[str, Any]:
        if client.sismember(BROKEN, str(what)):
            raise ValueError(f"{what} is <b>unreadable</b>: naïve, сломано")
        time.sleep(0.01)  # a page of metrics is shown only for what took time
        return {"extracted": what}

    def hold(gate: str, *more: Any) -> None:
        # In short waits: a client gives up on a connection that is silent for long.
        for _ in range(300):
            if client.blpop([gate], 1) is not None:
                return
        raise TimeoutError(f"nobody opened {gate}")

    def finish(*args: Any) -> dict[str, Any]:
        run = current_run()
        return {"finished": run.memory.read("extracted")}

    def declare(function: Any, name: str, queue: str = "python", **options: Any) -> None:
        dramatiq.actor(actor_name=name, queue_name=queue, broker=broker, **options)(function)

    later: dict[str, Any] = {"min_backoff": RETRY_IN, "max_backoff": RETRY_IN}
    declare(extract, "Docs::Extract", max_retries=5, backtrace=True, **later)
    declare(extract, "Docs::Once", max_retries=0)
    declare(extract, NO_CONSTANT, max_retries=3, tags=["nlp"], **later)
    declare(extract, "Docs::Waiting", "waiting")
    declare(hold, "Docs::Hold")
    declare(finish, "Docs::Finish")
    return broker
