"""Kill -9 of a worker between actor, count, enqueue and acknowledgement: nothing is lost."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Group, Workflow, WorkflowMiddleware

from ..acceptance.processes import workers
from ..running import eventually
from ..trees import violations
from .conftest import KINDS, make_broker


@pytest.mark.parametrize("step_killed", ["a", "b"])
@pytest.mark.parametrize(
    "place", ["in_actor", "before_count", "after_count", "after_enqueue", "after_mark", "after_ack"]
)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "stub"], indirect=True)
def test_killed_at(
    kind: str,
    request: pytest.FixtureRequest,
    redis_url: str,
    client: redis.Redis,
    tmp_path: Path,
    place: str,
    step_killed: str,
) -> None:
    """Once in a chain step, once in a group's child (which may enqueue nothing: any child may be the last)."""
    broker = make_broker(kind, request, redis_url)
    broker.add_middleware(WorkflowMiddleware(url=redis_url))

    @dramatiq.actor(queue_name="python", broker=broker)
    def step(name: str) -> None: ...

    def events() -> list[dict[str, Any]]:
        return [json.loads(raw) for raw in client.lrange("events", 0, -1)]

    m = step.message
    broker_url = redis_url if kind == "redis" else request.getfixturevalue("rabbitmq_url")
    # Before it was acknowledged, the message comes back.
    expected = 1 if place == "after_ack" else 2

    def starts() -> int:
        return len([e for e in events() if (e["what"], e["step"]) == ("start", step_killed)])

    environment = {"BROKER_URL": broker_url, "KILL_AT": place, "KILL_STEP": step_killed}
    with workers(redis_url, tmp_path / "log", 2, "tests.brokers.app", **environment):
        # A group of one: its child is the last.
        tree = Chain(m("a"), Group(m("b")), Group(m("c"), m("d")), m("e"), m("f"))
        Workflow(tree, broker=broker).run()
        eventually(
            lambda: any((e["what"], e["step"]) == ("end", "f") for e in events()),
            seconds=60,
            what="the end of the workflow",
        )
        # And the message that was left in the dead one's hands comes back.
        eventually(lambda: starts() >= expected, seconds=60, what=f"{step_killed} again")
        if kind == "redis":
            eventually(lambda: not client.hlen("dramatiq:python.msgs"), seconds=60, what="an empty queue")
        # What follows may end before the acknowledgement of the step itself returns.
        eventually(lambda: client.get("killed") == place.encode(), seconds=60, what="the kill")
    jids = defaultdict(set)
    for event in events():
        jids[event["step"]].add(event["jid"])
    assert {name: len(found) for name, found in jids.items()} == dict.fromkeys("abcdef", 1)
    order = [(e["what"], "abcdef".index(e["step"])) for e in events()]
    shape = ("chain", ["job", ("group", ["job"]), ("group", ["job"] * 2), "job", "job"])
    assert list(violations(shape, 6, order)) == []
    assert not client.exists("dead", "retry")
    assert all(client.get(key) == b"0" for key in client.keys("*_ran"))


def test_a_bridge_of_its_own(redis_url: str, client: redis.Redis, tmp_path: Path) -> None:
    """``python -m dramatiq_sidekiq_flow bridge``: the workers have none; stopped gently, it leaves nothing."""
    with workers(redis_url, tmp_path / "log", 1, "tests.brokers.app", BROKER_URL=redis_url, BRIDGE="no") as at_work:
        job = {"class": "step", "jid": "j1", "queue": "python", "retry": True, "workflow_run_id": "r"}
        client.lpush("queue:python", json.dumps({**job, "args": ["x"]}))
        at_work.command = [sys.executable, "-m", "dramatiq_sidekiq_flow", "bridge", "tests.brokers.app:broker"]
        at_work.start()
        eventually(lambda: client.llen("events") == 2)
        at_work.stop()
    assert [json.loads(raw)["step"] for raw in client.lrange("events", 0, -1)] == ["x", "x"]
    assert client.zcard("swf:workers") == 0
    assert not client.keys("swf:inflight:*")
