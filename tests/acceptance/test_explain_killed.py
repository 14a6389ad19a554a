"""A real worker is killed: the explanation names it, and the cure that it names works."""

from __future__ import annotations

from pathlib import Path

import dramatiq
import redis

from dramatiq_sidekiq_flow import Chain, Runs, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.runs import Finding

from ..running import eventually, in_flight
from .processes import registered, workers


def test_a_killed_worker(redis_url: str, client: redis.Redis, tmp_path: Path) -> None:
    broker = SidekiqBroker(url=redis_url, heartbeat_timeout=1_000)
    broker.add_middleware(WorkflowMiddleware())

    @dramatiq.actor(queue_name="python", broker=broker)
    def step(name: str, seconds: float = 0.0) -> None: ...

    def first() -> Finding:
        return Runs(broker).explain(run_id).findings[0]

    with workers(redis_url, tmp_path / "log", count=1) as at_work:
        registered(client, 1)
        # Its worker is killed meanwhile.
        run_id = Workflow(Chain(step.message("long", 2.0), step.message("last")), broker=broker).run()
        eventually(lambda: client.llen("events") and in_flight(client))
        assert (first().cause, first().outlook) == ("runs", "moves")
        at_work.kill(at_work.running[0])
        eventually(lambda: first().cause == "dead_worker" and first().outlook == "blocked")
        assert first().cures == ("Start a Python worker: it puts the job back into its queue.",)
        assert Runs(broker).explain(run_id).verdict == "stuck"
        at_work.start(1)
        assert Runs(broker).wait(run_id, timeout=30_000).state == "done"
    broker.close()
