"""Kill -9 of workers that bury a step, and of the keeper: each callback is pushed once."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq
import redis

from dramatiq_sidekiq_flow import Chain, SidekiqBroker, WithDelay, Workflow, WorkflowMiddleware

from ..running import eventually, in_flight
from .processes import workers

PLACES = {"before_bury", "after_bury", "after_mark", "before_call", "after_call"}


def test_callbacks_are_called_once(redis_url: str, client: redis.Redis, tmp_path: Path) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware())

    def message(name: str, *args: Any) -> Any:
        return dramatiq.Message(queue_name="python", actor_name=name, args=args, kwargs={}, options={"retry": 0})

    def calls() -> dict[str, Any]:
        return {f"on_{name}": message("told", name) for name in ("failure", "complete")}

    expected: list[list[str]] = []
    for _ in range(3):
        tree = Chain(message("step"), message("fails"), message("step"))
        run_id = Workflow(tree, broker, **calls()).run()
        expected += [["complete", run_id, "failed"], ["failure", run_id, "failed"]]
    waits = Chain(message("step"), WithDelay(message("step"), timedelta(hours=1)))
    late = Workflow(waits, broker, deadline=10, **calls()).run()
    expected.append(["complete", late, "cancelled"])

    def told() -> list[list[str]]:
        return sorted(json.loads(raw)[:3] for raw in client.smembers("told"))

    app = {"module": "tests.acceptance.calls_app", "KILL_AT": ",".join(PLACES)}
    # One more than die.
    with workers(redis_url, tmp_path / "log", count=len(PLACES) + 1, **app):

        def settled() -> bool:
            at_rest = not (client.llen("queue:python") or client.zcard("swf:resting") or in_flight(client))
            return at_rest and client.scard("killed") == len(PLACES) and len(told()) >= len(expected)

        # A look that comes while a job is on its way waits for 15 seconds.
        eventually(settled, seconds=150, what="all callbacks")
        eventually(lambda: not client.exists("schedule", "swf:deadlines"), what="the end of the cancellation")
    assert told() == sorted(expected)
    assert client.zcard("dead") == 3
    broker.close()
