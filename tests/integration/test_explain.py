"""Explanations of runs: the cause and the cure of each way to break one."""

from __future__ import annotations

import json
import time

import dramatiq
import pytest
import redis
from dramatiq.brokers.stub import StubBroker

from dramatiq_sidekiq_flow import Runs, SidekiqBroker, WorkflowMiddleware
from dramatiq_sidekiq_flow.cli.main import main
from dramatiq_sidekiq_flow.store import job_search
from dramatiq_sidekiq_flow.store.connection import Connection

from ..broken_runs import GONE, WAYS, Way, killed_python_worker, python_process, unserved_queue
from ..recorded_runs import IDENTITY, RecordedRun, chain, group, job, ruby_process
from ..running import working

RUN = "5f0d8c1e-8e0c-4a3f-9d1c-0a8f6f0f8f11"


@pytest.fixture
def runs(broker: SidekiqBroker) -> Runs:
    return Runs(broker)


@pytest.mark.parametrize("way", WAYS, ids=[way.cause for way in WAYS])
def test_cause_and_cure_of_each_way_to_break_a_run(client: redis.Redis, runs: Runs, way: Way) -> None:
    way.make(client, RUN)
    found = runs.explain(RUN)
    finding = found.findings[0]
    assert (finding.cause, found.verdict) == (way.cause, way.verdict)
    text = " ".join(str(found).split())
    for expected in way.texts:
        assert expected in text
    if finding.outlook == "blocked":
        assert finding.cures
    # A command has to be whole to be copied.
    assert all(len(line) <= 80 for line in str(found).splitlines())


def test_steps_that_are_alike_are_one_finding(client: redis.Redis, runs: Runs) -> None:
    python_process(client, "python", actors=("a", "b"))
    run = RecordedRun(client, RUN, chain(group(job("a"), *(job("b", n) for n in range(50))), job("z"), job("z", 1)))
    run.done(1)
    for number in range(2, 52):
        run.queued(number)
    queued, after = runs.explain(RUN).findings
    assert (queued.cause, queued.outlook, queued.count, queued.numbers) == ("queued", "moves", 50, tuple(range(2, 22)))
    assert (after.cause, after.state, after.count, after.numbers) == ("after_others", "pending", 2, (52,))
    assert "1 of 51 are done" in after.why


def test_a_caught_step_does_not_block_its_run(client: redis.Redis, runs: Runs) -> None:
    python_process(client, "python", actors=("a", "b"))
    run = RecordedRun(client, RUN, chain({**job("a"), "swf_on_death": "done"}, job("b")))
    run.failed(1)
    run.queued(2)
    found = runs.explain(RUN)
    assert (found.verdict, [finding.cause for finding in found.findings]) == ("moving", ["queued"])
    # Until the keeper finds it.
    client.delete("queue:python", f"swf:flow:{RUN}:failed")
    run.dead(1, time.time())
    assert not runs.explain(RUN).blocked


def test_a_step_in_retry_waits_and_one_at_a_worker_moves(client: redis.Redis, runs: Runs) -> None:
    python_process(client, "python", actors=("a", "b"))
    run = RecordedRun(client, RUN, group(job("a"), job("b")))
    due = time.time() + 600
    run.in_retry(1, due)
    run.scheduled(2, due)
    found = runs.explain(RUN)
    assert found.verdict == "waiting"
    assert sorted(finding.cause for finding in found.findings) == ["retry", "scheduled"]
    assert "Last error: IOError: no disk" in str(found.findings)
    client.delete("schedule")
    run.in_flight(2)
    found = runs.explain(RUN)
    assert (found.verdict, found.findings[-1].cause) == ("moving", "runs")


def test_a_paused_queue(client: redis.Redis, runs: Runs) -> None:
    python_process(client, "python")
    RecordedRun(client, RUN, job("first")).queued(1)
    client.sadd("paused", "python")
    (finding,) = runs.explain(RUN).findings
    assert (finding.cause, finding.cures[0][:42]) == ("queue_paused", "Unpause it: broker.unpause_queue('python')")


def test_a_step_that_plain_ruby_may_have_begun_is_lost_after_its_beat(
    client: redis.Redis, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ruby_process(client, "ruby")
    RecordedRun(client, RUN, chain(job("Docs::Thumb", queue="ruby"), job("second")))
    assert [finding.cause for finding in runs.explain(RUN).findings] == ["unseen_in_ruby", "after_others"]
    monkeypatch.setattr("dramatiq_sidekiq_flow.runs.run_reader.RUBY_BEAT", 0.0)
    found = runs.explain(RUN)
    assert (found.verdict, found.findings[0].cause) == ("stuck", "lost_in_ruby")


def test_a_job_at_a_ruby_process_that_beats_no_more(client: redis.Redis, runs: Runs) -> None:
    ruby_process(client, "ruby")
    client.hset("ruby:2:def", "beat", time.time() - 45)
    run = RecordedRun(client, RUN, chain(job("Docs::Thumb", queue="ruby"), job("second")))
    run.worked_on(1, time.time() - 60)
    found = runs.explain(RUN)
    assert (found.verdict, found.findings[0].cause) == ("stuck", "silent_ruby")
    assert "has not beaten for 45 s" in found.findings[0].why


def test_a_dead_worker_that_no_process_recovers(client: redis.Redis, runs: Runs) -> None:
    killed_python_worker(client, RUN)
    client.zrem("swf:workers", "py:1:abc:python")
    client.delete("processes")
    client.zadd("swf:workers", {f"{IDENTITY}:python": time.time() - 90})
    found = runs.explain(RUN)
    assert (found.verdict, found.findings[0].cures[0][:21]) == ("stuck", "Start a Python worker")


def test_a_barrier_that_a_queued_step_needs_is_looked_for(client: redis.Redis, runs: Runs) -> None:
    python_process(client, "python")
    run = RecordedRun(client, RUN, chain(job("first"), job("first")))
    stack = [[GONE, {"__type__": "chain", "children": [job("first")]}, False]]
    client.sadd("queues", "python")
    client.lpush("queue:python", run.payload(1, workflow_completion_callbacks=stack))
    assert runs.explain(RUN).findings[0].cause == "barrier_gone"
    client.mset({GONE: 1, f"{GONE}_ran": -1})
    assert runs.explain(RUN).findings[0].cause == "queued"


def test_a_dead_step_whose_job_was_deleted(client: redis.Redis, runs: Runs) -> None:
    run = RecordedRun(client, RUN, chain(job("first"), job("second")))
    run.failed(1)
    run.becomes("failed")
    found = runs.explain(RUN)
    assert (found.verdict, found.findings[0].cause) == ("failed", "job_gone")


def test_the_job_of_a_dead_step_is_found_behind_a_large_queue(client: redis.Redis, runs: Runs) -> None:
    run = RecordedRun(client, RUN, chain(job("first"), job("second")))
    run.failed(1)
    run.becomes("failed")
    client.sadd("queues", "other")
    client.lpush("queue:other", *([b"{}"] * 300))
    client.zadd("dead", {f"{{}} {number}": number for number in range(400)})
    run.dead(1, time.time())
    assert runs.explain(RUN).findings[0].cause == "dead"


def test_a_second_look_finds_what_has_moved(client: redis.Redis, connection: Connection) -> None:
    run = RecordedRun(client, RUN, group(*(job("a") for _ in range(5))))
    client.sadd("queues", "python", "small")
    client.lpush("queue:python", run.payload(1), *([b"{}"] * 1_500), run.payload(2), *([b"{}"] * 1_500), run.payload(3))
    client.zadd("retry", {f"{{}} {number}": number for number in range(400)})
    run.in_retry(4, 200.5)
    client.lpush("queue:small", run.payload(5))
    found = job_search.glance(connection, RUN, job_search.places(connection))
    assert sorted(json.loads(each.payload)["swf_step"] for each in found) == [1, 3, 4, 5]


def test_a_run_without_a_tree(client: redis.Redis, runs: Runs) -> None:
    run = RecordedRun(client, RUN, group(job("Docs::Thumb", queue="ruby"), job("tell")))
    client.hdel(f"swf:flow:{RUN}", "tree", "total")
    run.queued(1)
    run.queued(2)
    python_process(client, "python", actors=("told",))
    client.hset("swf:registry:ruby", "Docs::Thumb", "{}")
    found = runs.explain(RUN)
    assert {finding.cause for finding in found.findings} == {"no_consumer", "unknown_actor"}
    assert found.verdict == "stuck"


def test_steps_on_another_broker_are_not_searched_for(redis_url: str, client: redis.Redis) -> None:
    other = StubBroker()
    middleware = WorkflowMiddleware(url=redis_url)
    other.add_middleware(middleware)
    try:
        RecordedRun(client, RUN, chain(job("a"), job("b"))).done(1)
        found = Runs(other).explain(RUN)
        assert (found.verdict, [finding.cause for finding in found.findings]) == ("moving", ["elsewhere"])
    finally:
        middleware.close()


def test_runs_that_have_ended_have_no_findings(client: redis.Redis, runs: Runs) -> None:
    RecordedRun(client, RUN, job("first"), state="cancelled")
    found = runs.explain(RUN)
    assert (found.verdict, found.findings) == ("cancelled", ())


def test_a_live_process_says_which_actors_it_has(broker: SidekiqBroker, client: redis.Redis, runs: Runs) -> None:
    @dramatiq.actor(queue_name="other", broker=broker)
    def known() -> None: ...

    with working(broker):
        identity = broker.process.heartbeat.identity
        assert json.loads(client.hget(identity, "actors") or b"") == ["known"]
        processes = runs._explainer.surveyor.look()
    assert processes.actors_for("other") == {"known"}
    assert processes.known_names() == {"known"}


# -- the command ------------------------------------------------------------------------


def test_the_command(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    unserved_queue(client, RUN)
    assert main(["runs", "explain", RUN]) == 1
    out = capsys.readouterr().out
    assert "! 3 steps 'first' from 1 on, queue 'pythn': no consumer" in out
    assert f"    sidekiq-flow doctor {RUN} --fix cancel --yes" in out
    assert main(["runs", "explain", RUN, "--json"]) == 1
    read = json.loads(capsys.readouterr().out)
    assert (read["verdict"], read["run"]["id"]) == ("stuck", RUN)
    assert (read["findings"][0]["cause"], read["findings"][0]["count"]) == ("no_consumer", 3)
    assert main(["runs", "explain", "unknown"]) == 2
    client.delete(f"queue:{'pythn'}")
    python_process(client, "python", "pythn")
    for number in (1, 2, 3):
        client.hset(f"swf:flow:{RUN}:times", str(number), f"1 2 0 {IDENTITY}")
    assert main(["runs", "explain", RUN]) == 0
