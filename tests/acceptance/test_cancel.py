"""Cancellation among real processes, one of which is killed: no step starts later than a second after."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Runs, SidekiqBroker, Workflow, WorkflowMiddleware

from ..running import eventually, in_flight
from ..trees import build, random_shape, violations
from .processes import registered, workers

#: Seconds.
PROMISED = 1.0


def sender(redis_url: str) -> tuple[SidekiqBroker, Any]:
    """A process that starts workflows and consumes nothing."""
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware())

    @dramatiq.actor(queue_name="python", broker=broker)
    def step(name: Any, seconds: float = 0.0) -> None: ...

    return broker, step


def events(client: redis.Redis) -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in client.lrange("events", 0, -1)]


@pytest.mark.parametrize("seed", [1, 2])
def test_no_step_starts_a_second_after(redis_url: str, client: redis.Redis, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    broker, step = sender(redis_url)
    runs = Runs(broker)
    shapes: dict[str, tuple[Any, int]] = {}
    with workers(redis_url, tmp_path / "log", count=2) as at_work:
        registered(client, 2)
        for _ in range(60):
            shape = random_shape(rng, 6)
            tree, count = build(shape, lambda n: step.message(n, round(rng.random() * 0.2, 3)))
            shapes[Workflow(tree, broker=broker).run()] = (shape, count)
        cancelled = set(rng.sample(sorted(shapes), 30))
        eventually(lambda: len(events(client)) > 60)
        for number, run_id in enumerate(sorted(cancelled)):
            if number == 10:
                # What it had in flight is recovered, and comes out of the queue again.
                at_work.kill(at_work.running[0])
                at_work.start()
            runs.cancel(run_id)
        done = {run_id for run_id in cancelled if runs.get(run_id).state == "cancelled"}
        expected = sum(count for run_id, (_, count) in shapes.items() if run_id not in done)

        def ended() -> bool:
            ends = {(e["run"], e["step"]) for e in events(client) if e["what"] == "end"}
            return sum(run_id not in done for run_id, _ in ends) == expected

        eventually(ended, seconds=60)
        eventually(lambda: not in_flight(client) and not client.llen("queue:python") and not client.zcard("schedule"))
    assert done
    by_run: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events(client):
        by_run[event["run"]].append(event)
    for run_id, (shape, count) in shapes.items():
        order = [(e["what"], e["step"]) for e in by_run[run_id]]
        if run_id not in done:
            assert list(violations(shape, count, order)) == [], run_id
            continue
        at = float(client.hget(f"swf:flow:{run_id}", "finished") or 0)
        late = [e for e in by_run[run_id] if e["what"] == "start" and e["at"] > at + PROMISED]
        assert late == []
    assert not client.exists("retry", "dead")
