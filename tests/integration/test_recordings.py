"""The recorded workflows, replayed: what the real gem wrote, we write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import RedisHashMemory, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.workflow.precheck import Precheck

from ..recordings import cases, comparable, restore, snapshot, without_numbers
from ..redis_values import as_bytes
from ..tree_reader import load

#: The classes of the recording that say something of themselves.
CLASSES: dict[str, dict[str, Any]] = {
    "Rb::Fetch": {"queue": "critical"},
    "Rb::Load": {"queue": "critical", "retry": 3, "backtrace": True, "tags": ["etl"]},
}
RUN_ID = "11111111-2222-3333-4444-555555555555"
CASES = cases()


@pytest.fixture
def broker(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SidekiqBroker]:
    # The gem puts no job behind a run that ends in Ruby.
    monkeypatch.setattr(Precheck, "end_queue", lambda self, wire: None)
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(ttl=300_000), classes=CLASSES))
    for queue in ("default", "critical"):
        broker.declare_queue(queue)

    @dramatiq.actor(actor_name="PyEnrich", queue_name="python", max_retries=5, broker=broker)
    def enrich(argument: Any) -> None: ...

    yield broker
    broker.close()


def complete(broker: SidekiqBroker, client: redis.Redis, queue: str, raw: bytes, returned: Any) -> None:
    """Take this very payload through a consumer, as a worker would."""
    # The recording took delayed jobs straight out of `schedule`.
    if client.zrem("schedule", raw):
        client.rpush(f"queue:{queue}", raw)
    consumer = broker.consume(queue, prefetch=1, timeout=1000)
    message = next(consumer)
    assert message is not None
    assert message.payload.raw == raw
    message.output = returned
    broker.emit_before("ack", message)
    consumer.ack(message)
    consumer.close()


def next_payload(client: redis.Redis, queue: str) -> bytes:
    """What a worker takes next: from the queue, else from ``schedule``."""
    waiting = client.lrange(f"queue:{queue}", -1, -1) or client.zrange("schedule", 0, 0)
    return as_bytes(waiting[0])


@pytest.mark.parametrize("case", [c for _, c in CASES], ids=[n for n, _ in CASES])
def test_run_and_every_step(broker: SidekiqBroker, client: redis.Redis, case: dict[str, Any]) -> None:
    """``Workflow.run`` writes what the gem wrote, and so does completing each of our jobs."""
    workflow = Workflow(load(case["tree"]), broker=broker)
    assert without_numbers(workflow.wire) == case["tree"]
    assert workflow.run(RUN_ID) == RUN_ID
    assert comparable(snapshot(client)) == comparable(case["after_run"])
    for step in case["steps"]:
        raw = next_payload(client, step["queue"])
        fields, recorded = json.loads(raw), json.loads(step["payload"])
        assert fields["class"] == recorded["class"]
        assert fields["args"] == recorded["args"]
        # bit for bit: 1 is not 1.0, and -0.0 is not 0.0
        assert repr(fields["args"]) == repr(recorded["args"])
        complete(broker, client, step["queue"], raw, step["returned"])
        assert comparable(snapshot(client)) == comparable(step["after"])


@pytest.mark.parametrize("case", [c for _, c in CASES], ids=[n for n, _ in CASES])
def test_the_gems_own_payloads(broker: SidekiqBroker, client: redis.Redis, case: dict[str, Any]) -> None:
    """From the state that Ruby left, completing Ruby's payload gives Ruby's next state."""
    before = case["after_run"]
    for step in case["steps"]:
        restore(client, before)
        raw = step["payload"].encode()
        complete(broker, client, step["queue"], raw, step["returned"])
        assert comparable(snapshot(client)) == comparable(step["after"])
        before = step["after"]


def test_there_are_36_cases() -> None:
    assert len(CASES) == 36
