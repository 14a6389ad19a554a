"""Kill -9 of a RedisBroker's worker between actor, count, enqueue and acknowledgement: nothing is lost."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker

from dramatiq_sidekiq_flow import Chain, Group, Workflow, WorkflowMiddleware

from ..acceptance.processes import workers
from ..running import eventually
from ..trees import violations


@pytest.mark.parametrize("step_killed", ["a", "b"])
@pytest.mark.parametrize(
    "place", ["in_actor", "before_count", "after_count", "after_enqueue", "after_mark", "after_ack"]
)
def test_killed_at(redis_url: str, client: redis.Redis, tmp_path: Path, place: str, step_killed: str) -> None:
    """Once in a chain step, once in a group's child (which may enqueue nothing: any child may be the last)."""
    broker = RedisBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(url=redis_url))

    @dramatiq.actor(queue_name="python", broker=broker)
    def step(name: str) -> None: ...

    def events() -> list[dict[str, Any]]:
        return [json.loads(raw) for raw in client.lrange("events", 0, -1)]

    m = step.message
    with workers(redis_url, tmp_path / "log", 2, "tests.brokers.app", KILL_AT=place, KILL_STEP=step_killed):
        # A group of one: its child is the last.
        tree = Chain(m("a"), Group(m("b")), Group(m("c"), m("d")), m("e"), m("f"))
        Workflow(tree, broker=broker).run()
        eventually(lambda: any(e["step"] == "f" for e in events()), seconds=60, what="the end of the workflow")
        # And the messages that were left in the dead one's hands came back, or had been acknowledged.
        eventually(lambda: not client.hlen("dramatiq:python.msgs"), seconds=60, what="an empty queue")
    assert client.get("killed") == place.encode()
    jids = defaultdict(set)
    for event in events():
        jids[event["step"]].add(event["jid"])
    assert {name: len(found) for name, found in jids.items()} == dict.fromkeys("abcdef", 1)
    order = [(e["what"], "abcdef".index(e["step"])) for e in events()]
    shape = ("chain", ["job", ("group", ["job"]), ("group", ["job"] * 2), "job", "job"])
    assert list(violations(shape, 6, order)) == []
    starts = [e["step"] for e in events() if e["what"] == "start"]
    # Before it was acknowledged, the message comes back.
    assert starts.count(step_killed) >= (1 if place == "after_ack" else 2)
    assert not client.exists("dead", "retry")
    assert all(client.get(key) == b"0" for key in client.keys("*_ran"))
