"""Kill -9, anywhere: no continuation is lost, doubled or early."""

from __future__ import annotations

import json
import os
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Catch, Chain, Group, MayFail, Runs, SidekiqBroker, Workflow, WorkflowMiddleware

from ..running import eventually, in_flight
from ..trees import build, random_shape, violations
from .processes import registered, workers


def sender(redis_url: str) -> tuple[SidekiqBroker, Any]:
    """A process that starts workflows and consumes nothing."""
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware())

    @dramatiq.actor(queue_name="python", broker=broker)
    def step(name: Any, seconds: float = 0.0, dies: bool = False) -> None: ...

    return broker, step


def events(client: redis.Redis) -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in client.lrange("events", 0, -1)]


def ended(client: redis.Redis, run: str, step: Any) -> bool:
    return any(e["what"] == "end" and e["step"] == step and e["run"] == run for e in events(client))


@pytest.mark.parametrize("step_killed", ["a", "b"])
@pytest.mark.parametrize("place", ["in_actor", "before_ack", "before_advance", "after_advance"])
def test_killed_at(redis_url: str, client: redis.Redis, tmp_path: Path, place: str, step_killed: str) -> None:
    """Once in a chain step, once in a group's child."""
    broker, step = sender(redis_url)
    with workers(redis_url, tmp_path / "log", KILL_AT=place, KILL_STEP=step_killed):
        registered(client, 2)
        tree = Chain(
            step.message("a"), Group(step.message("b"), step.message("c"), step.message("d")), step.message("e")
        )
        run = Workflow(tree, broker=broker).run()
        eventually(lambda: ended(client, run, "e"), what="the end of the workflow")
        eventually(lambda: not in_flight(client) and not client.llen("queue:python"))
        # The run may end before the step's own process has its reply, and dies.
        eventually(lambda: client.get("killed") == place.encode(), what="the kill")
    jids = defaultdict(set)
    for event in events(client):
        jids[event["step"]].add(event["jid"])
    assert {name: len(found) for name, found in jids.items()} == dict.fromkeys("abcde", 1)
    order = [(e["what"], "abcde".index(e["step"])) for e in events(client)]
    assert list(violations(("chain", ["job", ("group", ["job"] * 3), "job"]), 5, order)) == []
    starts = [e["step"] for e in events(client) if e["what"] == "start"]
    # After the advance the job was out of flight: it must not run again.
    assert starts.count(step_killed) == (1 if place == "after_advance" else 2)
    assert not client.exists("dead", "retry")


@pytest.mark.parametrize(("place", "step_killed"), [("before_death", "b"), ("after_death", "d")])
def test_killed_beside_a_death(
    redis_url: str, client: redis.Redis, tmp_path: Path, place: str, step_killed: str
) -> None:
    """The process dies as it buries a step: what takes its place starts once."""
    broker, step = sender(redis_url)

    def dies(name: str) -> Any:
        return step.message_with_options(args=(name, 0.0, True), max_retries=0)

    with workers(redis_url, tmp_path / "log", KILL_AT=place, KILL_STEP=step_killed):
        registered(client, 2)
        caught = Catch(dies("b"), step.message("c"))
        tree = Chain(step.message("a"), caught, Group(MayFail(dies("d")), step.message("e")), step.message("f"))
        run = Workflow(tree, broker=broker).run()
        eventually(lambda: ended(client, run, "f"), what="the end of the workflow")
        eventually(lambda: not in_flight(client) and not client.llen("queue:python"))
        eventually(lambda: client.get("killed") == place.encode(), what="the kill")
        assert Runs(broker).wait(run, timeout=20_000).state == "done"
    jids = defaultdict(set)
    for event in events(client):
        jids[event["step"]].add(event["jid"])
    assert {name: len(found) for name, found in jids.items()} == dict.fromkeys("abcdef", 1)
    order = [(e["what"], "abcdef".index(e["step"])) for e in events(client)]
    assert list(violations(("chain", ["job", "job", "job", ("group", ["job"] * 2), "job"]), 6, order)) == []
    starts = [e["step"] for e in events(client) if e["what"] == "start"]
    assert starts.count(step_killed) == (1 if place == "after_death" else 2)
    assert client.zcard("dead") == 2


def test_chaos(redis_url: str, client: redis.Redis, tmp_path: Path) -> None:
    """Random workflows, and random workers killed and replaced all the while."""
    rng = random.Random(os.environ.get("CHAOS_SEED", "1"))
    broker, step = sender(redis_url)
    runs: dict[str, tuple[Any, int]] = {}
    with workers(redis_url, tmp_path / "log", count=3) as at_work:
        registered(client, 3)
        kills, until = 0, time.monotonic() + 12
        while time.monotonic() < until:
            for _ in range(6):
                shape = random_shape(rng, 4)
                tree, count = build(shape, lambda n: step.message(n, round(rng.random() * 0.02, 3)))
                runs[Workflow(tree, broker=broker).run()] = (shape, count)
            pause = time.monotonic() + rng.uniform(0.2, 0.8)
            eventually(lambda at=pause: time.monotonic() > at)
            if kills < 8:
                at_work.kill(rng.choice(at_work.running))
                at_work.start()
                kills += 1
        total = sum(count for _, count in runs.values())

        def all_ended() -> bool:
            return len({(e["run"], e["step"]) for e in events(client) if e["what"] == "end"}) == total

        eventually(all_ended, seconds=60, what=f"the end of {len(runs)} workflows")
        eventually(lambda: not in_flight(client) and not client.llen("queue:python") and not client.zcard("schedule"))
    by_run: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events(client):
        by_run[event["run"]].append(event)
    for run, (shape, count) in runs.items():
        jids = defaultdict(set)
        for event in by_run[run]:
            jids[event["step"]].add(event["jid"])
        assert {n: len(found) for n, found in jids.items()} == dict.fromkeys(range(count), 1), run
        assert list(violations(shape, count, [(e["what"], e["step"]) for e in by_run[run]])) == [], run
    assert kills == 8
    assert not client.exists("dead")


def test_a_gentle_stop_leaves_nothing_in_flight(redis_url: str, client: redis.Redis, tmp_path: Path) -> None:
    broker, step = sender(redis_url)
    with workers(redis_url, tmp_path / "log", count=2) as at_work:
        registered(client, 2)
        run = Workflow(Group(*(step.message(n, 0.1) for n in range(300))), broker=broker).run()
        eventually(lambda: ended(client, run, 0))
        at_work.stop()
        assert not in_flight(client)
        assert client.zcard("swf:workers") == 0
        waiting = client.llen("queue:python")
        assert 0 < waiting < 300
        at_work.start()
        eventually(lambda: len({e["step"] for e in events(client) if e["what"] == "end"}) == 300)
    starts = [e["step"] for e in events(client) if e["what"] == "start"]
    assert sorted(starts) == list(range(300))


def test_several_processes_and_threads_share_the_work(redis_url: str, client: redis.Redis, tmp_path: Path) -> None:
    broker, step = sender(redis_url)
    with workers(redis_url, tmp_path / "log", count=1) as at_work:
        at_work.command[at_work.command.index("--processes") + 1] = "2"
        at_work.start()
        registered(client, 3)
        Workflow(Group(*(step.message(n, 0.01) for n in range(200))), broker=broker).run()
        eventually(lambda: len([e for e in events(client) if e["what"] == "end"]) == 200)
    assert len({e["pid"] for e in events(client)}) == 3
