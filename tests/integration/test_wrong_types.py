"""Keys of another type, and barriers that are not whole numbers: a named error, and nothing is written."""

from __future__ import annotations

import time
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Group, SidekiqBroker, WithDelay, Workflow
from dramatiq_sidekiq_flow.store import foreign_runs, runs, sets

from ..running import in_flight, members

NUMBERS = ["nan", "1.5", "1e400", str(2**70), "text", "", " 1", "+1", "0x10", "01", "-0", "inf", "9" * 16]


@pytest.fixture
def step(broker: SidekiqBroker) -> Any:
    @dramatiq.actor(queue_name="python")
    def step(name: str) -> None: ...

    return step


def barriers(job: dict[str, Any]) -> list[str]:
    return [barrier for barrier, _, _ in job["workflow_completion_callbacks"]]


@pytest.mark.parametrize("suffix", ["", "_ran"])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_barrier_that_is_no_whole_number(
    broker: SidekiqBroker, client: redis.Redis, step: Any, number: str, suffix: str
) -> None:
    Workflow(Chain(step.message("a"), step.message("b"))).run()
    (job,) = members(client, "python")
    (barrier,) = barriers(job)
    client.set(barrier + suffix, number)
    consumer = broker.consume("python", prefetch=1)
    message = next(consumer)
    consumer.ack(message)
    (dead,) = members(client, "dead")
    assert dead["error_class"] == "WrongType"
    assert not in_flight(client)
    # Mended, and retried from there, its run goes on.
    client.set(barrier + suffix, -1 if suffix else 1)
    client.lpush("queue:python", client.zpopmin("dead")[0][0])
    consumer.ack(next(consumer))
    assert [job["args"] for job in members(client, "python")] == [["b"]]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_barrier_that_is_no_whole_number_on_another_broker(
    broker: SidekiqBroker, client: redis.Redis, number: str
) -> None:
    client.set("barrier", number)
    client.set("barrier_ran", -1)
    count = foreign_runs.count("unit", [runs.Walk("barrier", "s")], ttl=100)
    assert broker.connection.call(*count.command) == [b"TYPE", b"barrier"]
    assert client.get("barrier") == number.encode()


@pytest.mark.parametrize("value", [1, 2, 9 * 10**14, 0, -5])
def test_whole_numbers_are_counted(broker: SidekiqBroker, client: redis.Redis, value: int) -> None:
    client.set("barrier", value)
    client.set("barrier_ran", -1)
    count = foreign_runs.count("unit", [runs.Walk("barrier", "s")], ttl=100)
    assert broker.connection.call(*count.command) == [b"DONE"]
    assert client.get("barrier") == str(value - 1).encode()


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("key", ["queues", "queue:next", "schedule"])
def test_what_follows_cannot_be_written(
    broker: SidekiqBroker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, step: Any, key: str, staged: bool
) -> None:
    if staged:
        monkeypatch.setattr(runs, "MAX_INLINE", 1)

    @dramatiq.actor(queue_name="next")
    def following() -> None: ...

    after: Group | WithDelay = Group(*(following.message() for _ in range(3)))
    if key == "schedule":
        after = WithDelay(after, 60_000)
    Workflow(Chain(step.message("a"), after)).run()
    client.delete("queues")
    client.set(key, "text")
    consumer = broker.consume("python", prefetch=1)
    consumer.ack(next(consumer))
    (dead,) = members(client, "dead")
    assert dead["error_class"] == "WrongType"
    assert client.get(key) == b"text"


def test_a_failure_whose_in_flight_hash_is_none(broker: SidekiqBroker, client: redis.Redis) -> None:
    client.set("swf:inflight:m", "text")
    fail = sets.fail("m", "1:1", "dead", now=time.time(), payload=b"{}")
    assert broker.connection.call(*fail.command) == [b"TYPE", b"swf:inflight:m"]
    assert not client.exists("dead")
