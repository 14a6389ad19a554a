"""Pauses among real processes, one of which is killed: no step starts a second after, and all run in the end."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import redis

from dramatiq_sidekiq_flow import Runs, Workflow

from ..running import eventually, in_flight
from ..trees import build, random_shape, violations
from .processes import registered, workers
from .test_cancel import PROMISED, events, sender


def test_no_step_starts_during_a_pause_and_all_run_after_it(
    redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    rng = random.Random(3)
    broker, step = sender(redis_url)
    runs = Runs(broker)
    shapes: dict[str, tuple[Any, int]] = {}
    with workers(redis_url, tmp_path / "log", count=2) as at_work:
        registered(client, 2)
        for number in range(40):
            shape = random_shape(rng, 6)
            tree, count = build(shape, lambda n: step.message(n, round(rng.random() * 0.2, 3)))
            run_id = Workflow(tree, broker=broker, tags=["paused"] if number % 2 else []).run()
            shapes[run_id] = (shape, count)
        eventually(lambda: len(events(client)) > 40)
        paused = {run_id for run_id in runs.pause(tag="paused") if runs.get(run_id).state == "paused"}
        assert paused
        # What it had in flight is recovered, and comes out of the queue again.
        at_work.kill(at_work.running[0])
        at_work.start()
        others = sum(count for run_id, (_, count) in shapes.items() if run_id not in paused)
        eventually(lambda: len(ended(client, shapes.keys() - paused)) == others, seconds=60)
        eventually(lambda: not in_flight(client) and not client.llen("queue:python"))
        resumed_at = client.time()[0]
        for run_id in paused:
            at = client.zscore("swf:cancelled", run_id) or 0
            late = [e for e in events(client) if (e["run"], e["what"]) == (run_id, "start") and e["at"] > at + PROMISED]
            assert late == []
        runs.resume(tag="paused")
        everything = sum(count for _, count in shapes.values())
        eventually(lambda: len(ended(client, shapes.keys())) == everything, seconds=60)
        eventually(lambda: not in_flight(client))
    assert any(e["at"] > resumed_at for e in events(client) if e["run"] in paused)
    by_run: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for event in events(client):
        by_run[event["run"]].append((event["what"], event["step"]))
    for run_id, (shape, count) in shapes.items():
        assert list(violations(shape, count, by_run[run_id])) == [], run_id
    assert {run.state for run in runs.list()} == {"done"}
    assert not client.exists("retry", "dead", "schedule")
    assert not client.keys("swf:parked:*")


def ended(client: redis.Redis, run_ids: Any) -> set[tuple[str, int]]:
    """Run and number of each step of these runs that has ended."""
    return {(e["run"], e["step"]) for e in events(client) if e["what"] == "end" and e["run"] in run_ids}
