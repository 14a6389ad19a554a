"""Steps that may fail for good: what takes their place, and what their run keeps of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import (
    Catch,
    Chain,
    Group,
    Job,
    MayFail,
    Namespace,
    RedisCallbackStorage,
    RedisHashMemory,
    Runs,
    SidekiqBroker,
    WithDelay,
    Workflow,
    WorkflowMiddleware,
    current_run,
)
from dramatiq_sidekiq_flow.broker.begin import begin
from dramatiq_sidekiq_flow.broker.retries import killed
from dramatiq_sidekiq_flow.errors import InvalidWorkflow
from dramatiq_sidekiq_flow.store import fanouts, sets
from dramatiq_sidekiq_flow.testing import FlowTest

from ..redis_values import as_bytes, raws
from ..running import eventually, members, working
from .test_pluggable import SetBarrier

WEEK = 7 * 86_400


@pytest.fixture
def log() -> list[Any]:
    return []


@pytest.fixture
def ok(broker: SidekiqBroker, log: list[Any]) -> Any:
    @dramatiq.actor(queue_name="python", broker=broker)
    def ok(name: Any) -> Any:
        log.append(name)
        return {f"of {name}": 1}

    return ok


@pytest.fixture
def bad(broker: SidekiqBroker, log: list[Any]) -> Any:
    @dramatiq.actor(queue_name="python", max_retries=0, broker=broker)
    def bad(name: Any, fails: int = 99) -> None:
        log.append(name)
        if log.count(name) <= fails:
            raise ValueError("no")

    return bad


def finish(broker: SidekiqBroker, run_id: str) -> Any:
    with working(broker):
        return Runs(broker).wait(run_id, timeout=20_000)


@pytest.fixture
def watcher(broker: SidekiqBroker, client: redis.Redis) -> Callable[[], None]:
    """Looks at ``dead`` without its interval."""

    def look() -> None:
        upkeep = broker.process.heartbeat.upkeep
        for member in raws(client.zrange("dead", 0, -1)):
            upkeep.handle(member)

    return look


@pytest.mark.parametrize("options", [{"retry": False}, {"dead": False}])
def test_a_step_that_is_discarded_is_caught_as_well(
    broker: SidekiqBroker, client: redis.Redis, ok: Any, bad: Any, log: list[Any], options: dict[str, Any]
) -> None:
    caught = bad.message_with_options(args=("a",), **options)
    run = finish(broker, Workflow(Chain(Catch(caught, ok.message("b")), ok.message("c"))).run())
    assert (run.state, log, members(client, "dead")) == ("done", ["a", "b", "c"], [])
    assert [step.error for step in run.failures] == ["ValueError: no"]


def test_a_retry_by_hand_runs_the_step_alone(
    broker: SidekiqBroker, client: redis.Redis, ok: Any, bad: Any, log: list[Any]
) -> None:
    run_id = Workflow(Group(MayFail(bad.message("a", 1)), Chain(ok.message("b"), bad.message("stops", 1)))).run()
    assert finish(broker, run_id).state == "failed"
    (job,) = (job for job in members(client, "dead") if job["args"][0] == "a")
    raw = json.dumps(job)
    client.lpush("queue:python", raw)
    with working(broker):
        broker.join("python")
    run = Runs(broker).get(run_id)
    assert log.count("a") == 2
    assert (run.state, run.progress.done, run.progress.failed, run.progress.total) == ("failed", 1, 2, 3)


def test_a_run_goes_on_when_the_step_that_stopped_it_is_mended(
    broker: SidekiqBroker, client: redis.Redis, ok: Any, bad: Any
) -> None:
    """The error that was caught stays, and does not keep the run failed."""
    tree = Group(MayFail(bad.message("a")), Chain(bad.message("b", 1), Job("Rb::Step", queue="ruby", retry=0)))
    run_id = Workflow(tree).run()
    assert finish(broker, run_id).state == "failed"
    client.lpush("queue:python", *(json.dumps(job) for job in members(client, "dead") if "workflow_run_id" in job))
    client.zremrangebyscore("dead", "-inf", "+inf")
    with working(broker):
        broker.join("python")
    (running,) = Runs(broker).list(state="running")
    assert (running.id, running.progress.failed) == (run_id, 1)
    assert [step.path for step in Runs(broker).get(run_id).failures] == ["1"]


def test_the_errors_of_a_run_that_is_done_are_kept_as_long_as_its_record(
    broker: SidekiqBroker, client: redis.Redis, bad: Any
) -> None:
    run_id = Workflow(MayFail(bad.message("a"))).run()
    run = finish(broker, run_id)
    assert (run.state, run.progress.done, run.progress.total, run.progress.failed) == ("done", 0, 1, 1)
    ttls = [client.ttl(f"swf:flow:{run_id}{part}") for part in ("", ":failed")]
    assert all(WEEK - 60 < ttl <= WEEK for ttl in ttls)


def test_nothing_takes_the_place_of_a_step_of_a_cancelled_run(
    broker: SidekiqBroker, client: redis.Redis, ok: Any, bad: Any, log: list[Any], watcher: Any
) -> None:
    run_id = Workflow(Group(Catch(bad.message("a"), ok.message("b")), Catch(bad.message("c"), ok.message("d")))).run()
    consumer = broker.consume("python", prefetch=2, timeout=100)
    fails: Any = next(consumer)
    is_killed: Any = next(consumer)
    Runs(broker).cancel(run_id)
    fails.failure = killed(fails.payload, "python", ValueError("no"))
    consumer.ack(fails)
    client.zadd("dead", {is_killed.payload.raw: time.time()})
    watcher()
    assert client.llen("queue:python") == 0
    assert all("workflow_run_id" not in job for job in members(client, "dead"))


def test_a_fallback_may_be_large_and_delayed(
    broker: SidekiqBroker, client: redis.Redis, ok: Any, bad: Any, log: list[Any]
) -> None:
    """It is staged, committed with the death, and poured."""
    fallback = Group(*map(ok.message, range(1100)), WithDelay(ok.message("x"), 100))
    run = finish(broker, Workflow(Chain(Catch(bad.message("a"), fallback), ok.message("end"))).run())
    assert (run.state, run.progress.done, run.progress.failed) == ("done", 1102, 1)
    assert log[0] == "a"
    assert log[-1] == "end"
    assert len(log) == 1103
    assert client.zcard("swf:fanouts") == 0


def test_a_large_fallback_is_staged_again(
    broker: SidekiqBroker, client: redis.Redis, ok: Any, bad: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its list has expired before the death was written."""
    Workflow(Catch(bad.message("a"), Group(*map(ok.message, range(1100))))).run()
    consumer = broker.consume("python", prefetch=1, timeout=100)
    message: Any = next(consumer)
    message.failure = killed(message.payload, "python", ValueError("no"))
    stage, staged = fanouts.stage, []

    def expiring(*arguments: Any) -> Any:
        staged.append(stage(*arguments))
        if len(staged) == 1:
            client.delete(f"swf:fanout:{staged[0].id}")
        return staged[-1]

    monkeypatch.setattr(fanouts, "stage", expiring)
    consumer.ack(message)
    assert len(staged) == 2
    assert client.llen("queue:python") == 1100
    assert len(members(client, "dead")) == 1


def test_a_fallback_in_ruby_carries_what_comes_next_whole(
    broker: SidekiqBroker, client: redis.Redis, ok: Any, bad: Any, log: list[Any]
) -> None:
    """A Ruby step with the plain gem reads no reference."""
    text = "x" * 300
    later = [ok.message(f"{text}{n}") for n in range(30)]
    Workflow(Chain(bad.message("a", 0), Catch(bad.message("b"), Job("Rb::Step", queue="ruby", retry=3)), *later)).run()
    with working(broker):
        eventually(lambda: client.llen("queue:ruby"))
    (job,) = members(client, "ruby")
    trees = [tree for _, tree, _ in job["workflow_completion_callbacks"]]
    assert trees[-1]["children"][0]["__type__"] == "job"
    assert trees[0]["__type__"] == "reference"


def test_a_fallback_has_the_memory_the_context_and_the_namespace(broker: SidekiqBroker, bad: Any) -> None:
    @dramatiq.actor(queue_name="python", max_retries=0, broker=broker)
    def tells() -> dict[str, Any]:
        return {"told": current_run().memory.read()["seed"]}

    job = Job("bad", 1, queue="python", retry=0, apartment="acme")
    with FlowTest(broker) as flow:
        run = flow.run(Namespace("left", Catch(job, Chain(tells.message(), MayFail(bad.message(2))))), seed={"seed": 7})
        assert run.memory == {"seed": 7, "left.told": 7}
        assert [job.fields.get("apartment") for job in run.enqueued if job.args != (1,)] == ["acme", "acme"]
        assert {job.run_id for job in run.enqueued} == {run.run_id}


def test_a_step_is_caught_by_its_run_only(broker: SidekiqBroker, client: redis.Redis, ok: Any, log: list[Any]) -> None:
    """Two runs whose dead steps have the same jid have barriers and jobs of their own."""

    @dramatiq.actor(queue_name="python", max_retries=0, broker=broker)
    def dies() -> None:
        raise ValueError("no")

    tree = Chain(
        Catch(Job("dies", jid="same", queue="python", retry=0), Group(Job("ok", 1), Job("ok", 2))), Job("ok", 3)
    )
    workflow = Workflow(tree)
    runs = [workflow.run("one"), workflow.run("two")]
    assert [finish(broker, run_id).state for run_id in runs] == ["done", "done"]
    assert sorted(log) == [1, 1, 2, 2, 3, 3]


def test_a_poison_pill_is_caught_at_once(
    broker: SidekiqBroker, client: redis.Redis, ok: Any, bad: Any, log: list[Any]
) -> None:
    run_id = Workflow(Chain(Catch(bad.message("a"), ok.message("b")), ok.message("c"))).run()
    (job,) = members(client, "python")
    client.set(f"swf:recovered:{job['jid']}", 2)
    message: Any = next(broker.consume("python", prefetch=1, timeout=100))
    begin(broker.process.in_flight, broker.connection, message)
    client.zadd("swf:workers", {message.member: time.time() - 3600})
    broker.process.heartbeat.recover(message.member)
    assert [job["args"] for job in members(client, "python")] == [["b"]]
    run = finish(broker, run_id)
    assert (run.state, log) == ("done", ["b", "c"])
    assert [step.error for step in run.failures if step.error and step.error.startswith("PoisonPill")]


def test_a_step_killed_by_hand_waits_for_the_next_look(
    broker: SidekiqBroker, client: redis.Redis, ok: Any, bad: Any, log: list[Any], watcher: Any
) -> None:
    run_id = Workflow(Chain(Catch(bad.message("a"), ok.message("b")), ok.message("c"))).run()
    client.zadd("dead", {as_bytes(client.rpop("queue:python")): time.time()})
    before = Runs(broker).get(run_id)
    assert (before.state, [step.state for step in before.steps]) == ("waiting", ["dead", "pending", "pending"])
    watcher()
    watcher()
    assert client.llen("queue:python") == 1
    assert finish(broker, run_id).state == "done"
    assert log == ["b", "c"]


def test_a_death_that_stopped_the_run_is_caught_later(
    broker: SidekiqBroker, client: redis.Redis, ok: Any, bad: Any, log: list[Any], watcher: Any
) -> None:
    """A worker that could not plan, or that is older, has buried the step as any other."""
    run_id = Workflow(Chain(Catch(bad.message("a"), ok.message("b")), ok.message("c"))).run()
    message: Any = next(broker.consume("python", prefetch=1, timeout=100))
    failure, now = killed(message.payload, "python", ValueError("no")), time.time()
    death = broker.process.completion.record_of_death(message.payload, failure.payload, now)  # type: ignore[union-attr]
    bury = sets.fail(message.member, message.receipt, "dead", now=now, payload=failure.payload, death=death)
    broker.process.commit.run(bury)
    assert [run.id for run in Runs(broker).list(state="failed")] == [run_id]
    assert Runs(broker).get(run_id).state == "waiting"
    watcher()
    assert [run.id for run in Runs(broker).list(state="running")] == [run_id]
    run = finish(broker, run_id)
    assert (run.state, run.progress.failed, log) == ("done", 1, ["b", "c"])


def test_a_fallback_that_cannot_be_read_leaves_the_step_dead(
    broker: SidekiqBroker, client: redis.Redis, bad: Any, watcher: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = Workflow(Chain(bad.message("a"), bad.message("b"))).run()
    job = members(client, "python")[0] | {"swf_on_death": {"__type__": "job"}}
    client.delete("queue:python")
    client.lpush("queue:python", json.dumps(job))
    assert finish(broker, run_id).state == "failed"
    watcher()
    assert "its fallback cannot be started" in caplog.text
    assert members(client, "dead")[0]["workflow_run_id"] == run_id


@pytest.mark.parametrize(
    "options", [{"callback_storage": RedisCallbackStorage(min_bytes=1)}, {"barriers": SetBarrier()}, {}]
)
def test_a_run_goes_on_with_any_storage_and_barriers(redis_url: str, options: dict[str, Any]) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(), **options))
    with FlowTest(broker) as flow:

        @dramatiq.actor(queue_name="python", max_retries=0, broker=broker)
        def step(text: str, dies: bool = False) -> None:
            if dies:
                raise ValueError("no")

        text = "x" * 300
        tree = Chain(
            step.message(text),
            *(Catch(step.message(text, True), Chain(step.message(text), step.message(text))) for _ in range(10)),
            *(Group(MayFail(step.message(text, True)), MayFail(step.message(text, True))) for _ in range(5)),
            step.message(text),
        )
        run = flow.run(tree)
        flow.assert_order(run)
        assert (len(run.order), len(run.failed)) == (2 + 20, 20)
        flow.retry(run.run_id, "failed_and_after")
        run = flow.finish(run.run_id)
        # All but the first step, once more.
        assert (run.state, len(run.order), len(run.failed)) == ("done", 2 * (2 + 20) - 1, 2 * 20)
    broker.close()


def test_flow_test_knows_which_steps_need_not_run(broker: SidekiqBroker, ok: Any, bad: Any) -> None:
    with FlowTest(broker) as flow:
        run = flow.run(Catch(bad.message("a"), ok.message("b")))
        flow.assert_order(run)
        assert [job["args"] for job in run.dead] == [["a"]]


def test_it_is_shown(broker: SidekiqBroker, ok: Any, bad: Any) -> None:
    workflow = Workflow(Chain(MayFail(ok.message(1)), Catch(bad.message(2), Group(ok.message(3), Job("R")))))
    assert str(workflow).splitlines() == [
        "chain",
        "  ok(1) in python, may fail",
        "  catch",
        "    bad(2) in python",
        "    if it fails for good",
        "      group",
        "        ok(3) in python",
        "        R()",
    ]
    assert workflow.mermaid().splitlines()[1:6] == [
        '  s1["ok, may fail"]',
        '  s2["bad"]',
        '  s3["ok"]',
        '  s4["R"]',
        "  s2 -. dead .-> s3 & s4",
    ]
    assert [getattr(step, "job_class", None) or step.actor_name for step in workflow.walk()] == ["ok", "bad", "ok", "R"]


@pytest.mark.parametrize("node", [Chain(Job("A")), Group(), WithDelay(Job("A"), 1000), MayFail(Job("A")), "text", None])
def test_a_step_is_wrapped_and_nothing_else(broker: SidekiqBroker, node: Any) -> None:
    for made in (MayFail(node), Catch(node, Job("B"))):
        with pytest.raises(InvalidWorkflow, match="takes one step.*wrap each of its steps"):
            Workflow(made)
    with pytest.raises(InvalidWorkflow, match="not a step of a workflow"):
        Workflow(Catch(Job("A"), "text"))
