"""A job that kills its process ends in ``dead`` alone; what merely ran beside it, or waited, does not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import dramatiq
import redis

from dramatiq_sidekiq_flow import Chain, SidekiqBroker, Workflow, WorkflowMiddleware

from ..running import eventually, in_flight, members
from .processes import Workers, workers

APP = "tests.acceptance.pill_app"


def sender(redis_url: str) -> tuple[SidekiqBroker, dict[str, Any]]:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware())
    actors = {}
    for name in ("pill", "good", "long"):
        actors[name] = dramatiq.actor(actor_name=name, queue_name="python", broker=broker)(lambda *_: None)
    return broker, actors


def replace_the_dead(running: Workers) -> None:
    for process in list(running.running):
        if process.poll() is not None:
            running.kill(process)
            running.start()


def test_a_pill_with_thirty_neighbours_buries_itself_alone(redis_url: str, client: redis.Redis, tmp_path: Path) -> None:
    broker, actors = sender(redis_url)
    Workflow(Chain(actors["pill"].message(), actors["good"].message(30)), broker=broker).run()
    for n in range(30):
        actors["good"].send(n)
    with workers(redis_url, tmp_path / "log", count=0, module=APP) as running:
        # The command waits so long for its worker process to start. If a job kills the process before
        # it has reported its start, the command notices that only after this time (30 s by default).
        running.command += ["--worker-fork-timeout", "1000"]
        running.start()

        def over() -> bool:
            replace_the_dead(running)
            return client.zcard("dead") == 1 and client.scard("done") == 30 and not in_flight(client)

        eventually(over, seconds=60, what="the end of the pill and of its neighbours")
        (dead,) = members(client, "dead")
        assert (dead["class"], dead["error_class"]) == ("pill", "PoisonPill")
        assert client.get("killed") == b"3"
        # Retried when it is cured, its run goes on.
        client.set("cured", 1)
        client.lpush("queue:python", client.zpopmin("dead")[0][0])
        eventually(lambda: client.sismember("done", "30"))
    broker.close()


def test_deploys_that_are_cut_short_bury_only_what_had_begun_three_times(
    redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    broker, actors = sender(redis_url)
    for n in range(8):
        actors["long"].send(n)
    with workers(redis_url, tmp_path / "log", count=1, module=APP) as running:
        for deploy in range(1, 4):
            eventually(lambda: client.llen("begun") >= 4 * deploy, seconds=40, what=f"deploy {deploy}")  # noqa: B023
            running.kill(running.running[0])
            running.start()
        client.set("open", 1)
        eventually(lambda: client.scard("done") + client.zcard("dead") == 8, seconds=60, what="all eight")
        eventually(lambda: not in_flight(client))
    often = Counter(int(n) for n in client.lrange("begun", 0, -1))
    dead = {job["args"][0] for job in members(client, "dead")}
    assert all(often[n] >= 3 for n in dead)
    assert {int(n) for n in client.smembers("done")} | dead == set(range(8))
    broker.close()
