"""Payloads with odd values: a worker runs them or buries them, and goes on."""

from __future__ import annotations

import json
import time
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Job, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.errors import InvalidArguments
from dramatiq_sidekiq_flow.wire import codec

from ..running import eventually, in_flight, members, working

UUID = "224a1be4-c469-4117-94af-8540a8358a95"

HUGE = 10**400

#: Keys that once stopped a thread, filled a process or ran a step early.
ODD: dict[str, dict[str, Any]] = {
    "a throws that is not a class": {"dramatiq": {"throws": "ValueError"}},
    "a far eta": {"dramatiq": {"eta": 10**14}},
    "a past eta": {"dramatiq": {"eta": 1}},
    "an eta that is text": {"dramatiq": {"eta": "now"}},
    "a time limit that is text": {"dramatiq": {"time_limit": "5"}},
    "a time limit without end": {"dramatiq": {"time_limit": HUGE}},
    "an age that is text": {"dramatiq": {"max_age": "5"}},
    "a target that is none": {"dramatiq": {"pipe_target": 5}},
    "callbacks that are none": {"dramatiq": {"on_failure": ["x"], "group_completion_callbacks": "x"}},
    "options that are a list": {"dramatiq": [1]},
    "a huge created_at": {"created_at": HUGE},
    "an infinite created_at": {"created_at": "1.e999"},
    "a huge failed_at": {"failed_at": HUGE, "retry_for": 5, "retry_count": 1},
    "a huge retry_for": {"retry_for": HUGE, "failed_at": 1.0, "retry_count": 1},
    "a negative retry_for": {"retry_for": -HUGE},
    "a huge retry_count": {"retry_count": HUGE, "retry": HUGE * 10},
    "a negative retry_count": {"retry_count": -HUGE},
    "a huge retry": {"retry": HUGE},
    "a huge backtrace": {"backtrace": HUGE},
    "a retry_queue that is a dict": {"retry_queue": {"a": 1}},
    "tags that are a number": {"tags": 7},
}


@pytest.mark.parametrize("fails", [False, True])
def test_odd_values_stop_no_worker(broker: SidekiqBroker, client: redis.Redis, fails: bool) -> None:
    broker.add_middleware(WorkflowMiddleware())
    ran: list[Any] = []

    @dramatiq.actor(queue_name="python", actor_name="Odd")
    def odd(name: str) -> None:
        ran.append(name)
        if fails and name in ODD:
            raise ValueError("bad")

    for name, keys in ODD.items():
        fields = {"class": "Odd", "args": [name], "jid": name.ljust(24), "queue": "python", "retry": True, **keys}
        client.lpush("queue:python", codec.encode(fields))
    for number in range(20):
        odd.send(f"good {number}")
    with working(broker):
        eventually(lambda: len(ran) == len(ODD) + 20)
        eventually(lambda: not in_flight(client))
    assert sorted(ran) == sorted([*ODD, *(f"good {number}" for number in range(20))])
    failed = {job["args"][0] for name in ("retry", "dead") for job in members(client, name)}
    assert failed == (set(ODD) if fails else set())


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
    ((member, score),) = client.zrange("schedule", 0, -1, withscores=True)
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
    broker.add_middleware(WorkflowMiddleware())
    monkeypatch.setattr(codec, "MAX_SIZE", 5000)

    @dramatiq.actor(queue_name="python")
    def step(text: str) -> None: ...

    text = "x" * 6000
    calls = {
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
