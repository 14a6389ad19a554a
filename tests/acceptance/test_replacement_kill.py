"""Kill -9 where a step is replaced, and where one begins to wait: no tree is lost, doubled or early."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Runs, SidekiqBroker, WaitFor, Workflow, WorkflowMiddleware

from ..running import eventually, in_flight
from .processes import registered, workers
from .test_kill import ended, events


@pytest.mark.parametrize("killed", ["inner", "go"])
@pytest.mark.parametrize("place", ["before_advance", "after_advance"])
def test_killed_at(redis_url: str, client: redis.Redis, tmp_path: Path, place: str, killed: str) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware())

    @dramatiq.actor(queue_name="python", broker=broker)
    def step(name: Any, seconds: float = 0.0) -> None: ...

    @dramatiq.actor(queue_name="python", broker=broker)
    def grow(name: Any, tree: list[Any]) -> None: ...

    runs = Runs(broker)
    with workers(redis_url, tmp_path / "log", KILL_AT=place, KILL_STEP=killed):
        registered(client, 2)
        tree = Chain(grow.message("outer", ["a", ["inner", ["b", "c"]]]), WaitFor("go"), step.message("last"))
        run_id = Workflow(tree, broker=broker).run()
        eventually(lambda: runs.get(run_id).steps[1].state == "signal", what="the step that waits")
        assert not ended(client, run_id, "last")
        assert runs.signal(run_id, "go")
        eventually(lambda: ended(client, run_id, "last"), what="the end of the workflow")
        eventually(lambda: not in_flight(client) and not client.llen("queue:python"))
        eventually(lambda: client.get("killed") == place.encode(), what="the kill")
        eventually(lambda: runs.get(run_id).state == "done")
    run = runs.get(run_id)
    assert (run.progress.total, run.progress.done) == (7, 7)
    jids = defaultdict(set)
    order = [event["step"] for event in events(client) if event["what"] == "start"]
    for event in events(client):
        jids[event["step"]].add(event["jid"])
    assert {name: len(found) for name, found in jids.items()} == dict.fromkeys(
        ["outer", "a", "inner", "b", "c", "last"], 1
    )
    assert max(order.index(name) for name in "abc") < order.index("last")
