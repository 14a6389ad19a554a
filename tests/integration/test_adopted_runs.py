"""Runs that Ruby started with the plain gem, whose steps have no numbers: their deaths, and what is seen of them."""

from __future__ import annotations

import json
import time
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Group, Job, Runs, SidekiqBroker, Workflow
from dramatiq_sidekiq_flow.runs import Run

from ..redis_values import as_bytes, raws
from ..running import eventually, members, working

#: As long as ``dead`` keeps a job.
DEAD_TIMEOUT = 180 * 86_400


@pytest.fixture
def step(broker: SidekiqBroker) -> Any:
    tries: dict[str, int] = {}

    @dramatiq.actor(queue_name="python", max_retries=0)
    def step(name: str, failures: int = 0) -> None:
        tries[name] = tries.get(name, 0) + 1
        if tries[name] <= failures:
            raise ValueError(f"failure {tries[name]} of {failures}")

    return step


def adopt(client: redis.Redis, queue: str = "python", **more: Any) -> None:
    """Make the jobs of a queue those of the plain gem, which have no record."""
    for raw in raws(client.lrange(f"queue:{queue}", 0, -1)):
        client.lpop(f"queue:{queue}")
        client.rpush(f"queue:{queue}", json.dumps({**_without_numbers(json.loads(raw)), **more}).encode())
    client.delete(*client.keys("swf:flow*"))


def _without_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_numbers(item) for key, item in value.items() if key != "swf_step"}
    return [_without_numbers(item) for item in value] if isinstance(value, list) else value


def state_of(client: redis.Redis, run_id: str) -> str | None:
    state = client.hget(f"swf:flow:{run_id}", "state")
    return None if state is None else as_bytes(state).decode()


def failed_ids(broker: SidekiqBroker) -> list[str]:
    return [run.id for run in Runs(broker).list(state="failed")]


def failures(run: Run) -> list[tuple[object, ...]]:
    return [(each.number, each.name, each.queue, each.state, each.error) for each in run.failures]


@pytest.mark.parametrize("first", [True, False], ids=["seen-first", "seen-before"])
@pytest.mark.parametrize("by", ["runs", "web-ui"])
def test_a_death_and_its_retry(broker: SidekiqBroker, client: redis.Redis, step: Any, first: bool, by: str) -> None:
    tree = Chain(*([] if first else [step.message("before")]), step.message("a", 1), step.message("b"))
    run_id, runs = Workflow(tree).run(), Runs(broker)
    adopt(client)
    with working(broker):
        eventually(lambda: failed_ids(broker) == [run_id])
        (dead,) = members(client, "dead")
        run = runs.get(run_id)
        assert (run.state, run.progress.failed, run.progress.total) == ("failed", 1, None)
        assert failures(run) == [(None, "step", "python", "dead", "ValueError: failure 1 of 1")]
        assert runs.explain(run_id).verdict == "failed"
        for part in ("", ":failed"):
            assert client.ttl(f"swf:flow:{run_id}{part}") >= DEAD_TIMEOUT
        assert client.hkeys(f"swf:flow:{run_id}:failed") == [f"jid:{dead['jid']}".encode()]
        if by == "runs":
            assert runs.retry(run_id).state in ("running", "done")
            assert state_of(client, run_id) in ("running", "done")
        else:
            (member,) = raws(client.zrange("dead", 0, -1))
            client.zrem("dead", member)
            client.lpush("queue:python", member)
        run = runs.wait(run_id, timeout=20_000)
    assert (run.state, run.failures, failed_ids(broker)) == ("done", (), [])
    assert not client.exists(f"swf:flow:{run_id}:failed")
    assert state_of(client, run_id) == "done"


def test_a_death_whose_job_was_deleted(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    run_id = Workflow(Group(step.message("a", 9), step.message("b", 9))).run()
    adopt(client)
    with working(broker):
        eventually(lambda: client.zcard("dead") == 2)
    client.zrem("dead", raws(client.zrange("dead", 0, -1))[0])
    run = Runs(broker).get(run_id)
    assert (run.state, len(run.failures), len({step.jid for step in run.failures})) == ("failed", 2, 2)
    assert "failure 1 of 9" in str(run)
    causes = [finding.cause for finding in Runs(broker).explain(run_id).blocked]
    assert sorted(causes) == ["dead", "job_gone"]


def test_a_death_in_plain_ruby(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    """The keeper records it; plain Ruby runs the step again, and leaves no trace."""
    run_id = Workflow(Chain(step.message("a"), Job("R", queue="ruby", retry=0), step.message("b"))).run()
    adopt(client)
    with working(broker):
        eventually(lambda: client.llen("queue:ruby"))
    job = json.loads(as_bytes(client.rpop("queue:ruby")))
    dead = {"retry_count": 0, "failed_at": time.time(), "error_class": "RuntimeError", "error_message": "in Ruby"}
    member = json.dumps({**job, **dead}).encode()
    client.zadd("dead", {member: time.time()})
    upkeep = broker.process.heartbeat.upkeep
    upkeep.work()
    assert failed_ids(broker) == [run_id]
    assert failures(Runs(broker).get(run_id)) == [(None, "R", "ruby", "dead", "RuntimeError: in Ruby")]
    assert client.ttl(f"swf:flow:{run_id}:failed") > 0
    client.zrem("dead", member)
    client.rpush("queue:python", json.dumps({"class": "step", "args": ["b"], "jid": "j", "queue": "python",
                                             "workflow_run_id": run_id}))  # fmt: skip
    run = Runs(broker).get(run_id)
    assert (run.state, run.failures) == ("running", ())
    with working(broker):
        assert Runs(broker).wait(run_id, timeout=20_000).state == "done"
    assert Runs(broker).get(run_id).failures == ()


def test_a_callback_of_a_run_is_not_a_step(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    run_id = Workflow(step.message("a", 9)).run()
    adopt(client, swf_callback="failure")
    with working(broker):
        eventually(lambda: client.zcard("dead") == 1)
    assert not client.exists(f"swf:flow:{run_id}")
