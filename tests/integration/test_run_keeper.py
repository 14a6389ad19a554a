"""The keeper: deaths that no worker recorded, callbacks of runs that rest, deadlines, lists of runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Group, Job, Runs, SidekiqBroker, WithDelay, Workflow
from dramatiq_sidekiq_flow.runs import resting_runs
from dramatiq_sidekiq_flow.runs.run_keeper import RunKeeper
from dramatiq_sidekiq_flow.store import keys, run_keeping
from dramatiq_sidekiq_flow.workflow.engine_lookup import engine_of

from ..redis_values import as_bytes, raws
from ..running import advance, eventually, in_flight, members, working


@pytest.fixture
def step(broker: SidekiqBroker) -> Any:
    @dramatiq.actor(queue_name="python", max_retries=0)
    def step(name: str, fails: bool = False) -> None:
        if fails:
            raise ValueError(f"{name} fails")

    return step


CALL = Job("Tell", queue="calls")


@pytest.fixture
def keeper(broker: SidekiqBroker, monkeypatch: pytest.MonkeyPatch) -> RunKeeper:
    monkeypatch.setattr(resting_runs, "FIRST", 0.0)
    return RunKeeper(engine_of(broker), is_elsewhere=False)


def told(client: redis.Redis) -> list[dict[str, Any]]:
    """The mappings of the callbacks that were pushed, the first one first."""
    return [job["args"][-1] for job in reversed(members(client, "calls"))]


def field(client: redis.Redis, run_id: str, name: str) -> str | None:
    value = client.hget(keys.record(run_id), name)
    return None if value is None else as_bytes(value).decode()


def kill(client: redis.Redis, queue: str = "python") -> bytes:
    """Move a job to ``dead`` as plain Ruby does."""
    job = json.loads(as_bytes(client.rpop(f"queue:{queue}")))
    job |= {"retry_count": 0, "failed_at": time.time(), "error_class": "RuntimeError", "error_message": "in Ruby"}
    member = json.dumps(job).encode()
    client.zadd("dead", {member: time.time()})
    return member


# -- deaths ----------------------------------------------------------------------------


def test_a_death_in_plain_ruby_is_recorded(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    run_id = Workflow(Chain(Job("R", queue="ruby", retry=0), step.message("a")), on_failure=CALL).run()
    member = kill(client, "ruby")
    upkeep = broker.process.heartbeat.upkeep
    upkeep.work()
    assert [run.id for run in Runs(broker).list(state="failed")] == [run_id]
    failure = json.loads(as_bytes(client.hget(keys.failed_steps(run_id), "1")))
    assert failure["at"] == pytest.approx(time.time(), abs=20)
    assert (failure["class"], failure["error_message"], failure["inferred"]) == ("R", "in Ruby", True)
    (mapping,) = told(client)
    assert (mapping["run_id"], mapping["state"], mapping["step"]) == (run_id, "failed", 1)
    assert (mapping["class"], mapping["error_class"], mapping["jid"]) == ("R", "RuntimeError", failure["jid"])
    assert client.ttl(keys.failed_steps(run_id)) > 0
    # Again, in another process.
    client.delete("swf:keeper")
    upkeep.forget()
    upkeep.work()
    assert len(told(client)) == 1
    # A person retries it, plain Ruby ends it, and pushes the next step: it is not dead any more.
    (run,) = (Runs(broker).get(run_id),)
    assert [each.state for each in run.steps] == ["dead", "pending"]
    client.zrem("dead", member)
    client.lpush("queue:ruby", member)
    assert Runs(broker).get(run_id).state == "running"
    client.delete("queue:ruby")
    client.sadd("queues", "python")
    client.lpush("queue:python", json.dumps({"class": "step", "args": ["a"], "jid": "j", "queue": "python",
                                             "workflow_run_id": run_id, "swf_step": 2}))  # fmt: skip
    run = Runs(broker).get(run_id)
    assert (run.state, [each.state for each in run.steps]) == ("running", ["done", "queued"])
    with working(broker):
        assert Runs(broker).wait(run_id, timeout=20_000).failures == ()


@pytest.mark.parametrize("case", ["gone", "done", "ended", "no_record", "other_option", "recorded"])
def test_what_is_not_recorded(broker: SidekiqBroker, client: redis.Redis, step: Any, case: str) -> None:
    run_id = Workflow(Group(step.message("a"), step.message("b"))).run()
    record = keys.record(run_id)
    if case == "done":
        client.hset(f"{record}:times", "1", "1 2 0 me")
    elif case == "ended":
        client.hset(record, "state", "cancelled")
    elif case == "no_record":
        client.delete(record)
    elif case == "recorded":
        client.hset(record, "state", "failed")
        client.hset(f"{record}:failed", "1", "{}")
    if case == "other_option":
        job = json.loads(as_bytes(client.rpop("queue:python")))
        client.rpush("queue:python", json.dumps(job | {"swf_on_death": "x"}))
    member = kill(client)
    if case == "gone":
        client.zrem("dead", member)
        broker.process.heartbeat.upkeep.handle(member)
    broker.process.heartbeat.upkeep.work()
    assert client.hvals(f"{record}:failed") == ([b"{}"] if case == "recorded" else [])
    assert client.hget(record, "state") == {
        "ended": b"cancelled", "no_record": None, "recorded": b"failed"
    }.get(case, b"running")  # fmt: skip


def test_a_death_that_an_older_worker_recorded_is_told(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    run_id = Workflow(step.message("a"), on_failure=CALL, on_complete=CALL).run()
    client.hset(keys.record(run_id), "state", "failed")
    client.hset(keys.failed_steps(run_id), "1", "{}")
    kill(client)
    broker.process.heartbeat.upkeep.work()
    assert [mapping["state"] for mapping in told(client)] == ["failed", "failed"]


def test_a_large_run(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    """Steps from 1,000 on have a bit."""
    run_id = Workflow(Chain(*(step.message(str(n)) for n in range(1_001)))).run()
    job = json.loads(as_bytes(client.rpop("queue:python"))) | {"swf_step": 1_001}
    for done in (True, False):
        client.setbit(keys.done_steps(run_id), 1_001, done)
        client.zadd("dead", {json.dumps(job | {"error_class": str(done)}): time.time()})
        broker.process.heartbeat.upkeep.work()
        assert client.hexists(keys.failed_steps(run_id), "1001") != done


# -- callbacks -------------------------------------------------------------------------


def test_a_failed_run_is_complete_when_it_rests(
    broker: SidekiqBroker, client: redis.Redis, keeper: RunKeeper, step: Any
) -> None:
    tree = Group(step.message("a", True), WithDelay(step.message("b"), timedelta(hours=1)))
    run_id = Workflow(tree, on_complete=CALL).run()
    with working(broker):
        eventually(lambda: client.zcard("dead"))
        eventually(lambda: not in_flight(client))
        keeper.keep()
        assert told(client) == []
        assert raws(client.zrange("swf:resting", 0, -1)) == [run_id.encode()]
        (member,) = raws(client.zrange("schedule", 0, -1))
        client.zrem("schedule", member)
        client.lpush("queue:python", member)
        eventually(lambda: client.hexists(keys.step_times(run_id), "2"))
    keeper.keep()
    (mapping,) = told(client)
    assert (mapping["state"], mapping["step"], mapping["error_message"]) == ("failed", 1, "a fails")
    assert not client.exists("swf:resting")
    keeper.keep()
    assert len(told(client)) == 1
    # A person retries the step: the run is done, and the callback is not called again.
    (member,) = raws(client.zrange("dead", 0, -1))
    client.zrem("dead", member)
    client.lpush("queue:python", member.replace(b"true", b"false"))
    with working(broker):
        assert Runs(broker).wait(run_id, timeout=20_000).state == "done"
    assert len(told(client)) == 1


def test_jobs_that_are_not_found_count_as_gone_after_a_time(
    broker: SidekiqBroker, client: redis.Redis, keeper: RunKeeper, step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of plain Ruby leaves no trace: it may have begun a moment ago."""
    Workflow(Group(step.message("a", True), Job("R", queue="ruby")), on_complete=CALL).run()
    with working(broker, queues={"python"}):
        eventually(lambda: client.zcard("dead"))
    client.delete("queue:ruby")
    keeper.keep()
    keeper.keep()
    assert told(client) == []
    monkeypatch.setattr(resting_runs, "RUBY_BEAT", 0.0)
    keeper.keep()
    assert [mapping["state"] for mapping in told(client)] == ["failed"]


def test_a_run_that_goes_on_leaves_those_that_rest(
    broker: SidekiqBroker, client: redis.Redis, keeper: RunKeeper, step: Any
) -> None:
    going, gone, paused = (Workflow(step.message("a"), on_complete=CALL).run() for _ in range(3))
    client.hset(keys.record(paused), "state", "paused")
    client.delete(keys.record(gone))
    client.zadd("swf:resting", {going: 1, gone: 2, paused: 3})
    keeper.keep()
    assert raws(client.zrange("swf:resting", 0, -1)) == [paused.encode()]
    assert told(client) == []


def test_a_run_that_has_changed_is_left_alone(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    """A person retried its step between the look and the call."""
    run_id = Workflow(step.message("a"), on_complete=CALL).run()
    client.zadd("swf:resting", {run_id: 1})
    run = run_keeping.RestingRun(run_id, "failed", frozenset(("on_complete",)), {})
    assert not run_keeping.call_back(run, "on_complete", b',"state":"failed"', again=False).run(broker.connection)
    assert told(client) == []
    assert client.exists("swf:resting")


@pytest.mark.parametrize("end", ["failed", "done", "cancelled"])
def test_a_callback_that_could_not_be_pushed_is_pushed_later(
    broker: SidekiqBroker, client: redis.Redis, keeper: RunKeeper, step: Any, end: str
) -> None:
    option = "on_failure" if end == "failed" else "on_complete"
    run_id = Workflow(step.message("a", end == "failed"), **{option: CALL}).run()  # type: ignore[arg-type]
    client.set("queue:calls", "text")
    if end == "cancelled":
        Runs(broker).cancel(run_id)
    else:
        with working(broker, queues={"python"}):
            eventually(lambda: field(client, run_id, "state") == end)
    keeper.keep()
    assert field(client, run_id, option) is not None
    client.delete("queue:calls")
    keeper.keep()
    assert [(mapping["run_id"], mapping["state"]) for mapping in told(client)] == [(run_id, end)]
    assert not client.exists("swf:resting")


# -- deadlines -------------------------------------------------------------------------


def test_a_run_whose_deadline_has_passed_is_cancelled(
    broker: SidekiqBroker, client: redis.Redis, keeper: RunKeeper, step: Any
) -> None:
    tree = Chain(step.message("a"), step.message("b"))
    late = Workflow(tree, deadline=5_400_000, on_complete=CALL).run()
    Workflow(step.message("c"), deadline=timedelta(days=2)).run("other")
    assert float(client.zscore("swf:deadlines", late) or 0) == pytest.approx(time.time() + 5_400, abs=20)
    assert client.ttl("swf:deadlines") > 2 * 86_400
    keeper.keep()
    assert Runs(broker).get(late).state == "running"
    client.zadd("swf:deadlines", {late: time.time() - 1})
    keeper.keep()
    run = Runs(broker).get(late)
    assert (run.state, run.reason) == ("cancelled", "deadline of 1:30:00 passed")
    assert [job["workflow_run_id"] for job in members(client, "python")] == ["other"]
    assert raws(client.zrange("swf:deadlines", 0, -1)) == [b"other"]
    assert [mapping["state"] for mapping in told(client)] == ["cancelled"]


def test_a_deadline_of_a_run_that_is_done_is_dropped(
    broker: SidekiqBroker, client: redis.Redis, keeper: RunKeeper, step: Any
) -> None:
    run_id = Workflow(step.message("a"), deadline=60_000).run()
    advance(broker)
    assert field(client, run_id, "state") == "done"
    assert not client.exists("swf:deadlines")
    client.zadd("swf:deadlines", {run_id: 1, "unknown": 2})
    keeper.keep()
    assert field(client, run_id, "state") == "done"
    assert not client.exists("swf:deadlines")


def test_a_later_run_of_the_same_id_has_no_deadline(
    broker: SidekiqBroker, client: redis.Redis, keeper: RunKeeper, step: Any
) -> None:
    Workflow(step.message("a"), deadline=1).run("again")
    client.delete("swf:run:again")
    Workflow(step.message("a")).run("again")
    client.zadd("swf:deadlines", {"again": 1})
    keeper.keep()
    assert field(client, "again", "state") == "running"
    assert not client.exists("swf:deadlines")


@pytest.mark.parametrize("killed_after", ["mark", "clear"])
def test_a_keeper_that_is_killed_leaves_the_rest_to_the_next(
    broker: SidekiqBroker,
    client: redis.Redis,
    keeper: RunKeeper,
    step: Any,
    killed_after: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_id = Workflow(step.message("a"), deadline=1, on_complete=CALL).run()
    client.zadd("swf:deadlines", {run_id: 1})
    clear: Callable[..., bool] = keeper._cancellation.clear

    def dies(*arguments: Any) -> bool:
        if killed_after == "clear":
            clear(*arguments)
        raise SystemExit

    monkeypatch.setattr(keeper._cancellation, "clear", dies)
    with pytest.raises(SystemExit):
        keeper.keep()
    assert field(client, run_id, "state") == "cancelled"
    RunKeeper(engine_of(broker), is_elsewhere=False).keep()
    assert members(client, "python") == []
    assert not client.exists("swf:deadlines")
    assert len(told(client)) == 1


# -- the process -----------------------------------------------------------------------


def test_a_worker_keeps_runs(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    run_id = Workflow(WithDelay(step.message("a"), timedelta(hours=1)), deadline=1).run()
    broker.process.heartbeat.interval = 0.05
    with working(broker):
        eventually(lambda: field(client, run_id, "state") == "cancelled")
        assert client.get("swf:keeper") == broker.process.heartbeat.identity.encode()
        eventually(lambda: not client.exists("schedule"))
    assert not client.exists("swf:keeper")


def test_runs_whose_record_has_expired_leave_the_lists(
    broker: SidekiqBroker, client: redis.Redis, keeper: RunKeeper, step: Any
) -> None:
    run_id = Workflow(step.message("a")).run()
    expired = {f"gone-{n}": n + 1 for n in range(150)}
    client.zadd("swf:flows:running", expired)
    client.zadd("swf:flows:done", {"gone": 1})
    keeper.trim()
    assert client.zcard("swf:flows:running") == 51
    keeper.trim()
    assert raws(client.zrange("swf:flows:running", 0, -1)) == [run_id.encode()]
    assert not client.exists("swf:flows:done")


def test_an_idle_fleet_pays_little(broker: SidekiqBroker, client: redis.Redis) -> None:
    """One look of the keeper, and what another process sends in its minute."""
    upkeep = broker.process.heartbeat.upkeep
    upkeep.work()

    def commands() -> int:
        stats: Any = client.info("commandstats")
        return sum(stat["calls"] for stat in stats.values())

    before = commands()
    upkeep.work()
    # INFO counts as one.
    assert commands() - before - 1 <= 1 + 6
