"""Tenant, locale and trace go from job to job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Job, SidekiqBroker, Workflow, WorkflowMiddleware, current_run
from dramatiq_sidekiq_flow.testing import FlowTest
from dramatiq_sidekiq_flow.wire.payload import INHERITED

from ..running import eventually, members, working

#: A key of each kind that is handed on.
CONTEXT: dict[str, Any] = {
    **{key: {"key": key} for key in INHERITED},
    "cattr_1": [1],
    "x-datadog-trace-id": "7",
    "shop": {"id": 7},
}
OWN = {"unknown": "kept", "tags": ["its own"]}


@pytest.fixture
def broker(redis_url: str) -> Iterator[SidekiqBroker]:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(inherit=["shop"]))
    yield broker
    broker.close()


def push(client: redis.Redis, name: str, **fields: Any) -> None:
    """A job as Ruby pushes it."""
    job = {"class": name, "args": [], "jid": "a" * 24, "queue": "python", "retry": 0, "created_at": 1.0, **fields}
    client.sadd("queues", "python")
    client.lpush("queue:python", json.dumps(job))


def context_of(job: dict[str, Any]) -> dict[str, Any]:
    return {key: job[key] for key in {**CONTEXT, **OWN} if key in job}


def test_a_continuation_has_the_context_of_the_step_before(broker: SidekiqBroker, client: redis.Redis) -> None:
    seen: list[Any] = []

    @dramatiq.actor(queue_name="python", broker=broker, actor_name="Py::Step")
    def step() -> None:
        run = current_run()
        seen.append(run.context)

    barrier = "6f0d5a52-3b0e-4c57-9f8e-0a4f5f6b7c8d"
    client.set(barrier, 1, ex=900)
    client.set(f"{barrier}_ran", -1, ex=900)
    said = {"__type__": "job", "class": "R", "args": [], "queue": "ruby", "locale": "its own"}
    stack = [[barrier, {"__type__": "chain", "children": [said]}, False]]
    push(client, "Py::Step", workflow_run_id="r", workflow_completion_callbacks=stack, **CONTEXT, **OWN)
    with working(broker):
        (job,) = eventually(lambda: members(client, "ruby"))
    assert context_of(job) == {**CONTEXT, "locale": "its own"}
    assert dict(seen[0]) == CONTEXT
    with pytest.raises(TypeError):
        seen[0]["locale"] = "de"


def test_attributes_that_rails_serialized_are_read(broker: SidekiqBroker, client: redis.Redis) -> None:
    """Sidekiq 8 writes CurrentAttributes as ActiveJob serializes arguments; a continuation has its bytes."""
    seen: list[Any] = []

    @dramatiq.actor(queue_name="python", broker=broker, actor_name="Py::Step")
    def step() -> None:
        seen.append(current_run().context)

    symbol = {"_aj_serialized": "ActiveJob::Serializers::SymbolSerializer", "value": "tenant"}
    cattr = [[symbol, {"_aj_globalid": "gid://app/Tenant/7"}]]
    said = {"__type__": "job", "class": "R", "args": [], "queue": "ruby"}
    barrier = "6f0d5a52-3b0e-4c57-9f8e-0a4f5f6b7c8d"
    client.set(barrier, 1, ex=900)
    client.set(f"{barrier}_ran", -1, ex=900)
    push(client, "Py::Step", workflow_run_id="r", workflow_completion_callbacks=[[barrier, said, False]], cattr=cattr)
    with working(broker):
        (job,) = eventually(lambda: members(client, "ruby"))
    assert seen[0]["cattr"] == {"tenant": "gid://app/Tenant/7"}
    assert job["cattr"] == cattr


def test_what_a_job_sends_has_its_context_whether_it_is_a_step_or_not(
    broker: SidekiqBroker, client: redis.Redis
) -> None:
    @dramatiq.actor(queue_name="later", broker=broker)
    def other() -> None: ...

    @dramatiq.actor(queue_name="python", broker=broker)
    def sends() -> None:
        other.send()
        other.send_with_options(args=(), locale="its own")
        Workflow(Chain(Job("R", queue="ruby")), broker).run()

    push(client, "sends", **CONTEXT, **OWN)
    worker = dramatiq.Worker(broker, queues={"python"}, worker_threads=1, worker_timeout=100)
    worker.start()
    (job,) = eventually(lambda: members(client, "ruby"))
    worker.stop()
    told, sent = members(client, "later")
    assert context_of(job) == context_of(sent) == CONTEXT
    assert context_of(told) == {**CONTEXT, "locale": "its own"}
    # Dramatiq's middleware finds it where it always does.
    assert told["dramatiq"] == {"locale": "its own"}


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_for_what_comes_after(broker: SidekiqBroker, fails: bool) -> None:
    @dramatiq.actor(queue_name="python", broker=broker)
    def step(fails: bool = False) -> None:
        if fails:
            raise ValueError

    with FlowTest(broker) as flow:
        client = broker.connection.client  # of the server in use
        # One thread does everything here.
        push(client, "step", args=[fails], **CONTEXT)
        flow.drain()
        step.send()
        (job,) = members(client, "python")
        assert context_of(job) == {}
