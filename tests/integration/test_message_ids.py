"""The id of a message is the jid of its job, as a step too."""

from __future__ import annotations

import json
import logging
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.middleware import CurrentMessage
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from dramatiq_sidekiq_flow import Chain, Group, Job, Namespace, SidekiqBroker, WithDelay, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.errors import InvalidWorkflow

from ..redis_values import raws
from ..running import eventually, members, working


@pytest.fixture
def step(broker: SidekiqBroker) -> Any:
    @dramatiq.actor(queue_name="python", broker=broker)
    def step(*args: Any) -> None: ...

    return step


def jids(job: dict[str, Any]) -> list[str]:
    """The jid of a job, then those of its callback stack's jobs."""
    found = [job["jid"]]

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("__type__") == "job" and "jid" in value:
                found.append(value["jid"])
            for inner in value.values():
                look(inner)
        elif isinstance(value, list):
            for inner in value:
                look(inner)

    look(job.get("workflow_completion_callbacks"))
    return found


def test_results_are_found_by_the_id_of_each_steps_message(redis_url: str) -> None:
    backend = RedisBackend(url=redis_url)
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(Results(backend=backend))
    broker.add_middleware(WorkflowMiddleware())

    @dramatiq.actor(queue_name="python", store_results=True, broker=broker)
    def add(a: int, b: int) -> int:
        return a + b

    messages = [add.message(n, n) for n in range(4)]
    Workflow(Chain(messages[0], Group(messages[1], messages[2]), messages[3]), broker).run()
    with working(broker):
        results = [message.get_result(backend=backend, block=True, timeout=10_000) for message in messages]
    assert results == [0, 2, 4, 6]
    broker.close()


def test_ids_travel_in_the_tree_and_in_a_carrier(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    first, second, third = step.message(1), step.message(2), step.message(3)
    Workflow(
        Chain(first, Job("Docs::Load", queue="ruby"), WithDelay(second, 5_000), Namespace("n", third)), broker
    ).run()
    (job,) = members(client, "python")
    assert job["class"] == "Sidekiq::Workflow::NoopWorker"
    assert jids(job) == [first.message_id, second.message_id, third.message_id]


def test_a_job_may_be_given_its_jid(broker: SidekiqBroker, client: redis.Redis) -> None:
    Workflow(Job("Docs::Load", jid="b" * 24, queue="ruby"), broker).run()
    (job,) = members(client, "ruby")
    assert job["jid"] == "b" * 24


def test_a_message_that_stands_in_a_tree_twice_is_two_jobs(
    broker: SidekiqBroker, client: redis.Redis, step: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[str] = []

    @dramatiq.actor(queue_name="python", broker=broker)
    def last() -> None:
        ran.append("last")

    message = step.message("x")
    with caplog.at_level(logging.WARNING):
        workflow = Workflow(Chain(Group(message, message), last.message()), broker)
    assert "step is in this workflow twice" in caplog.text
    assert "Call .message(...) for each step" in caplog.text
    workflow.run()
    one, other = (job["jid"] for job in members(client, "python"))
    assert one != other
    assert message.message_id in (one, other)
    with working(broker):
        eventually(lambda: ran == ["last"])


def test_a_message_in_a_second_run_gets_another_id(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    message = step.message("x")
    workflow = Workflow(message, broker)
    workflow.run("one")
    workflow.run("one")  # the same run: it was started
    workflow.run("two")
    Workflow(Chain(message), broker).run("three")
    found = {job["workflow_run_id"]: job["jid"] for job in members(client, "python")}
    assert found["one"] == message.message_id
    assert len({*found.values()}) == 3
    # Derived, so that the run that is started again after a crash has the same ones.
    client.flushall()
    workflow.run("two")
    assert [job["jid"] for job in members(client, "python")] == [found["two"]]


def test_a_message_that_was_sent_is_not_a_step(broker: SidekiqBroker, step: Any) -> None:
    with pytest.raises(InvalidWorkflow, match=r"was sent already.*step\.message\(\.\.\.\) instead of \.send"):
        Workflow(Chain(step.send(1)), broker)


def test_a_step_that_enqueues_its_own_message_fails(redis_url: str, client: redis.Redis) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(CurrentMessage())
    broker.add_middleware(WorkflowMiddleware())
    ran: list[str] = []

    @dramatiq.actor(queue_name="python", max_retries=0, broker=broker)
    def again(how: str) -> None:
        message: Any = CurrentMessage.get_current_message()
        if how == "enqueue":
            broker.enqueue(message, delay=2000)
        else:
            Workflow(Chain(message.copy()), broker).run()

    @dramatiq.actor(queue_name="python", broker=broker)
    def plain() -> None:
        ran.append("plain")
        if len(ran) == 1:
            broker.enqueue(CurrentMessage.get_current_message())  # type: ignore[arg-type]

    for how in ("enqueue", "workflow"):
        Workflow(Chain(again.message(how), plain.message()), broker).run()
    with working(broker):
        eventually(lambda: client.zcard("dead") == 2)
        assert ran == []
        # A job outside of a workflow may, as everywhere in Dramatiq.
        plain.send()
        eventually(lambda: ran == ["plain", "plain"])
    for job in map(json.loads, raws(client.zrange("dead", 0, -1))):
        assert job["error_class"] == "StepEnqueuedItself"
        assert "raise dramatiq.errors.Retry(delay=...)" in job["error_message"]
    broker.close()
