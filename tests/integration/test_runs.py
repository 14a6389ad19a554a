"""Runs as they are read: where each step is, the state that follows, lists, and waiting."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.stub import StubBroker

from dramatiq_sidekiq_flow import Chain, Group, Job, RedisHashMemory, Runs, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.errors import ConfigurationError, InvalidFilter, RunTimeout, UnknownRun, WrongType
from dramatiq_sidekiq_flow.runs import run_reader
from dramatiq_sidekiq_flow.runs.run_reader import RunReader
from dramatiq_sidekiq_flow.store.connection import Connection
from dramatiq_sidekiq_flow.store.run_stats import run_stats
from dramatiq_sidekiq_flow.store.scripts import Command
from dramatiq_sidekiq_flow.wire.nodes import Wire

from ..recorded_runs import IDENTITY, RecordedRun, chain, delayed, group, job, ruby_process

START = 1_800_000_000.0


def at(seconds: float) -> datetime:
    """A time after the start of the run."""
    return datetime.fromtimestamp(START + seconds, timezone.utc)


def thumb() -> Wire:
    return job("Docs::Thumb", queue="ruby")


@pytest.fixture
def runs(broker: SidekiqBroker) -> Runs:
    return Runs(broker)


@pytest.fixture
def pair(client: redis.Redis) -> RecordedRun:
    """A run of two steps, one after the other."""
    return RecordedRun(client, "pair", chain(job("first"), job("second")), started=START)


# -- where a step is ------------------------------------------------------------------


def test_a_step_that_is_done(runs: Runs, pair: RecordedRun) -> None:
    pair.done(1, seconds=2.5, failed=1)
    pair.queued(2)
    run = runs.get("pair")
    first = run.steps[0]
    assert (first.number, first.path, first.name, first.queue) == (1, "1", "first", "python")
    assert (first.state, first.attempts, first.worker, first.inferred) == ("done", 2, IDENTITY, False)
    assert (first.started_at, first.ended_at) == (at(0), at(2.5))
    assert (run.state, run.started_at, run.finished_at, run.inferred) == ("running", at(0), None, False)
    assert (run.progress.total, run.progress.done, run.progress.waiting) == (2, 1, 1)


def test_the_place_of_each_job_is_found(client: redis.Redis, runs: Runs) -> None:
    names = ["queued", "arrived", "in_flight", "ahead", "suspect", "scheduled", "retry", "dead", "staged"]
    run = RecordedRun(client, "places", group(*map(job, names)), started=START)
    run.queued(1)
    run.arrived(2)
    run.in_flight(3, "1f:0")
    run.in_flight(4, "1f:1?")
    run.in_flight(5, "1f:2!")
    run.scheduled(6, START + 60)
    run.in_retry(7, START + 70)
    run.dead(8, START + 5)
    run.staged(9)
    found = runs.get("places")
    assert [step.state for step in found.steps] == [
        "queued", "queued", "running", "queued", "queued", "scheduled", "retry", "dead", "queued",
    ]  # fmt: skip
    assert [step.jid for step in found.steps] == [run.jid(number) for number in range(1, 10)]
    assert [step.attempts for step in found.steps] == [0, 0, 1, 0, 0, 0, 1, 3, 0]
    assert (found.steps[2].worker, found.steps[0].worker) == (IDENTITY, "")
    assert (found.steps[5].due_at, found.steps[6].due_at) == (at(60), at(70))
    assert found.steps[6].error == "IOError: no disk"
    assert (found.steps[7].ended_at, found.steps[7].error) == (at(5), "RuntimeError: gave up")
    assert found.failures == (found.steps[7],)
    assert (found.progress.running, found.progress.waiting, found.progress.failed) == (1, 7, 1)


def test_the_start_of_a_running_step_is_that_of_its_thread(client: redis.Redis, runs: Runs, pair: RecordedRun) -> None:
    pair.in_flight(1)
    pair.worked_on(1, START + 3, IDENTITY)
    step = runs.get("pair").steps[0]
    assert (step.state, step.worker, step.started_at) == ("running", IDENTITY, at(3))


def test_a_ruby_thread_runs_a_step(client: redis.Redis, runs: Runs) -> None:
    run = RecordedRun(client, "ruby", thumb(), started=START)
    run.worked_on(1, START + 4)
    step = runs.get("ruby").steps[0]
    assert (step.state, step.worker, step.started_at) == ("running", "ruby:2:def", at(4))


def test_a_fan_out_that_is_not_committed_is_not_looked_at(client: redis.Redis, runs: Runs, pair: RecordedRun) -> None:
    pair.staged(1, committed=False)
    assert runs.get("pair").steps[0].state == "lost"


def test_jobs_of_other_runs_that_name_this_one_are_left_out(client: redis.Redis, runs: Runs, pair: RecordedRun) -> None:
    other = RecordedRun(client, "other", job("tell", "pair"))
    other.queued(1)
    client.lpush("queue:python", b'not JSON, but "pair"')
    client.lpush("queue:python", b'{"workflow_run_id": ["pair"], "class": ["pair"]}')
    assert [step.state for step in runs.get("pair").steps] == ["lost", "pending"]


def test_a_run_id_is_found_as_json_writes_it(client: redis.Redis, runs: Runs) -> None:
    # json.dumps of the tests would write \u00e9, which no program of a run does.
    for run_id in ("1", 'with "quotes"', "back\\slash", "a:b*c[d]", "%s.+-"):
        RecordedRun(client, run_id, job("a")).queued(1)
        assert runs.get(run_id).steps[0].state == "queued", run_id


def test_a_short_run_id_is_not_found_in_each_payload(client: redis.Redis, runs: Runs) -> None:
    RecordedRun(client, "n", job("a"))
    client.sadd("queues", "python")
    client.lpush("queue:python", *(b'{"class":"Newsletter.run","args":["in"]}' for _ in range(300)))
    client.config_resetstat()
    assert runs.get("n").state == "stuck"
    assert client.info("stats")["total_net_output_bytes"] < 10_000


def test_a_job_is_found_among_many(client: redis.Redis, runs: Runs) -> None:
    run = RecordedRun(client, "many", group(*(job("member", number) for number in range(3000))))
    other = [b'{"class":"other","args":[]}'] * 700
    for number in range(1, 3001, 2):
        client.lpush("queue:python", run.payload(number), *(other[:1]))
    client.lpush("queue:python", *other)
    client.sadd("queues", "python")
    client.zadd("schedule", {run.payload(number): START + number for number in range(2, 3001, 2)})
    found = runs.get("many")
    assert (found.state, found.progress.waiting, len(found.steps)) == ("running", 3000, 3000)
    assert found.steps[1].due_at == at(2)
    assert found.steps[-1].path == "3000"
    assert [step.number for step in found.steps[10:13]] == [11, 12, 13]


def test_many_jobs_in_flight_are_found(client: redis.Redis, runs: Runs) -> None:
    run = RecordedRun(client, "many", group(*(job("member", number) for number in range(2500))))
    client.zadd("swf:workers", {f"{IDENTITY}:python": START})
    fields: dict[Any, Any] = {f"1f:{number}?": run.payload(number) for number in range(1, 2501)}
    client.hset(f"swf:inflight:{IDENTITY}:python", mapping=fields)
    found = runs.get("many")
    assert (found.progress.waiting, {step.worker for step in found.steps}) == (2500, {IDENTITY})


def test_large_payloads_are_searched_in_small_parts(client: redis.Redis, runs: Runs, pair: RecordedRun) -> None:
    client.sadd("queues", "python")
    for _ in range(300):
        client.lpush("queue:python", b'{"class":"large","args":["' + b"x" * 50_000 + b'"]}')
    client.rpush("queue:python", pair.payload(1))
    client.config_resetstat()
    assert runs.get("pair").steps[0].state == "queued"
    # 300 payloads of 50 kB: a call ends behind 256 kB, when it has read what it reads at once.
    assert client.info("commandstats")["cmdstat_evalsha_ro"]["calls"] >= 300 // 11


def test_the_rest_of_a_short_queue_of_large_payloads_is_searched(
    client: redis.Redis, runs: Runs, pair: RecordedRun
) -> None:
    client.sadd("queues", "python")
    client.lpush("queue:python", *(b'{"args":["' + b"x" * 50_000 + b'"]}' for _ in range(40)))
    client.rpush("queue:python", pair.payload(1))
    assert runs.get("pair").steps[0].state == "queued"


class Moving(Connection):
    """Does something once, when the places to search were listed."""

    def __init__(self, client: redis.Redis, then: Callable[[], None]) -> None:
        super().__init__(client)
        self.then: Callable[[], None] | None = then
        self.searches = 0

    def send(self, commands: Sequence[Command]) -> list[Any]:
        replies = super().send(commands)
        self.searches += commands[0] == ("SMEMBERS", "queues")
        if self.then is not None and commands[0] == ("SMEMBERS", "queues"):
            then, self.then = self.then, None
            then()
        return replies


class Calling(Moving):
    """Does something before each search of places."""

    def __init__(self, client: redis.Redis, before: Callable[[int], None]) -> None:
        super().__init__(client, lambda: None)
        self.before = before
        self.calls = 0

    def send(self, commands: Sequence[Command]) -> list[Any]:
        if commands[0][0] == "EVALSHA_RO":
            self.calls += 1
            self.before(self.calls)
        return super().send(commands)


def reader_on(connection: Connection) -> RunReader:
    return RunReader(connection, lambda run_id: {}, frozenset)


def test_a_job_that_moves_during_the_search_is_found(client: redis.Redis, pair: RecordedRun) -> None:
    """Into a queue that was not known when the places were listed."""
    pair.scheduled(1, START)

    def move() -> None:
        client.delete("schedule")
        pair.queued(1, "new")

    run = reader_on(Moving(client, move)).get("pair")
    assert (run.state, run.steps[0].state) == ("running", "queued")


def test_a_step_that_ends_during_the_search_is_done(client: redis.Redis) -> None:
    run = RecordedRun(client, "run", group(job("a"), job("b")))
    run.in_flight(1)
    run.queued(2)

    def end() -> None:
        client.delete(f"swf:inflight:{IDENTITY}:python")
        run.done(1)

    moving = Moving(client, end)
    assert [step.state for step in reader_on(moving).get("run").steps] == ["done", "queued"]
    assert moving.searches == 1


def test_a_job_that_leaves_a_large_queue_is_found_in_flight(client: redis.Redis) -> None:
    run = RecordedRun(client, "run", group(job("a"), job("b")))
    run.scheduled(1, START)
    run.queued(2)
    client.lpush("queue:python", *([b"{}"] * 2000))
    client.zadd("swf:workers", {f"{IDENTITY}:python": START})
    found = iter(range(10))

    def fetch(calls: int) -> None:
        # The schedule is searched first, and then the queue in parts.
        if calls == 3 and next(found) == 0:
            client.lrem("queue:python", -1, run.payload(2).decode())
            run.in_flight(2)

    calling = Calling(client, fetch)
    assert [step.state for step in reader_on(calling).get("run").steps] == ["scheduled", "running"]
    assert calling.searches == 1


def test_a_step_that_was_not_found_is_looked_for_again(client: redis.Redis) -> None:
    run = RecordedRun(client, "run", group(job("a"), job("b")))
    run.queued(1)
    run.scheduled(2, START)

    def move() -> None:
        client.delete("schedule")
        run.queued(2, "new")

    assert [step.state for step in reader_on(Moving(client, move)).get("run").steps] == ["queued", "queued"]


def test_many_steps_that_are_done_have_a_bit_each(client: redis.Redis, runs: Runs) -> None:
    run = RecordedRun(client, "large", group(*(job("member", number) for number in range(10_000))))
    for number in (1, 999, 1000, 1007, 1008, 10_000):
        run.done(number)
    run.queued(2)
    found = runs.get("large")
    assert [step.number for step in found.steps if step.state == "done"] == [1, 999, 1000, 1007, 1008, 10_000]
    assert found.progress.done == 6


def test_a_key_of_another_type_is_named(client: redis.Redis, runs: Runs, pair: RecordedRun) -> None:
    client.delete("swf:flow:pair:times")
    client.set("swf:flow:pair:times", 1)
    with pytest.raises(WrongType, match="swf:flow:pair:times"):
        runs.get("pair")


def test_places_of_another_type_are_left_out(client: redis.Redis, runs: Runs, pair: RecordedRun) -> None:
    client.sadd("queues", "odd")
    client.set("queue:odd", "pair")
    client.set("schedule", "pair")
    client.sadd("processes", "odd")
    client.set("odd:work", "pair")
    pair.queued(1)
    assert runs.get("pair").state == "running"


def test_a_place_that_may_not_be_read_is_an_error(redis_url: str, client: redis.Redis, pair: RecordedRun) -> None:
    """A step there would be shown as lost."""
    pair.queued(1)
    but_queues = ("%R~queues", "%R~swf:*", "%R~processes", "%R~schedule", "%R~dead", "%R~retry")
    client.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">p", "+@all", *but_queues)
    restricted = redis.Redis.from_url(redis_url.replace("redis://", "redis://reader:p@"))
    try:
        with pytest.raises(redis.ConnectionError, match="NOPERM"):
            reader_on(Connection(restricted)).get("pair")
        but_retry = ("~queue*", "~swf:*", "~processes", "~schedule", "~dead")
        client.execute_command("ACL", "SETUSER", "reader", "resetkeys", *but_retry)
        with pytest.raises(redis.ConnectionError, match="NOPERM"):
            reader_on(Connection(restricted)).get("pair")
    finally:
        client.execute_command("ACL", "DELUSER", "reader")


def test_a_user_that_may_only_read_finds_jobs(redis_url: str, client: redis.Redis, pair: RecordedRun) -> None:
    pair.queued(1)
    pair.in_flight(2)
    client.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">p", "+@read", "+evalsha_ro", "+eval_ro", "%R~*")
    restricted = redis.Redis.from_url(redis_url.replace("redis://", "redis://reader:p@"))
    try:
        assert [step.state for step in reader_on(Connection(restricted)).get("pair").steps] == ["queued", "running"]
    finally:
        client.execute_command("ACL", "DELUSER", "reader")


def test_a_server_without_scripts_that_only_read(redis_url: str, client: redis.Redis, pair: RecordedRun) -> None:
    pair.queued(1)
    client.execute_command("ACL", "SETUSER", "writer", "reset", "on", ">p", "+@all", "-evalsha_ro", "-eval_ro", "~*")
    restricted = redis.Redis.from_url(redis_url.replace("redis://", "redis://writer:p@"))
    try:
        assert reader_on(Connection(restricted)).get("pair").steps[0].state == "queued"
    finally:
        client.execute_command("ACL", "DELUSER", "writer")


# -- the state of a run ---------------------------------------------------------------


def test_waiting(client: redis.Redis, runs: Runs) -> None:
    run = RecordedRun(client, "run", group(job("a"), job("b")))
    run.scheduled(1, START)
    run.in_retry(2, START)
    assert runs.get("run").state == "waiting"
    client.delete("schedule")
    run.queued(1)
    assert runs.get("run").state == "running"


def test_the_job_of_a_delayed_empty_group_makes_it_wait(client: redis.Redis, runs: Runs) -> None:
    run = RecordedRun(client, "run", chain(job("a"), delayed(5000, group()), job("b")))
    run.done(1)
    run.scheduled(None, START)
    found = runs.get("run")
    assert (found.state, found.steps[1].state) == ("waiting", "pending")


def test_failed(runs: Runs, pair: RecordedRun) -> None:
    pair.failed(1, "KeyError", "'x'")
    pair.becomes("failed")
    run = runs.get("pair")
    assert (run.state, run.at_rest, [step.state for step in run.steps]) == ("failed", True, ["dead", "pending"])
    failure = run.failures[0]
    assert (failure.error, failure.jid, failure.ended_at) == ("KeyError: 'x'", "pair-1", at(2))


def test_a_dead_step_that_was_retried_runs(runs: Runs, pair: RecordedRun) -> None:
    pair.failed(1)
    pair.becomes("failed")
    pair.queued(1)
    run = runs.get("pair")
    assert (run.state, run.failures, run.steps[0].state) == ("running", (), "queued")


def test_a_death_in_ruby_is_found(client: redis.Redis, runs: Runs) -> None:
    run = RecordedRun(client, "run", chain(thumb(), job("b")))
    run.dead(1, START)
    found = runs.get("run")
    assert (found.state, [step.number for step in found.failures]) == ("failed", [1])


def test_stuck(runs: Runs, pair: RecordedRun) -> None:
    pair.done(1)
    run = runs.get("pair")
    assert (run.state, run.at_rest, run.steps[1].state) == ("stuck", True, "lost")


def test_a_barrier_that_still_waits_makes_a_run_stuck(client: redis.Redis, runs: Runs) -> None:
    run = RecordedRun(client, "run", chain(group(thumb(), job("a")), job("b")))
    run.done(2)
    found = runs.get("run")
    assert (found.state, found.steps[0].state, found.steps[2].state) == ("stuck", "unknown", "pending")


def test_the_end_of_a_run_in_ruby_is_inferred(client: redis.Redis, runs: Runs) -> None:
    run = RecordedRun(client, "run", chain(job("a"), thumb()))
    run.done(1)
    found = runs.get("run")
    assert (found.state, found.inferred, found.progress.done) == ("done", True, 2)
    assert (found.steps[1].state, found.steps[1].inferred) == ("done", True)


def test_a_ruby_process_may_have_begun_a_step_unseen(
    client: redis.Redis, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    RecordedRun(client, "run", thumb())
    ruby_process(client, "ruby")
    found = runs.get("run")
    assert (found.state, found.inferred, found.steps[0].state) == ("running", False, "unknown")
    monkeypatch.setattr(run_reader, "RUBY_BEAT", 0.0)
    assert runs.get("run").state == "done"


def test_a_ruby_process_of_other_queues_has_not_begun_it(client: redis.Redis, runs: Runs) -> None:
    RecordedRun(client, "run", thumb())
    ruby_process(client, "other")
    assert runs.get("run").state == "done"


def test_the_beat_is_waited_for_again_after_a_step(client: redis.Redis, runs: Runs) -> None:
    run = RecordedRun(client, "run", chain(thumb(), group(job("a"), thumb())))
    ruby_process(client, "ruby")
    assert runs.get("run").state == "running"
    reader = runs._reader
    first, since = reader._missing["run"]
    reader._missing["run"] = (first, since - run_reader.RUBY_BEAT)
    run.done(2)
    assert runs.get("run").state == "running"


def test_what_ruby_has_done_is_inferred_from_later_steps(client: redis.Redis, runs: Runs) -> None:
    run = RecordedRun(client, "run", chain(thumb(), thumb(), job("a")))
    run.queued(3)
    found = runs.get("run")
    assert [step.state for step in found.steps] == ["done", "done", "queued"]
    assert [step.inferred for step in found.steps] == [True, True, False]


@pytest.mark.parametrize(("state", "step"), [("done", "done"), ("cancelled", "cancelled"), ("paused", "pending")])
def test_recorded_states(client: redis.Redis, runs: Runs, state: str, step: str) -> None:
    finished: dict[str, Any] = {} if state == "paused" else {"finished": START + 60.25, "reason": "late"}
    run = RecordedRun(client, "run", chain(job("a"), job("b")), state=state, started=START, **finished)
    run.done(1)
    found = runs.get("run")
    assert (found.state, [each.state for each in found.steps]) == (state, ["done", step])
    assert (found.finished_at, found.reason) == ((at(60.25), "late") if finished else (None, ""))
    assert (found.steps[1].inferred, found.inferred) == (state == "done", False)


def test_an_adopted_run_shows_its_jobs(client: redis.Redis, runs: Runs) -> None:
    run = RecordedRun(client, "run", None)
    run.steps = [job("a"), job("b")]
    run.queued(1)
    run.failed(2)
    found = runs.get("run")
    assert (found.state, found.progress.total, [step.name for step in found.steps]) == ("failed", None, ["a", "b"])
    assert [step.state for step in found.steps] == ["queued", "dead"]
    client.delete("swf:flow:run:failed")
    assert runs.get("run").state == "running"
    client.delete("queue:python")
    found = runs.get("run")
    assert (found.state, found.inferred, len(found.steps)) == ("done", True, 0)


def test_a_tree_that_cannot_be_read_is_left_out(client: redis.Redis, runs: Runs, pair: RecordedRun) -> None:
    client.hset("swf:flow:pair", "tree", "{")
    pair.queued(1)
    assert [step.name for step in runs.get("pair").steps] == ["first"]


def test_an_unknown_run(runs: Runs) -> None:
    with pytest.raises(UnknownRun, match="nothing"):
        runs.get("nothing")


def test_a_run_of_ruby_before_its_first_step_in_python_ends(client: redis.Redis, runs: Runs, pair: RecordedRun) -> None:
    pair.queued(1)
    client.delete("swf:flow:pair", "swf:flow:pair:times")
    found = runs.get("pair")
    assert (found.state, found.started_at, found.progress.total) == ("running", None, None)
    assert [(step.name, step.state) for step in found.steps] == [("first", "queued")]
    client.delete("queue:python")
    with pytest.raises(UnknownRun, match="no job of it"):
        runs.get("pair")


def test_the_memory_of_a_run(broker: SidekiqBroker, runs: Runs, pair: RecordedRun) -> None:
    pair.queued(1)
    assert runs.get("pair").memory == {}
    memory = RedisHashMemory()
    memory.bind(broker.connection)
    memory.write("pair", {"pages": [1, 2]})
    assert runs.get("pair").memory == {"pages": [1, 2]}


def test_steps_on_another_broker_are_not_lost(redis_url: str, client: redis.Redis) -> None:
    other = StubBroker()
    middleware = WorkflowMiddleware(url=redis_url)
    other.add_middleware(middleware)
    try:
        run = RecordedRun(client, "run", chain(job("a"), job("b")))
        run.done(1)
        found = Runs(other).get("run")
        assert (found.state, [step.state for step in found.steps]) == ("running", ["done", "unknown"])
    finally:
        middleware.close()


def test_a_broker_needs_workflows(redis_url: str) -> None:
    with pytest.raises(ConfigurationError, match="WorkflowMiddleware"):
        Runs(SidekiqBroker(url=redis_url))


def test_replies_of_resp3_are_read(redis_url: str, client: redis.Redis, pair: RecordedRun) -> None:
    broker = SidekiqBroker(client=redis.Redis.from_url(redis_url, protocol=3))
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
    pair.done(1)
    pair.in_flight(2)
    pair.worked_on(2, START)
    runs = Runs(broker)
    assert [step.state for step in runs.get("pair").steps] == ["done", "running"]
    assert [run.id for run in runs.list()] == ["pair"]
    assert [finding.cause for finding in runs.explain("pair").findings] == ["runs"]
    assert run_stats(broker.connection).counts["running"] == 1
    broker.close()


# -- lists ----------------------------------------------------------------------------


@pytest.fixture
def ten(client: redis.Redis) -> list[str]:
    """Ten runs, the newest first; the last two started at the same time."""
    for number in range(10):
        RecordedRun(
            client,
            f"run-{number}",
            job("a"),
            state=("running", "done")[number % 2],
            started=START + max(number, 1),
            template="nightly" if number < 5 else None,
            tags=["odd"] if number % 2 else ["even", "all"],
        )
    return [f"run-{number}" for number in reversed(range(10))]


def test_a_list_has_the_newest_first(runs: Runs, ten: list[str]) -> None:
    found = runs.list()
    assert [run.id for run in found] == ten
    assert (found[0].state, found[0].tags, found[0].started_at, found[0].template) == ("done", ("odd",), at(9), None)
    assert (found[0].progress.total, found[0].progress.done, found[0].progress.running) == (1, 1, None)
    assert (found[-1].template, found[-1].tags) == ("nightly", ("even", "all"))


@pytest.mark.parametrize("size", [1, 2, 3, 9, 10])
def test_a_list_is_read_in_pages(runs: Runs, ten: list[str], size: int) -> None:
    found: list[str] = []
    for _ in range(11):
        page = runs.list(limit=size, after=found[-1] if found else None)
        assert len(page) <= size
        found += [run.id for run in page]
    assert found == ten


def test_a_list_is_filtered(runs: Runs, ten: list[str]) -> None:
    assert [run.id for run in runs.list(state="done")] == ten[::2]
    assert [run.id for run in runs.list(template="nightly")] == ten[5:]
    assert [run.id for run in runs.list(tag="odd", template="nightly", state="done")] == ["run-3", "run-1"]
    assert [run.id for run in runs.list(tag="odd", template="nightly", after="run-3")] == ["run-1"]
    assert [run.id for run in runs.list(since=at(7))] == ten[:3]
    assert [run.id for run in runs.list(since=at(7).replace(tzinfo=None))] == ten[:3]
    assert [run.id for run in runs.list(state="running", since=at(5))] == ["run-8", "run-6"]
    assert len(runs.list(since=timedelta(days=100 * 365))) == 10
    assert runs.list(since=timedelta(0)) == ([] if time.time() > START else runs.list())
    assert runs.list(template="none") == []


def test_more_runs_than_one_read_started_at_once(client: redis.Redis, runs: Runs) -> None:
    names = [f"run-{number:04}" for number in range(1100)]
    for name in names:
        client.hset(f"swf:flow:{name}", mapping={"state": "done", "started": START})
    client.zadd("swf:flows:done", dict.fromkeys(names, START))
    assert [run.id for run in runs.list(limit=2000)] == names[::-1]
    assert [run.id for run in runs.list(limit=2, after="run-0002")] == ["run-0001", "run-0000"]


def test_members_whose_record_has_expired_are_dropped(client: redis.Redis, runs: Runs, ten: list[str]) -> None:
    client.delete("swf:flow:run-9", "swf:flow:run-7")
    assert [run.id for run in runs.list(state="done", limit=2)] == ["run-5", "run-3"]
    assert client.zrange("swf:flows:done", 0, -1) == [b"run-1", b"run-3", b"run-5"]
    client.delete("swf:flow:run-8")
    assert [run.id for run in runs.list(limit=1)] == ["run-6"]
    assert not client.zscore("swf:flows:running", "run-8")


def test_a_page_continues_behind_a_run_that_has_changed_its_state(
    client: redis.Redis, runs: Runs, ten: list[str]
) -> None:
    client.zrem("swf:flows:running", "run-6")
    client.hset("swf:flow:run-6", "state", "done")
    assert [run.id for run in runs.list(state="running", after="run-6")] == ["run-4", "run-2", "run-0"]
    client.delete("swf:flow:run-6")
    with pytest.raises(UnknownRun, match="run-6"):
        runs.list(after="run-6")


def test_a_run_in_two_states_is_listed_once(client: redis.Redis, runs: Runs, ten: list[str]) -> None:
    client.zadd("swf:flows:done", {"run-8": START + 8})
    assert [run.id for run in runs.list()] == ten
    assert "run-8" not in [run.id for run in runs.list(state="done")]


def test_a_filter_that_cannot_be_used(runs: Runs) -> None:
    with pytest.raises(InvalidFilter, match="stuck"):
        runs.list(state="stuck")
    with pytest.raises(InvalidFilter, match="limit"):
        runs.list(limit=0)


# -- waiting --------------------------------------------------------------------------


def test_wait_returns_the_run_when_it_is_done(runs: Runs, pair: RecordedRun) -> None:
    pair.queued(1)
    ender = threading.Timer(0.1, lambda: pair.becomes("done"))
    ender.start()
    assert runs.wait("pair", timeout=20_000).state == "done"
    ender.join()


@pytest.mark.parametrize("state", ["failed", "cancelled", "done"])
def test_wait_returns_a_run_at_rest_at_once(runs: Runs, pair: RecordedRun, state: str) -> None:
    pair.failed(1)
    pair.becomes(state)
    assert runs.wait("pair", timeout=20_000).state == state


def test_wait_goes_on_while_a_dead_step_runs_again(runs: Runs, pair: RecordedRun) -> None:
    pair.failed(1)
    pair.becomes("failed")
    pair.queued(1)
    with pytest.raises(RunTimeout, match="running"):
        runs.wait("pair", timeout=timedelta(milliseconds=50))


def test_wait_finds_a_run_that_is_stuck(
    client: redis.Redis, runs: Runs, pair: RecordedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dramatiq_sidekiq_flow.runs.query.FIRST_SEARCH", 0.05)
    client.config_resetstat()
    assert runs.wait("pair", timeout=20_000).state == "stuck"
    # Long before the timeout.
    assert client.info("commandstats")["cmdstat_hget"]["calls"] < 20


def test_wait_ends_when_the_record_expires(client: redis.Redis, runs: Runs, pair: RecordedRun) -> None:
    pair.queued(1)
    ender = threading.Timer(0.1, lambda: client.delete("swf:flow:pair"))
    ender.start()
    with pytest.raises(UnknownRun):
        runs.wait("pair", timeout=20_000)
    ender.join()


def test_waiting_reads_little(client: redis.Redis, runs: Runs, pair: RecordedRun) -> None:
    pair.queued(1)
    assert runs.get("pair").state == "running"
    client.config_resetstat()
    with pytest.raises(RunTimeout):
        runs.wait("pair", timeout=600)
    stats = client.info("commandstats")
    assert stats["cmdstat_hget"]["calls"] <= 12
    # One search, at the end.
    assert stats["cmdstat_smembers"]["calls"] == 2


def test_wait_looks_for_the_jobs_once_before_it_gives_up(runs: Runs, pair: RecordedRun) -> None:
    assert runs.wait("pair", timeout=0).state == "stuck"


def test_coroutines_do_the_same(runs: Runs, pair: RecordedRun) -> None:
    async def read() -> None:
        assert (await runs.get_async("pair")).id == "pair"
        assert [run.id for run in await runs.list_async(state="running", limit=1)] == ["pair"]
        pair.queued(1)
        with pytest.raises(RunTimeout):
            await runs.wait_async("pair", timeout=30)
        pair.becomes("done")
        assert (await runs.wait_async("pair")).state == "done"

    asyncio.run(read())


# -- as text --------------------------------------------------------------------------

TEXT = """\
Run run-1 nightly #daily failed
9,002 of 10,007 steps done, 1 running, 1 waiting, 1 dead
started 2027-01-15 08:00:00 UTC
        chain
+     1   fetch                         python  done      08:00:00  2.5 s
          group
            group
!     2       extract x 10000           python  9,000 done, 1 dead, 999 lost
            chain
+ 10002       Docs::Thumb               ruby    done*
> 10003       store                     python  running   since 08:01:00
~ 10004     tell                        python  retry     due 01-15 08:01:30
              IOError: no disk
          after 60 s
. 10005     a_name_that_is_very_lon...  python  pending
. 10006   Docs::Report                  ruby    pending
. 10007   Docs::Report                  ruby    pending
* inferred: without the companion, Ruby records no end of a step"""


def test_a_run_as_text(client: redis.Redis, runs: Runs) -> None:
    members = group(*(job("extract", number) for number in range(10_000)))
    tree = chain(
        job("fetch", 1),
        group(members, chain(thumb(), job("store")), job("tell")),
        delayed(60_000, job("a_name_that_is_very_long_and_goes_on")),
        *(job("Docs::Report", queue="ruby") for _ in range(2)),
    )
    run = RecordedRun(client, "run-1", tree, template="nightly", tags=["daily"], started=START)
    run.done(1, seconds=2.5)
    for number in range(2, 9002):
        run.done(number)
    run.dead(9002, START)
    run.in_flight(10_003)
    run.worked_on(10_003, START + 60, IDENTITY)
    run.in_retry(10_004, START + 90)
    assert str(runs.get("run-1")) == TEXT


def test_errors_are_shown_below_their_step(runs: Runs, pair: RecordedRun) -> None:
    pair.failed(1, "KeyError", "no such document\nand more")
    assert str(runs.get("pair")) == (
        "Run pair failed\n"
        "0 of 2 steps done, 1 dead\nstarted 2027-01-15 08:00:00 UTC\n"
        "    chain\n"
        "! 1   first   python  dead      01-15 08:00:02\n"
        "        KeyError: no such document\n"
        ". 2   second  python  pending"
    )


def test_a_run_as_a_flowchart(runs: Runs, pair: RecordedRun) -> None:
    pair.done(1)
    pair.queued(2)
    assert runs.get("pair").mermaid() == (
        'flowchart LR\n  s1["first"]:::done\n  s2["second"]:::queued\n  s1 --> s2\n'
        "  classDef done fill:#d5f5d5,stroke:#3a3"
    )
    assert runs.list()[0].mermaid() == ""


def test_a_workflow_as_a_flowchart(broker: SidekiqBroker) -> None:
    @dramatiq.actor(queue_name="python", broker=broker)
    def extract(number: int) -> None:
        """Do nothing."""

    tree = Chain(Job("Docs::Fetch", 1), Group(*(extract.message(number) for number in range(30))), Job("Docs::Done"))
    assert Workflow(tree).mermaid() == (
        'flowchart LR\n  s1["Docs::Fetch"]\n  s2["extract x 30"]\n  s32["Docs::Done"]\n  s1 --> s2\n  s2 --> s32'
    )
