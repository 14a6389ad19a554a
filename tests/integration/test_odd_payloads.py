"""Payloads with odd values: a worker runs them or buries them, and goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, InlineCallbackStorage, Job, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.errors import InvalidArguments
from dramatiq_sidekiq_flow.wire import codec

from ..redis_values import scored
from ..running import eventually, working

UUID = "224a1be4-c469-4117-94af-8540a8358a95"


def test_a_past_eta_runs_no_step_early(broker: SidekiqBroker, client: redis.Redis) -> None:
    broker.add_middleware(WorkflowMiddleware())
    order: list[str] = []

    @dramatiq.actor(queue_name="python", actor_name="Step")
    def step(name: str) -> None:
        if name == "first":
            time.sleep(0.2)
        order.append(name)

    following = {"__type__": "job", "class": "Step", "args": ["second"], "queue": "python", "dramatiq": {"eta": 1}}
    client.set(UUID, 1)
    client.set(f"{UUID}_ran", -1)
    first = {
        "class": "Step",
        "args": ["first"],
        "jid": "1" * 24,
        "queue": "python",
        "retry": True,
        "workflow_run_id": UUID,
        "workflow_completion_callbacks": [[UUID, {"__type__": "chain", "children": [following]}, False]],
        "dramatiq": {"eta": 1},
    }
    client.lpush("queue:python", json.dumps(first))
    with working(broker):
        eventually(lambda: len(order) == 2)
    assert order == ["first", "second"]


def test_a_step_of_a_ruby_tree_waits_for_its_at(broker: SidekiqBroker, client: redis.Redis) -> None:
    broker.add_middleware(WorkflowMiddleware())
    ran: list[Any] = []

    @dramatiq.actor(queue_name="python", actor_name="Step")
    def step(name: str) -> None:
        ran.append(name)

    at = time.time() + 40 * 86_400
    inside = {"__type__": "job", "class": "Step", "args": ["later"], "queue": "python", "at": at}
    last = {"__type__": "job", "class": "Step", "args": ["last"], "queue": "python"}
    client.set(UUID, 1, ex=1000)
    client.set(f"{UUID}_ran", -1, ex=1000)
    fields = {
        "class": "Step",
        "args": ["first"],
        "jid": "1" * 24,
        "queue": "python",
        "retry": True,
        "workflow_run_id": UUID,
        "workflow_completion_callbacks": [[UUID, {"__type__": "chain", "children": [inside, last]}, False]],
    }
    client.lpush("queue:python", json.dumps(fields))
    with working(broker):
        eventually(lambda: client.zcard("schedule"))
    ((member, score),) = scored(client.zrange("schedule", 0, -1, withscores=True))
    assert score == pytest.approx(at)
    job = json.loads(member)
    assert job["args"] == ["later"]
    assert "at" not in job
    # What waits behind it is still there when it has run, and for its retries.
    ((barrier, _, _),) = job["workflow_completion_callbacks"]
    assert client.ttl(barrier) > 60 * 86_400
    assert ran == ["first"]


@pytest.mark.parametrize("how", ["send", "delay", "workflow", "next step"])
def test_too_large_is_refused_at_the_caller(
    broker: SidekiqBroker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    broker.add_middleware(WorkflowMiddleware(callback_storage=InlineCallbackStorage()))
    monkeypatch.setattr(codec, "MAX_SIZE", 5000)

    @dramatiq.actor(queue_name="python")
    def step(text: str) -> None: ...

    text = "x" * 6000
    calls: dict[str, Callable[[], Any]] = {
        "send": lambda: step.send(text),
        "delay": lambda: step.send_with_options(args=(text,), delay=1000),
        "workflow": lambda: Workflow(step.message(text)).run(),
        # It is in the callback stack of the first step.
        "next step": lambda: Workflow(Chain(step.message("small"), Job("Docs::Load", text))).run(),
    }
    with pytest.raises(InvalidArguments, match=r"has 6\d\d\d bytes, more than the 5000 that a worker reads"):
        calls[how]()
    assert not client.keys("queue:*")
    assert not client.exists("schedule")
