"""Steps that wait for a signal: it comes before, meanwhile or too late, and what an operator sees and does."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.stub import StubBroker

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    Job,
    Runs,
    SidekiqBroker,
    WaitFor,
    Workflow,
    WorkflowMiddleware,
)
from dramatiq_sidekiq_flow.cli.main import main
from dramatiq_sidekiq_flow.errors import ConfigurationError, InvalidFilter, InvalidWorkflow, UnknownRun
from dramatiq_sidekiq_flow.testing import FlowTest

from ..running import eventually, in_flight, working


@pytest.fixture
def flow(broker: SidekiqBroker) -> Iterator[FlowTest]:
    @dramatiq.actor(queue_name="python", broker=broker)
    def step(name: str) -> None: ...

    with FlowTest(broker) as flow:
        yield flow


def step(broker: SidekiqBroker, name: str) -> Any:
    return broker.get_actor("step").message(name)


def names(run: Any) -> list[Any]:
    return [step.args[0] for step in run.steps if step.done]


def approval(flow: FlowTest, **options: Any) -> Any:
    wait = WaitFor("approved", **options)
    return Chain(step(flow.broker, "before"), wait, step(flow.broker, "after"))


def test_the_run_goes_on_when_the_signal_comes(flow: FlowTest) -> None:
    run_id = flow.run(approval(flow, timeout=timedelta(days=1))).run_id
    run = Runs(flow.broker).get(run_id)
    assert (run.state, [step.state for step in run.steps]) == ("waiting", ["done", "signal", "pending"])
    wait = run.steps[1]
    assert (wait.name, wait.queue, wait.args) == ("wait for approved", "python", "")
    assert wait.due_at is not None
    assert 86_000 < wait.due_at.timestamp() - time.time() < 86_401
    assert "~ 2   wait for approved  python  signal    until " in str(run)
    flow.signal("approved", {"by": "Ada"})
    run_ended = flow.finish(run_id)
    assert (names(run_ended), run_ended.memory) == (["before", "approved", "after"], {"approved": {"by": "Ada"}})
    assert Runs(flow.broker).get(run_id).state == "done"


def test_a_signal_is_kept_for_a_step_that_comes_later(flow: FlowTest) -> None:
    wait = WaitFor("first")
    run_id = flow.run(Chain(wait, WaitFor("approved"), WaitFor("approved"), step(flow.broker, "after"))).run_id
    flow.signal("approved", 7, run_id=run_id)
    flow.signal("first")
    run = flow.finish(run_id)
    assert (names(run)[-1], run.memory) == ("after", {"approved": 7})


def test_one_signal_moves_all_steps_that_wait_for_it(flow: FlowTest) -> None:
    node = Group(WaitFor("approved"), WaitFor("approved"), WaitFor("other"))
    run_id = flow.run(Chain(node, step(flow.broker, "after"))).run_id
    flow.signal("approved")
    assert names(flow.finish(run_id)) == ["approved", "approved"]
    flow.signal("other")
    assert names(flow.finish(run_id))[-1] == "after"


def test_after_the_time_another_tree_runs(flow: FlowTest) -> None:
    otherwise = Group(step(flow.broker, "a"), step(flow.broker, "b"))
    run_id = flow.run(approval(flow, timeout=1000, otherwise=otherwise)).run_id
    flow.time_out("approved")
    assert names(flow.finish(run_id)) == ["before", "approved", "a", "b", "after"]
    assert (Runs(flow.broker).get(run_id).progress.total, Runs(flow.broker).signal(run_id, "approved")) == (5, False)


def test_an_empty_tree_just_goes_on(flow: FlowTest) -> None:
    run_id = flow.run(approval(flow, timeout=0, otherwise=Chain())).run_id
    assert names(flow.finish(run_id)) == ["before", "approved", "after"]


def test_a_step_without_another_tree_dies_and_a_retry_waits_anew(flow: FlowTest) -> None:
    run_id = flow.run(approval(flow, timeout=60_000)).run_id
    flow.time_out("approved")
    run = flow.finish(run_id)
    assert [dead["error_class"] for dead in run.dead] == ["SignalTimeout"]
    assert Runs(flow.broker).get(run_id).state == "failed"
    connection = flow.broker.connection
    (member,) = connection.call("ZRANGE", "dead", 0, -1)
    # As Sidekiq's button does.
    connection.call("ZREM", "dead", member)
    connection.call("LPUSH", "queue:python", json.dumps({**json.loads(member), "retry_count": -1}))
    flow.drain()
    wait = Runs(flow.broker).get(run_id).steps[1]
    assert (wait.state, wait.due_at is not None and wait.due_at.timestamp() > time.time() + 50) == ("signal", True)
    flow.signal("approved")
    assert names(flow.finish(run_id)) == ["before", "approved", "after"]
    assert Runs(flow.broker).get(run_id).state == "done"


def test_a_press_of_add_to_queue_changes_nothing(flow: FlowTest) -> None:
    run_id = flow.run(approval(flow, timeout=60_000)).run_id
    connection = flow.broker.connection
    before = connection.call("ZRANGE", "schedule", 0, -1, "WITHSCORES")
    (member,) = connection.call("ZRANGE", "schedule", 0, -1)
    connection.call("ZREM", "schedule", member)
    connection.call("LPUSH", "queue:python", member)
    flow.drain()
    assert connection.call("ZRANGE", "schedule", 0, -1, "WITHSCORES") == before
    flow.signal("approved")
    assert names(flow.finish(run_id)) == ["before", "approved", "after"]


def test_a_signal_pushes_no_step_that_has_left_schedule(flow: FlowTest) -> None:
    run_id = flow.run(approval(flow, timeout=60_000)).run_id
    connection = flow.broker.connection
    (member,) = connection.call("ZRANGE", "schedule", 0, -1)
    connection.call("ZREM", "schedule", member)
    connection.call("LPUSH", "queue:python", member)
    assert Runs(flow.broker).signal(run_id, "approved")
    assert connection.call("LRANGE", "queue:python", 0, -1) == [member]
    assert names(flow.finish(run_id)) == ["before", "approved", "after"]


def test_a_cancelled_run_waits_for_nothing(flow: FlowTest) -> None:
    run_id = flow.run(approval(flow)).run_id
    runs = Runs(flow.broker)
    assert runs.cancel(run_id).state == "cancelled"
    assert flow.broker.connection.call("ZCARD", "schedule") == 0
    assert runs.signal(run_id, "approved") is False


def test_what_is_kept_lives_as_long_as_the_wait(flow: FlowTest) -> None:
    run_id = flow.run(Chain(WaitFor("first", 60_000), approval(flow))).run_id
    flow.signal("other", run_id=run_id)
    flow.signal("first")
    flow.drain()
    call = flow.broker.connection.call
    half_a_year = 180 * 86_400
    kept = [key for key in call("KEYS", f"*{run_id}*") if not key.startswith(b"swf:run:")]
    assert {key for key in kept if call("TTL", key) < half_a_year} == set()
    barriers = [key for key in call("KEYS", "*_ran") if call("GET", key) == b"-1"]
    assert [call("TTL", key) >= half_a_year for key in barriers] == [True]


def test_workers_and_signals_at_the_same_time(broker: SidekiqBroker, client: redis.Redis) -> None:
    """Whichever comes first, each step goes on once."""
    seen: list[int] = []

    @dramatiq.actor(queue_name="python", broker=broker)
    def after(number: int) -> None:
        seen.append(number)

    runs = Runs(broker)
    with working(broker):
        ids = [Workflow(Chain(WaitFor("go"), after.message(n)), broker).run() for n in range(60)]
        threads = [
            threading.Thread(target=lambda part: [runs.signal(run_id, "go") for run_id in part], args=(ids[n::2],))
            for n in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        eventually(lambda: len(seen) >= 60)
        eventually(lambda: all(runs.get(run_id).state == "done" for run_id in ids))
    assert sorted(seen) == list(range(60))
    assert (in_flight(client), client.zcard("schedule")) == ([], 0)


def test_the_time_of_a_step_passes(broker: SidekiqBroker, client: redis.Redis) -> None:
    seen = threading.Event()

    @dramatiq.actor(queue_name="python", broker=broker)
    def after() -> None:
        seen.set()

    with working(broker):
        Workflow(WaitFor("never", 50, after.message(), queue="python"), broker).run()
        assert seen.wait(20)


def test_a_filter_and_a_coroutine(flow: FlowTest) -> None:
    workflow = Workflow(approval(flow), flow.broker, tags=["nightly"])
    run_ids = [flow.run(workflow).run_id, flow.run(workflow).run_id]
    runs = Runs(flow.broker)
    assert set(runs.signal(name="approved", tag="nightly")) == set(run_ids)
    assert [names(flow.finish(run_id)) for run_id in run_ids] == [["before", "approved", "after"]] * 2
    assert asyncio.run(runs.signal_async(run_ids[0], "approved")) is False
    assert runs.signal(name="approved", tag="nightly") == []


def test_wrong_signals_are_refused(flow: FlowTest) -> None:
    runs = Runs(flow.broker)
    with pytest.raises(UnknownRun):
        runs.signal("none", "approved")
    with pytest.raises(InvalidFilter):
        runs.signal(name="approved")
    with pytest.raises(InvalidFilter):
        runs.signal("id", "approved", tag="x")  # type: ignore[call-overload]
    with pytest.raises(InvalidWorkflow):
        runs.signal("id", "two\nlines")


def test_the_command(flow: FlowTest, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = flow.run(approval(flow)).run_id
    url = str(flow.broker.connection.call("CONFIG", "GET", "port"))
    port = "".join(filter(str.isdigit, url))
    arguments = ["runs", "signal", run_id, "approved", "--url", f"redis://127.0.0.1:{port}/0"]
    assert main([*arguments, "--data", "{"]) == 2
    assert "not JSON" in capsys.readouterr().err
    assert main([*arguments, "--data", '{"by": "Ada"}']) == 0
    assert flow.finish(run_id).memory == {"approved": {"by": "Ada"}}
    assert main(arguments) == 1


@pytest.mark.parametrize(
    "arguments", [("",), ("a\nb",), ("x" * 201,), (7,), ("a", -1), ("a", 1.5), ("a", None, None, "")], ids=repr
)
def test_wrong_nodes_are_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidWorkflow):
        WaitFor(*arguments)


def test_wrong_arguments_in_a_payload_are_refused(flow: FlowTest) -> None:
    workflow = Workflow(WaitFor("approved"), flow.broker)
    workflow.wire["args"] = ["approved", "soon"]
    assert [dead["error_class"] for dead in flow.run(workflow).dead] == ["InvalidPayload"]


def test_it_is_shown(flow: FlowTest) -> None:
    workflow = Workflow(approval(flow, timeout=5), flow.broker)
    assert str(workflow).splitlines()[2] == "  wait for approved in python"
    assert 's2["wait for approved"]' in workflow.mermaid()


def test_ruby_can_push_it(flow: FlowTest) -> None:
    workflow = Workflow(Chain(Job("Docs::Thumb"), WaitFor("approved")), flow.broker)
    wait = workflow.wire["children"][1]
    assert (wait["class"], wait["wrapped"]) == ("Sidekiq::Workflow::NoopWorker", "wait for approved")
    flow.ruby("Docs::Thumb")
    flow.run(workflow)
    assert [job["wrapped"] for job in members_of(flow, "schedule")] == ["wait for approved"]


def members_of(flow: FlowTest, name: str) -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in flow.broker.connection.call("ZRANGE", name, 0, -1)]


def test_on_another_broker_it_is_refused(redis_url: str) -> None:
    broker = StubBroker()
    broker.add_middleware(WorkflowMiddleware(url=redis_url))
    with pytest.raises(ConfigurationError, match="WaitFor needs a SidekiqBroker"):
        Workflow(WaitFor("approved", queue="python"), broker)
    broker.close()


def test_a_test_says_if_no_run_waits(flow: FlowTest) -> None:
    for call in (flow.signal, flow.time_out):
        with pytest.raises(ConfigurationError, match="No run waits"):
            call("approved")
