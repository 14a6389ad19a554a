"""Cancellation of runs: wherever a job of the run is, nothing new of the run starts."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Group, SidekiqBroker, WithDelay, Workflow, current_run
from dramatiq_sidekiq_flow.errors import InvalidFilter, UnknownRun
from dramatiq_sidekiq_flow.runs import Runs
from dramatiq_sidekiq_flow.store import job_removal, keys, run_cancel, scripts
from dramatiq_sidekiq_flow.store.connection import Connection

from .. import operations
from ..redis_values import as_bytes, raws
from ..running import advance, eventually, in_flight, members, working


class Steps:
    """Actors that note what ran.

    Attributes:
      ran: The arguments of the steps that ran.
      begun, go: A step ``holds`` sets the first one, and waits for the other.
    """

    def __init__(self) -> None:
        self.ran: list[Any] = []
        self.begun, self.go = threading.Event(), threading.Event()
        self.seen_cancelled = threading.Event()

        @dramatiq.actor(queue_name="python")
        def notes(name: str) -> dict[str, str]:
            self.ran.append(name)
            return {name: "ran"}

        @dramatiq.actor(queue_name="python")
        def holds(name: str) -> dict[str, str]:
            self.ran.append(name)
            self.begun.set()
            assert self.go.wait(20)
            return {name: "ran"}

        @dramatiq.actor(queue_name="python", max_retries=3, min_backoff=1, max_backoff=1)
        def fails(name: str) -> None:
            self.ran.append(name)
            self.begun.set()
            assert self.go.wait(20)
            raise ValueError("it fails")

        @dramatiq.actor(queue_name="python")
        def looks(name: str) -> None:
            self.begun.set()
            eventually(current_run().cancelled)
            self.seen_cancelled.set()

        self.notes, self.holds, self.fails, self.looks = notes, holds, fails, looks


@pytest.fixture
def steps(broker: SidekiqBroker) -> Iterator[Steps]:
    steps = Steps()
    yield steps
    steps.go.set()


@pytest.fixture
def runs(broker: SidekiqBroker) -> Runs:
    return Runs(broker)


def start(*nodes: Any) -> str:
    return Workflow(Chain(*nodes)).run()


def left_of(client: redis.Redis, run_id: str) -> list[bytes]:
    """Keys of jobs that hold the id of a run."""
    text = run_id.encode()
    found = []
    for key in raws(client.keys("*")):
        kind, values = client.type(key), []
        if kind == b"list":
            values = raws(client.lrange(key, 0, -1))
        elif key in (b"schedule", b"retry", b"dead"):
            values = raws(client.zrange(key, 0, -1))
        elif key.startswith(b"swf:inflight:"):
            values = raws(client.hvals(key))
        found += [key for value in values if text in value]
    return found


def test_the_record_says_so(client: redis.Redis, runs: Runs, steps: Steps) -> None:
    run_id = start(steps.notes.message("a"), steps.notes.message("b"))
    run = runs.cancel(run_id, "not needed")
    assert (run.state, run.reason, run.at_rest) == ("cancelled", "not needed", True)
    assert run.started_at is not None
    assert run.finished_at is not None
    assert run.finished_at >= run.started_at
    assert [step.state for step in run.steps] == ["cancelled", "cancelled"]
    assert [found.id for found in runs.list(state="cancelled")] == [run_id]
    assert not runs.list(state="running")
    week = timedelta(days=7).total_seconds()
    for part in keys.record_parts(run_id):
        assert client.ttl(part) in (-2, week) or abs(client.ttl(part) - week) < 120


def test_what_is_done_stays_done(broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps) -> None:
    run_id = start(steps.notes.message("a"))
    advance(broker)
    assert runs.cancel(run_id, "too late").state == "done"
    assert not client.exists("swf:cancelled")


def test_a_second_call_changes_nothing(client: redis.Redis, runs: Runs, steps: Steps) -> None:
    run_id = start(steps.notes.message("a"))
    before = runs.cancel(run_id, "first")
    again = runs.cancel(run_id, "second")
    assert (again.reason, again.finished_at) == ("first", before.finished_at)
    assert client.zcard("swf:cancelled") == 1


def test_without_a_record(runs: Runs) -> None:
    with pytest.raises(UnknownRun, match="no record of the run"):
        runs.cancel("01234567-0000-0000-0000-000000000000")


# -- the places of a job ---------------------------------------------------------------


def queued(client: redis.Redis, steps: Steps) -> str:
    return start(steps.notes.message("a"), steps.notes.message("b"))


def scheduled(client: redis.Redis, steps: Steps) -> str:
    return start(WithDelay(steps.notes.message("a"), timedelta(hours=1)))


def in_retry(client: redis.Redis, steps: Steps) -> str:
    run_id = queued(client, steps)
    client.zadd("retry", {as_bytes(client.lpop("queue:python")): 2e9})
    return run_id


def arrived(client: redis.Redis, steps: Steps) -> str:
    run_id = queued(client, steps)
    client.lmove("queue:python", "swf:arrived:python", "LEFT", "LEFT")
    return run_id


def fanned_out(client: redis.Redis, steps: Steps) -> str:
    """Committed, and not poured yet."""
    run_id = queued(client, steps)
    job = as_bytes(client.lpop("queue:python"))
    client.rpush("swf:fanout:f", "b60 1 -1 11111111-0000-0000-0000-000000000000", "qpython", job, b"s2e9 " + job)
    client.zadd("swf:fanouts", {"f": 1})
    return run_id


PLACES = [queued, scheduled, in_retry, arrived, fanned_out]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_jobs_that_wait_are_removed(
    broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps, place: Callable[..., str]
) -> None:
    other = start(steps.notes.message("other"))
    run_id = place(client, steps)
    mention = json.dumps({"class": "notes", "args": [run_id], "jid": "j", "workflow_run_id": other})
    client.lpush("queue:elsewhere", mention)
    client.sadd("queues", "elsewhere")
    assert left_of(client, run_id)
    runs.cancel(run_id)
    assert left_of(client, run_id) == [b"queue:elsewhere"]
    assert client.lrange("queue:elsewhere", 0, -1) == [mention.encode()]
    assert not client.exists("swf:fanouts", "swf:fanout:f", "swf:arrived:python")
    assert [job["workflow_run_id"] for job in members(client, "python")] == [other]
    assert runs.get(other).state == "running"


def test_what_runs_ends_and_nothing_follows(
    broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps
) -> None:
    run_id = start(steps.holds.message("a"), steps.notes.message("b"))
    with working(broker):
        assert steps.begun.wait(20)
        runs.cancel(run_id)
        assert len(in_flight(client)) == 1
        steps.go.set()
        eventually(lambda: not in_flight(client))
    run = runs.get(run_id)
    assert [step.state for step in run.steps] == ["done", "cancelled"]
    assert run.memory == {"a": "ran"}
    assert steps.ran == ["a"]
    assert not left_of(client, run_id)


@pytest.mark.parametrize("members_of_group", [2, 3])
def test_the_members_of_a_group_end(
    broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps, members_of_group: int
) -> None:
    """The last one would fire the continuation, whose plan is not asked for."""
    group = Group(*(steps.notes.message(f"m{n}") for n in range(members_of_group)))
    run_id = start(group, steps.notes.message("after"))
    consumer = broker.consume("python", prefetch=members_of_group, timeout=2000)
    taken = [next(consumer) for _ in range(members_of_group)]
    runs.cancel(run_id)
    for message in taken:
        consumer.ack(message)
    broker.process.commit.flush()
    assert not in_flight(client)
    assert not left_of(client, run_id)
    assert [step.state for step in runs.get(run_id).steps] == ["done"] * members_of_group + ["cancelled"]


def test_what_is_prefetched_does_not_run(
    broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps, caplog: pytest.LogCaptureFixture
) -> None:
    """One thread holds a job, and has fetched others of the run that is cancelled meanwhile."""
    Workflow(steps.holds.message("holder")).run()
    run_id = Workflow(Group(*(steps.notes.message(n) for n in "abc"))).run()
    with caplog.at_level(logging.INFO), working(broker, threads=1):
        assert steps.begun.wait(20)
        eventually(lambda: len(in_flight(client)) > 1)
        runs.cancel(run_id)
        # A worker knows it half a second later at the latest.
        broker.process.cancelled_runs._looked = float("-inf")
        steps.go.set()
        eventually(lambda: not in_flight(client))
        broker.process.presence.beat()
    assert steps.ran == ["holder"]
    assert len([record for record in caplog.records if run_id in record.message]) == 1
    assert client.get("stat:processed") == b"1"
    assert not client.exists("dead", "retry")
    assert {step.state for step in runs.get(run_id).steps} == {"cancelled"}


def test_a_step_that_fails_is_not_retried(broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps) -> None:
    run_id = start(steps.fails.message("a"), steps.notes.message("b"))
    with working(broker):
        assert steps.begun.wait(20)
        runs.cancel(run_id)
        steps.go.set()
        eventually(lambda: not in_flight(client))
    assert not client.exists("retry", "dead")
    assert steps.ran == ["a"]


def test_a_step_retried_out_of_dead_does_not_run(
    broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps
) -> None:
    run_id = start(steps.notes.message("a"), steps.notes.message("b"))
    job = json.loads(as_bytes(client.rpop("queue:python"))) | {"retry_count": 0, "error_class": "E", "failed_at": 1.0}
    client.zadd("dead", {json.dumps(job): 1})
    runs.cancel(run_id)
    assert client.zcard("dead") == 1
    # As the Web UI retries it, long after: the list of cancelled runs has forgotten it.
    client.delete("dead", "swf:cancelled")
    client.lpush("queue:python", json.dumps(job))
    with working(broker):
        eventually(lambda: not client.llen("queue:python") and not in_flight(client))
    assert not steps.ran
    assert not left_of(client, run_id)


def test_a_later_run_of_the_same_id_runs(broker: SidekiqBroker, client: redis.Redis, runs: Runs, steps: Steps) -> None:
    """Such as one of the next day, when the marker of the first has expired."""
    Workflow(steps.notes.message("before")).run("daily")
    runs.cancel("daily")
    assert broker.process.cancelled_runs.knows("daily")
    client.delete("swf:run:daily")
    Workflow(steps.notes.message("again")).run("daily")
    with working(broker):
        assert runs.wait("daily", timeout=20_000).state == "done"
    assert steps.ran == ["again"]
    assert not broker.process.cancelled_runs.knows("daily")
    # And it can be cancelled, too.
    client.delete("swf:run:daily")
    Workflow(steps.notes.message("third")).run("daily")
    runs.cancel("daily")
    broker.process.cancelled_runs._looked = float("-inf")
    assert broker.process.cancelled_runs.knows("daily")


def test_a_long_step_is_told(broker: SidekiqBroker, runs: Runs, steps: Steps) -> None:
    run_id = start(steps.looks.message("a"))
    with working(broker):
        assert steps.begun.wait(20)
        assert not steps.seen_cancelled.is_set()
        runs.cancel(run_id)
        assert steps.seen_cancelled.wait(20)


# -- by a filter -----------------------------------------------------------------------


def test_runs_of_a_tag(client: redis.Redis, runs: Runs, steps: Steps) -> None:
    ids = {Workflow(steps.notes.message(str(n)), tags=["nightly"]).run() for n in range(3)}
    other = start(steps.notes.message("other"))
    assert set(runs.cancel(tag="nightly", reason="all")) == ids
    assert {run.id for run in runs.list(state="cancelled")} == ids
    assert runs.get(other).state == "running"
    assert len(members(client, "python")) == 1
    assert runs.cancel(tag="nightly") == []


def test_neither_an_id_nor_a_filter(runs: Runs) -> None:
    with pytest.raises(InvalidFilter):
        runs.cancel()
    with pytest.raises(InvalidFilter):
        runs.cancel("01234567-0000-0000-0000-000000000000", tag="x")  # type: ignore[call-overload]
    with pytest.raises(InvalidFilter, match="not 'done'"):
        runs.cancel(state="done")


def test_in_a_coroutine(runs: Runs, steps: Steps) -> None:
    run_id = start(steps.notes.message("a"))
    assert asyncio.run(runs.cancel_async(run_id, "no need")).reason == "no need"
    assert asyncio.run(runs.cancel_async(state="running")) == []


# -- the scripts -----------------------------------------------------------------------


BARRIERS = [key for name in (operations.INNER, operations.OUTER, operations.CHAIN) for key in (name, f"{name}_ran")]


@pytest.mark.parametrize("barriers", ["armed", "gone"])
@pytest.mark.parametrize("name", ["advance_cancelled", "step_cancelled", "count_cancelled", "release_cancelled"])
def test_the_last_step_writes_its_output_and_its_mark(
    connection: Connection, client: redis.Redis, name: str, barriers: str
) -> None:
    operation = operations.NAMED[name]
    operation.prepare(client)
    if barriers == "gone":
        client.delete(*BARRIERS)
    assert operation.call(connection) == [b"CANCELLED"]
    assert client.hget(operations.RECORD, "state") == b"cancelled"
    assert client.hget(f"{operations.RECORD}:times", "7") == b"1.000 2.000 0 me"
    assert client.hexists(operations.MINE, "a:1") == (name == "count_cancelled")
    if name != "step_cancelled":
        assert client.hgetall("swf:mem:run") == {b"field": b"1"}
        assert 0 < client.ttl("swf:mem:run") <= operations.DAY
    assert not client.exists("queue:next", "queue:python", "schedule", operations.NEW)
    assert client.mget(BARRIERS) == ([None] * 6 if barriers == "gone" else [b"1", b"-1"] * 3)
    assert not client.hexists(operations.MINE, "b:1")


def test_the_last_members_of_a_group(connection: Connection, client: redis.Redis) -> None:
    operation = operations.NAMED["group_cancelled"]
    operation.prepare(client)
    client.delete(*BARRIERS)
    assert operation.call(connection) == [b"DONE"]
    assert not client.exists(operations.MINE, operations.INNER, f"{operations.INNER}:u")
    assert client.hgetall("swf:mem:run") == {b"field": b"1"}
    assert 0 < client.ttl("swf:mem:run") <= operations.DAY


def test_a_failure_is_not_retried(connection: Connection, client: redis.Redis) -> None:
    operations.NAMED["fail_cancelled"].prepare(client)
    operations.NAMED["fail_cancelled"].call(connection)
    assert not client.hexists(operations.MINE, "a:1")
    assert not client.exists("retry", "dead")


def test_a_second_call_of_the_last_step_gives_the_job_that_the_first_one_kept(
    connection: Connection, client: redis.Redis
) -> None:
    """The run was cancelled in between: the worker has to know of the job, which it does not run."""
    operations.NAMED["advance_kept"].prepare(client)
    assert operations.NAMED["advance_kept"].call(connection) == [b"KEPT"]
    client.hset(operations.RECORD, "state", "cancelled")
    assert operations.NAMED["step_cancelled"].call(connection) == [b"KEPT", b"next"]


@pytest.mark.parametrize("name", ["cancel", "drop_jobs", "drop_scheduled", "drop_fanout", "disarm", "group_cancelled"])
def test_a_full_redis_takes_it(connection: Connection, client: redis.Redis, name: str) -> None:
    operation = operations.NAMED[name]
    operation.prepare(client)
    client.config_set("maxmemory", 1)
    try:
        reply = operation.call(connection)
    finally:
        client.config_set("maxmemory", 0)
    assert reply in ([b"DONE"], 1, 2)


def test_each_cancellation_comes_after_those_before(connection: Connection, client: redis.Redis) -> None:
    """A worker reads those behind the last one that it knows, also if the clock was set back."""
    client.zadd("swf:cancelled", {"before": 9e9})
    known = run_cancel.since(connection, "")
    operations.NAMED["cancel"].prepare(client)
    operations.NAMED["cancel"].call(connection)
    ((run_id, _),) = run_cancel.since(connection, known[-1][1])
    assert run_id == operations.RUN
    assert 0 < client.ttl("swf:cancelled") <= run_cancel.KEPT


def test_the_list_of_cancelled_runs_is_trimmed(connection: Connection, client: redis.Redis) -> None:
    client.zadd("swf:cancelled", {"long-ago": 1.0, **{f"run-{n}": 1e9 * 2 + n for n in range(run_cancel.MOST)}})
    operations.NAMED["cancel"].prepare(client)
    operations.NAMED["cancel"].call(connection)
    assert client.zcard("swf:cancelled") == run_cancel.MOST
    assert client.zscore("swf:cancelled", "long-ago") is client.zscore("swf:cancelled", "run-0") is None
    assert client.zrange("swf:cancelled", -1, -1) == [operations.RUN.encode()]


def test_a_run_that_was_cancelled_long_ago_leaves_the_list(connection: Connection, client: redis.Redis) -> None:
    client.zadd("swf:cancelled", {"long-ago": 1.0})
    operations.NAMED["cancel"].prepare(client)
    operations.NAMED["cancel"].call(connection)
    assert client.zrange("swf:cancelled", 0, -1) == [operations.RUN.encode()]


def test_disarmed_barriers_release_nothing(connection: Connection, client: redis.Redis) -> None:
    operations.barriers(client, operations.INNER)
    client.set(f"{operations.OUTER}_ran", 0, ex=50)
    assert run_cancel.disarm(connection, [operations.INNER, operations.OUTER, operations.NEW]) == 1
    assert client.get(f"{operations.INNER}_ran") == b"0"
    # As the gem counts.
    assert client.decr(operations.INNER) == 0
    assert client.incr(f"{operations.INNER}_ran") == 1
    assert not client.exists(f"{operations.NEW}_ran")
    assert client.ttl(f"{operations.INNER}_ran") > operations.DAY


# -- many jobs -------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["queue:python", "schedule"])
@pytest.mark.parametrize("share", [2, 50])
def test_jobs_among_many_others(client: redis.Redis, runs: Runs, steps: Steps, place: str, share: int) -> None:
    """Each second one, or one in 50, in a place of several parts; some are the same bytes."""
    run_id = start(steps.notes.message("a"))
    ours = as_bytes(client.rpop("queue:python"))
    jobs = [ours if n % share == 0 else b'{"n":%d}' % n for n in range(4_000)]
    if place == "schedule":
        jobs = [job if job != ours else ours[:-1] + b',"n":%d}' % n for n, job in enumerate(jobs)]
        client.zadd(place, {job: n + 1 for n, job in enumerate(jobs)})
    else:
        client.rpush(place, *jobs)
    runs.cancel(run_id)
    others = [job for job in jobs if not job.startswith(ours[:-1])]
    assert raws(client.zrange(place, 0, -1) if place == "schedule" else client.lrange(place, 0, -1)) == others


@pytest.mark.parametrize("place", ["queue:python", "retry"])
def test_one_look_removes_all(connection: Connection, client: redis.Redis, place: str) -> None:
    """Those behind the part that was read move forward when jobs of that are removed."""
    jobs = [b'{"run":"of-a-run","n":%d}' % n for n in range(2_500)]
    if place == "retry":
        client.zadd(place, {job: n + 1 for n, job in enumerate(jobs)})
    else:
        client.sadd("queues", "python")
        client.rpush(place, *jobs)
    cleared = job_removal.clear(connection, "of-a-run", lambda job: True, job_removal.Removal(connection))
    assert (cleared.waiting, len(cleared.jobs)) == (2_500, 2_500)
    assert not client.exists(place)


def test_no_more_jobs_are_removed_than_were_found(connection: Connection, client: redis.Redis) -> None:
    """Equal bytes are two jobs."""
    client.rpush("queue:python", "a", "b", "c", "b", "d")
    assert operations.NAMED["drop_jobs"].call(connection) == 2
    assert client.lrange("queue:python", 0, -1) == [b"a", b"c", b"b"]


def test_jobs_that_are_pushed_meanwhile_hide_none(connection: Connection, client: redis.Redis) -> None:
    """They were found at some index, and jobs that were pushed since have moved them."""
    client.rpush("queue:python", *(b"new-%d" % n for n in range(700)), b"a", b"x", b"b", b"y")
    command = scripts.DROP_JOBS.command(("queue:python",), (1, 1000, "mark", b"a", b"b"))
    assert connection.call(*command) == 2
    assert client.lrange("queue:python", -3, -1) == [b"new-699", b"x", b"y"]
