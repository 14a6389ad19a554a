"""Pauses of runs: wherever a job of the run is, it waits for the resume, and then goes where it belongs."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Group, SidekiqBroker, Workflow
from dramatiq_sidekiq_flow.errors import InvalidFilter, UnknownRun
from dramatiq_sidekiq_flow.process.paused_upkeep import PausedUpkeep
from dramatiq_sidekiq_flow.runs import Runs
from dramatiq_sidekiq_flow.store import keys, run_pause
from dramatiq_sidekiq_flow.store.connection import Connection
from dramatiq_sidekiq_flow.workflow import ttl
from dramatiq_sidekiq_flow.workflow.engine_lookup import engine_of

from .. import operations
from ..redis_values import as_bytes, raws, scored, texts
from ..running import advance, eventually, in_flight, members, working
from .test_cancel_run import PLACES, Steps, left_of, start

HALF_A_YEAR = 180 * 86_400


@pytest.fixture
def steps(broker: SidekiqBroker) -> Iterator[Steps]:
    steps = Steps()
    yield steps
    steps.go.set()


@pytest.fixture
def runs(broker: SidekiqBroker) -> Runs:
    return Runs(broker)


def parked(client: redis.Redis, run_id: str) -> list[bytes]:
    return raws(client.lrange(keys.parked(run_id), 0, -1))


def times_of(client: redis.Redis) -> list[float]:
    """The scores of what is scheduled, and then of what is in retry."""
    found = [scored(client.zrange(name, 0, -1, withscores=True)) for name in ("schedule", "retry")]
    return [score for each in found for _, score in each]


def test_the_record_says_so(client: redis.Redis, runs: Runs, steps: Steps) -> None:
    run_id = start(steps.notes.message("a"), steps.notes.message("b"))
    run = runs.pause(run_id, "a fault")
    assert (run.state, run.reason, run.at_rest, run.finished_at) == ("paused", "a fault", False, None)
    assert [step.state for step in run.steps] == ["parked", "pending"]
    assert (run.progress.waiting, run.inferred) == (1, False)
    assert "= 1   notes  python  parked" in str(run)
    assert [found.id for found in runs.list(state="paused")] == [run_id]
    assert not runs.list(state="running")
    for key in (keys.record(run_id), keys.parked(run_id), "swf:flows:paused", keys.step_times(run_id)):
        assert client.ttl(key) > HALF_A_YEAR - 4000
    resumed = runs.resume(run_id)
    assert (resumed.state, resumed.reason) == ("running", "")
    assert [found.id for found in runs.list(state="running")] == [run_id]
    assert not runs.list(state="paused")
    assert not client.exists(keys.parked(run_id))


def test_what_is_done_stays_done(broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps) -> None:
    run_id = start(steps.notes.message("a"))
    advance(broker)
    assert runs.pause(run_id).state == runs.resume(run_id).state == runs.retry(run_id).state == "done"
    assert not client.exists("swf:cancelled")


def test_a_second_call_changes_nothing(client: redis.Redis, runs: Runs, steps: Steps) -> None:
    run_id = start(steps.notes.message("a"))
    runs.pause(run_id, "first")
    before = parked(client, run_id)
    assert runs.pause(run_id, "second").reason == "first"
    assert parked(client, run_id) == before
    assert client.zcard("swf:cancelled") == 1


@pytest.mark.parametrize("verb", ["pause", "resume", "retry"])
def test_without_a_record(runs: Runs, verb: str) -> None:
    with pytest.raises(UnknownRun, match="no record of the run"):
        getattr(runs, verb)("01234567-0000-0000-0000-000000000000")


# -- the places of a job ---------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_jobs_that_wait_are_parked_and_put_back(
    broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps, place: Callable[..., str]
) -> None:
    other = start(steps.notes.message("other"))
    run_id = place(client, steps)
    where, times = left_of(client, run_id), times_of(client)
    assert where
    assert runs.pause(run_id).steps[0].state == "parked"
    assert set(left_of(client, run_id)) <= {keys.parked(run_id).encode(), b"swf:fanout:f"}
    assert client.ttl(keys.parked(run_id)) > 0
    left = client.ttl("swf:fanout:f")
    assert left == -2 or HALF_A_YEAR - 60 < left <= HALF_A_YEAR
    assert [job["workflow_run_id"] for job in members(client, "python")] == [other]
    runs.resume(run_id)
    if place.__name__ == "arrived":
        where = [b"queue:python"]
    if place.__name__ == "fanned_out":
        # It is poured.
        where, times = [b"queue:python", b"schedule"], [2e9]
        assert not client.exists("swf:fanouts", "swf:fanout:f")
    assert sorted(left_of(client, run_id)) == sorted(where)
    assert times_of(client) == times
    assert not client.exists(keys.parked(run_id))


def test_the_order_of_a_queue_stays(client: redis.Redis, runs: Runs, steps: Steps) -> None:
    """Also of a queue of several parts."""
    run_id = Workflow(Group(*(steps.notes.message(f"{n}" * 20) for n in range(900)))).run()
    before = raws(client.lrange("queue:python", 0, -1))
    runs.pause(run_id)
    assert client.llen(keys.parked(run_id)) == 900
    assert not client.exists("queue:python")
    runs.resume(run_id)
    assert raws(client.lrange("queue:python", 0, -1)) == before


def test_what_runs_ends_and_the_next_step_waits(
    broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps
) -> None:
    run_id = start(steps.holds.message("a"), steps.notes.message("b"), steps.notes.message("c"))
    with working(broker):
        assert steps.begun.wait(20)
        runs.pause(run_id)
        steps.go.set()
        eventually(lambda: not in_flight(client))
        run = runs.get(run_id)
        assert [step.state for step in run.steps] == ["done", "parked", "pending"]
        assert (run.state, run.memory) == ("paused", {"a": "ran"})
        assert steps.ran == ["a"]
        runs.resume(run_id)
        assert runs.wait(run_id, timeout=20_000).state == "done"
    assert steps.ran == ["a", "b", "c"]


def test_what_is_prefetched_is_parked(broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps) -> None:
    """One thread holds a job, and has fetched others of the run that is paused meanwhile."""
    Workflow(steps.holds.message("holder")).run()
    run_id = Workflow(Group(*(steps.notes.message(n) for n in "abc"))).run()
    with working(broker, threads=1):
        assert steps.begun.wait(20)
        eventually(lambda: len(in_flight(client)) > 1)
        runs.pause(run_id)
        # A worker knows it half a second later at the latest.
        broker.process.cancelled_runs._looked = float("-inf")
        steps.go.set()
        eventually(lambda: len(parked(client, run_id)) == 3 and not in_flight(client))
        broker.process.presence.beat()
        assert client.get("stat:processed") == b"1"
        assert {step.state for step in runs.get(run_id).steps} == {"parked"}
        runs.resume(run_id)
        assert runs.wait(run_id, timeout=20_000).state == "done"
    assert sorted(steps.ran) == ["a", "b", "c", "holder"]


def test_no_step_of_a_resumed_run_is_dropped_if_its_state_cannot_be_read(
    broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps
) -> None:
    """A process knows that the run was paused or cancelled, and not which, nor that it was resumed."""
    run_id = start(steps.notes.message("a"), steps.notes.message("b"))
    runs.pause(run_id)
    assert not broker.process.cancelled_runs.knows(run_id)
    runs.resume(run_id)
    broker.process.cancelled_runs.forget()
    client.delete(keys.record(run_id))
    client.set(keys.record(run_id), "of another type", ex=60)
    with working(broker):
        eventually(lambda: steps.ran == ["a", "b"])


def test_a_step_that_fails_is_retried_after_the_pause(
    broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps
) -> None:
    run_id = start(steps.fails.message("a"), steps.notes.message("b"))
    with working(broker):
        assert steps.begun.wait(20)
        runs.pause(run_id)
        broker.process.cancelled_runs._looked = float("-inf")
        steps.go.set()
        # It comes out of `retry`, and its turn comes at a worker.
        eventually(lambda: len(parked(client, run_id)) == 1)
        assert not client.exists("retry", "dead")
        assert steps.ran == ["a"]
        runs.resume(run_id)
        eventually(lambda: len(steps.ran) == 4)
        assert runs.wait(run_id, timeout=20_000).state == "failed"


def test_the_last_step_ends_during_a_pause(
    broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps
) -> None:
    run_id = start(steps.holds.message("a"))
    with working(broker):
        assert steps.begun.wait(20)
        runs.pause(run_id, "a fault")
        steps.go.set()
        run = runs.wait(run_id, timeout=20_000)
    assert (run.state, run.reason) == ("done", "")
    week = 7 * 86_400
    assert all(client.ttl(part) <= week for part in keys.record_parts(run_id))


def test_a_paused_run_can_be_cancelled(client: redis.Redis, runs: Runs, steps: Steps) -> None:
    run_id = PLACES[-1](client, steps)
    client.lpush("queue:python", as_bytes(client.lindex("swf:fanout:f", 2)))
    runs.pause(run_id, "a fault")
    assert len(parked(client, run_id)) == 2
    client.hset(keys.disarmed(run_id), "barrier", "job")
    run = runs.cancel(run_id, "no need")
    assert (run.state, run.reason) == ("cancelled", "no need")
    assert not left_of(client, run_id)
    assert not client.exists(keys.parked(run_id), keys.disarmed(run_id), "swf:fanout:f")
    assert runs.resume(run_id).state == "cancelled"


@pytest.mark.parametrize("place", [PLACES[0], PLACES[-1]], ids=lambda place: place.__name__)
def test_a_worker_keeps_what_parked_jobs_need(
    broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps, place: Callable[..., str]
) -> None:
    """Such as a stored chain, which the script that parked them could not name."""
    runs.pause(place(client, steps))
    (barrier,) = (name for name in texts(client.keys("*_ran")) if client.get(name) == b"-1")
    client.expire(barrier, 100)
    client.set("swf:upkeep:paused", 1, ex=100)
    extend = partial(ttl.extend_dead, engine_of(broker))
    PausedUpkeep(broker.connection, extend).look()
    assert client.ttl(barrier) <= 100
    client.delete("swf:upkeep:paused")
    for duty in broker.process.heartbeat.upkeep.duties:
        duty()
    assert client.ttl(barrier) > HALF_A_YEAR


# -- resume ----------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from dramatiq_sidekiq_flow import Runs, SidekiqBroker, WorkflowMiddleware
from dramatiq_sidekiq_flow.store import run_pause
broker = SidekiqBroker(url=sys.argv[1])
broker.add_middleware(WorkflowMiddleware())
run_pause.AT_ONCE = 2
runs = Runs(broker)
call, calls = runs._connection.call, []
def killed(*command):
    reply = call(*command)
    calls.append(command)
    if len(calls) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return reply
runs._connection.call = killed
runs.resume(sys.argv[2])
"""


@pytest.mark.parametrize("calls", [1, 3])
def test_a_resume_that_is_killed_is_finished_by_another(
    redis_url: str, client: redis.Redis, runs: Runs, steps: Steps, calls: int
) -> None:
    run_id = Workflow(Group(*(steps.notes.message(f"{n}") for n in range(5)))).run()
    before = raws(client.lrange("queue:python", 0, -1))
    runs.pause(run_id)
    done = subprocess.run([sys.executable, "-c", KILLED, redis_url, run_id, str(calls)], check=False)
    assert done.returncode == -signal.SIGKILL
    run = runs.get(run_id)
    assert run.state == ("waiting" if calls == 1 else "running")
    assert [step.state for step in run.steps].count("parked") == 5 - 2 * (calls - 1)
    # Each job is in one place.
    assert len(left_of(client, run_id)) == 5
    assert runs.resume(run_id).state == "running"
    assert raws(client.lrange("queue:python", 0, -1)) == before
    assert runs.resume(run_id).state == "running"
    assert raws(client.lrange("queue:python", 0, -1)) == before


# -- retry -----------------------------------------------------------------------------


def dead(broker: SidekiqBroker, client: redis.Redis, steps: Steps, count: int = 2) -> str:
    """A run whose first steps are dead."""
    group = Group(*(steps.fails.message(f"{n}") for n in range(count)))
    run_id = Workflow(Chain(group, steps.notes.message("x"))).run()
    steps.go.set()
    with working(broker):
        eventually(lambda: client.zcard("dead") == count and not in_flight(client))
    return run_id


def test_dead_steps_go_back_to_their_queues(
    broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps
) -> None:
    run_id = dead(broker, client, steps)
    other = start(steps.notes.message("other"))
    before = {job["jid"]: job for job in members(client, "dead")}
    assert runs.get(run_id).state == "failed"
    assert runs.retry(run_id).state == "running"
    assert not client.exists("dead")
    after = {job["jid"]: job for job in members(client, "python") if job["workflow_run_id"] == run_id}
    assert after.keys() == before.keys()
    for jid, job in after.items():
        # As Sidekiq's Web UI pushes it.
        assert job["retry_count"] == before[jid]["retry_count"] - 1
        assert job["enqueued_at"] > before[jid]["enqueued_at"]
        changed = {name for name in job if job[name] != before[jid].get(name)}
        assert changed == {"retry_count", "enqueued_at"}
    assert [found.id for found in runs.list(state="running")] == [other, run_id]
    assert client.hlen(keys.failed_steps(run_id)) == 0
    assert runs.retry(run_id).state == "running"


def test_dead_steps_of_a_paused_run_are_parked(
    broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps
) -> None:
    run_id = dead(broker, client, steps)
    assert runs.pause(run_id).state == "paused"
    assert client.zcard("dead") == 2
    assert runs.retry(run_id).state == "paused"
    assert not client.exists("dead", "queue:python")
    assert len(parked(client, run_id)) == 2
    assert runs.resume(run_id).state == "running"
    assert len(members(client, "python")) == 2


def test_a_run_with_dead_steps_is_failed_again_after_the_pause(
    broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps
) -> None:
    run_id = dead(broker, client, steps)
    runs.pause(run_id)
    runs.resume(run_id)
    assert client.hget(keys.record(run_id), "state") == b"failed"
    assert runs.get(run_id).state == "failed"


def test_nothing_of_a_cancelled_run_is_retried(
    broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps
) -> None:
    run_id = dead(broker, client, steps)
    runs.cancel(run_id)
    assert runs.retry(run_id).state == "cancelled"
    assert client.zcard("dead") == 2


# -- by a filter -----------------------------------------------------------------------


def test_runs_of_a_tag(broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps) -> None:
    ids = {Workflow(steps.notes.message(str(n)), tags=["nightly"]).run() for n in range(3)}
    other = start(steps.notes.message("other"))
    assert set(runs.pause(tag="nightly", reason="all")) == ids
    assert {run.id for run in runs.list(state="paused")} == ids
    assert runs.get(other).state == "running"
    assert len(members(client, "python")) == 1
    assert runs.pause(tag="nightly") == []
    assert set(runs.resume(tag="nightly")) == ids
    assert runs.resume(tag="nightly") == runs.retry(tag="nightly") == []
    assert len(members(client, "python")) == 4


def test_neither_an_id_nor_a_filter(runs: Runs) -> None:
    for verb in (runs.pause, runs.resume, runs.retry):
        with pytest.raises(InvalidFilter):
            verb()
        with pytest.raises(InvalidFilter):
            verb("01234567-0000-0000-0000-000000000000", tag="x")  # type: ignore[call-overload]
        with pytest.raises(InvalidFilter, match="not 'done'"):
            verb(state="done")
    with pytest.raises(InvalidFilter, match="mode must be one of"):
        runs.retry("01234567-0000-0000-0000-000000000000", mode="some")


def test_in_a_coroutine(runs: Runs, steps: Steps) -> None:
    run_id = start(steps.notes.message("a"))
    assert asyncio.run(runs.pause_async(run_id, "a fault")).reason == "a fault"
    assert asyncio.run(runs.resume_async(state="paused")) == [run_id]
    assert asyncio.run(runs.retry_async(run_id)).state == "running"


# -- the scripts -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["advance_paused", "step_paused", "count_paused", "release_paused"])
def test_the_next_steps_are_parked(connection: Connection, client: redis.Redis, name: str) -> None:
    """The barrier of the chain is disarmed, and counts as armed."""
    operation = operations.NAMED[name]
    operation.prepare(client)
    reply = operation.call(connection)
    assert reply == ([b"FIRE"] if name == "count_paused" else [b"DONE"])
    entries = raws(client.lrange(operations.PARKED, 0, -1))
    assert entries == ([b"qpython\0next"] if name == "step_paused" else [b"qnext\0job", b"s2000000000.0\0later"])
    assert client.hget(operations.RECORD, "state") == b"paused"
    assert client.hget(f"{operations.RECORD}:times", "7") == b"1.000 2.000 0 me"
    assert client.zcard("schedule") == 2
    assert not client.exists("queue:next")
    assert client.hget(operations.MINE, "b:1") is None
    assert client.ttl(operations.NEW) > HALF_A_YEAR - 4000
    if name != "release_paused":
        assert client.mget(operations.CHAIN, f"{operations.CHAIN}_ran") == [b"0", b"0"]
    if name in ("advance_paused", "count_paused"):
        # The resume must not arm it again.
        assert not client.hexists(operations.DISARMED, operations.CHAIN)


def test_members_of_a_group_with_a_disarmed_barrier_are_counted(connection: Connection, client: redis.Redis) -> None:
    operation = operations.NAMED["group_paused"]
    operation.prepare(client)
    assert operation.call(connection) == [b"DONE"]
    assert client.get(operations.INNER) == b"1"
    assert client.hexists(operations.DISARMED, operations.INNER)
    assert client.ttl("swf:mem:run") > HALF_A_YEAR - 4000


def test_the_record_lives_as_long_as_parked_jobs(connection: Connection, client: redis.Redis) -> None:
    """Also if no job of the run is found."""
    operations.NAMED["pause"].prepare(client)
    operations.NAMED["pause"].call(connection)
    for key in (operations.RECORD, "swf:flows:paused"):
        assert HALF_A_YEAR - 60 < client.ttl(key) <= HALF_A_YEAR


@pytest.mark.parametrize("state", ["paused", "running", "cancelled"])
def test_a_job_in_flight_is_parked_only_during_the_pause(
    connection: Connection, client: redis.Redis, state: str
) -> None:
    operations.NAMED["park"].prepare(client)
    client.delete("queue:python")
    client.rpush("queue:python", "other")
    client.hset(operations.RECORD, "state", state)
    operations.NAMED["park"].call(connection)
    assert not client.hexists(operations.MINE, "a:1")
    expected = [b"other", b"job"] if state == "running" else [b"other"]
    assert raws(client.lrange("queue:python", 0, -1)) == expected
    assert raws(client.lrange(operations.PARKED, 0, -1)) == ([b"qpython\0job"] if state == "paused" else [])


@pytest.mark.parametrize("name", ["park_jobs", "park_scheduled", "park_fanout", "hold_barriers"])
def test_nothing_is_parked_after_the_resume(connection: Connection, client: redis.Redis, name: str) -> None:
    operations.NAMED[name].prepare(client)
    client.hset(operations.RECORD, "state", "running")
    assert operations.NAMED[name].call(connection) == 0
    assert not client.exists(operations.PARKED)
    assert client.get(f"{operations.INNER}_ran") == b"-1"


@pytest.mark.parametrize("name", ["unpark", "rearm"])
def test_nothing_goes_on_during_the_pause(connection: Connection, client: redis.Redis, name: str) -> None:
    """Such as by a resume that was slow, after the next pause."""
    operations.NAMED[name].prepare(client)
    client.hset(operations.RECORD, "state", "paused")
    assert operations.NAMED[name].call(connection) == [b"DONE"]
    assert client.llen(operations.PARKED) == 4
    assert client.hlen(operations.DISARMED) == 2
    assert not client.exists("queue:next")


@pytest.mark.parametrize(
    ("value", "marker", "after", "fires"),
    [
        (2, 0, [b"2", b"-1"], False),
        (0, 1, [b"1", b"-1"], True),
        (-1, 2, [b"1", b"-1"], True),
        (0, 0, [b"0", b"-1"], False),
    ],
    ids=["waits", "released", "released-twice", "between"],
)
def test_a_disarmed_barrier_is_armed_again(
    connection: Connection, client: redis.Redis, value: int, marker: int, after: list[bytes], fires: bool
) -> None:
    """It waits; the gem has released it; the gem is between its two commands, and then starts the next steps."""
    operations.paused(client)
    assert run_pause.hold(connection, operations.RUN, {operations.INNER: b"next\0fires"}) == 1
    assert client.get(f"{operations.INNER}_ran") == b"0"
    client.set(operations.INNER, value, keepttl=True)
    client.set(f"{operations.INNER}_ran", marker, keepttl=True)
    client.hset(operations.RECORD, "state", "running")
    run_pause.rearm(connection, operations.RUN)
    assert client.mget(operations.INNER, f"{operations.INNER}_ran") == after
    assert raws(client.lrange("queue:next", 0, -1)) == ([b"fires"] if fires else [])
    assert not client.exists(operations.DISARMED)


#: The scripts that write.
WRITING = ("pause", "unpause", "park", "park_jobs", "park_scheduled", "park_fanout", "unpark", "hold_barriers", "rearm")


@pytest.mark.parametrize("name", [*WRITING, "retry_dead", "retry_parked", "group_paused", "advance_paused"])
def test_a_full_redis_takes_it(connection: Connection, client: redis.Redis, name: str) -> None:
    operation = operations.NAMED[name]
    operation.prepare(client)
    client.config_set("maxmemory", 1)
    try:
        reply = operation.call(connection)
    finally:
        client.config_set("maxmemory", 0)
    assert reply in ([b"DONE"], 1, 2)
