"""A run whose barrier is gone goes on, when a person says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Group, SidekiqBroker, Workflow, current_run, restart_remaining
from dramatiq_sidekiq_flow.cli.main import main
from dramatiq_sidekiq_flow.errors import InvalidOptions, NothingToRelease, WrongType

from ..redis_values import raws
from ..running import eventually, members, working


@pytest.fixture
def log() -> list[Any]:
    return []


@pytest.fixture
def step(broker: SidekiqBroker, log: list[Any]) -> Any:
    @dramatiq.actor(queue_name="python", broker=broker)
    def step(name: str) -> None:
        log.append((name, current_run().run_id))

    return step


def lose_barriers(client: redis.Redis) -> None:
    """As if they had expired."""
    for key in raws(client.keys("*_ran")):
        client.delete(key, key.removesuffix(b"_ran"), key.removesuffix(b"_ran") + b":u")


def dead(client: redis.Redis) -> list[str]:
    return [job["jid"] for job in members(client, "dead")]


def test_the_rest_of_a_chain_runs_and_the_step_does_not_run_again(
    broker: SidekiqBroker, client: redis.Redis, step: Any, log: list[Any]
) -> None:
    first = step.message("a")
    Workflow(Chain(first, step.message("b"), step.message("c"))).run("run-1")
    lose_barriers(client)
    with working(broker):
        eventually(lambda: dead(client) == [first.message_id])
        (job,) = members(client, "dead")
        assert job["error_class"] == "BarrierExpired"
        assert "release app:broker JID" in job["error_message"]
        assert restart_remaining(broker, first.message_id) == "run-1"
        eventually(lambda: len(log) == 3)
        broker.join("python", timeout=10_000)
    assert log == [(name, "run-1") for name in "abc"]
    assert client.zcard("dead") == 0


def test_members_of_a_group_are_counted_as_told(
    broker: SidekiqBroker, client: redis.Redis, step: Any, log: list[Any]
) -> None:
    members_of_it = [step.message("a"), step.message("b")]
    Workflow(Chain(Group(*members_of_it), step.message("c"))).run("run-2")
    lose_barriers(client)
    with working(broker):
        eventually(lambda: client.zcard("dead") == 2)
        restart_remaining(broker, members_of_it[0].message_id, members=2)
        broker.join("python", timeout=10_000)
        assert [name for name, _ in sorted(log)] == ["a", "b"]
        # The barrier is there again: it is not made anew.
        restart_remaining(broker, members_of_it[1].message_id)
        eventually(lambda: ("c", "run-2") in log)
        broker.join("python", timeout=10_000)
    assert len(log) == 3


def test_a_second_release_of_a_group_starts_nothing_twice(
    broker: SidekiqBroker, client: redis.Redis, step: Any, log: list[Any]
) -> None:
    both = [step.message("a"), step.message("b")]
    Workflow(Chain(Group(*both), step.message("c"))).run()
    lose_barriers(client)
    with working(broker):
        eventually(lambda: client.zcard("dead") == 2)
        for message in both:
            restart_remaining(broker, message.message_id)
            broker.join("python", timeout=10_000)
    assert [name for name, _ in log].count("c") == 1


def test_what_cannot_be_released(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    with pytest.raises(NothingToRelease, match="No job j404 is in"):
        restart_remaining(broker, "j404")
    job = {"class": "step", "args": ["x"], "jid": "alone", "queue": "python", "retry": True}
    client.zadd("dead", {json.dumps(job): 1})
    with pytest.raises(NothingToRelease, match="has no next steps"):
        restart_remaining(broker, "alone")
    with pytest.raises(InvalidOptions, match="members"):
        restart_remaining(broker, "alone", members=0)
    assert client.zcard("dead") == 1


def test_a_queue_that_is_not_a_list_leaves_the_job_where_it_is(
    broker: SidekiqBroker, client: redis.Redis, step: Any
) -> None:
    first = step.message("a")
    Workflow(Chain(first, step.message("b"))).run()
    (raw,) = raws(client.lrange("queue:python", 0, -1))
    client.delete("queue:python")
    client.zadd("dead", {raw: 1})
    client.set("queue:python", "text")
    with pytest.raises(WrongType, match="queue:python"):
        restart_remaining(broker, first.message_id)
    assert dead(client) == [first.message_id]


def test_the_command(
    redis_url: str,
    client: redis.Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "release_app.py").write_text(
        "from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware\n"
        f"broker = SidekiqBroker(url={redis_url!r})\n"
        "broker.add_middleware(WorkflowMiddleware())\n",
        "utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    barrier = "6f0d5a52-3b0e-4c57-9f8e-0a4f5f6b7c8d"
    rest = {"__type__": "chain", "children": [{"__type__": "job", "class": "b", "args": []}]}
    job = {
        "class": "a",
        "args": [],
        "jid": "j1",
        "queue": "python",
        "retry": True,
        "workflow_run_id": "run-3",
        "workflow_completion_callbacks": [[barrier, rest, False]],
        "locale": "de",
    }
    client.zadd("dead", {json.dumps(job): 1})
    assert main(["release", "release_app:broker", "j1"]) == 0
    assert capsys.readouterr().out == "Job j1 counts as done; run run-3 continues.\n"
    (noop,) = members(client, "python")
    assert (noop["class"], noop["locale"]) == ("Sidekiq::Workflow::NoopWorker", "de")
    assert noop["workflow_completion_callbacks"] == job["workflow_completion_callbacks"]
    assert (client.get(barrier), client.get(f"{barrier}_ran")) == (b"1", b"-1")
    assert client.ttl(barrier) > 21 * 86_400
    assert main(["release", "release_app:broker", "j1"]) == 2
    assert "No job j1 is in" in capsys.readouterr().err
