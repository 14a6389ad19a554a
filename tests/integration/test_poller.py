"""What is due is promoted: by Redis's clock, past whatever cannot be, and without haste."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.errors import Retry

from dramatiq_sidekiq_flow import SidekiqBroker

from ..running import eventually, members, working


@pytest.fixture
def slow(redis_url: str) -> Iterator[SidekiqBroker]:
    """A broker whose poller looks by itself once a minute, after its first look."""
    broker = SidekiqBroker(url=redis_url, poll_interval=60_000)
    yield broker
    broker.process.heartbeat.stop()
    broker.close()


def job(n: int, **changes: Any) -> str:
    return json.dumps({"class": "good", "args": [n], "jid": f"{n:024x}", "queue": "default", "retry": True, **changes})


def test_the_time_of_day_is_that_of_redis(
    broker: SidekiqBroker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    client.zadd("schedule", {job(1): now - 1, job(2): now + 600})
    real = time.time
    for offset in (3600, -3600):
        monkeypatch.setattr(time, "time", lambda offset=offset: real() + offset)
        broker.process.poller.poll()
        assert [j["args"] for j in members(client, "default")] == [[1]]


def test_a_clock_that_is_set_back_does_not_stop_the_poller(
    broker: SidekiqBroker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, offset = time.time, [3600.0]
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])
    broker.process.poller.start()
    client.zadd("schedule", {job(1): real()})
    eventually(lambda: client.llen("queue:default") == 1)
    offset[0] = 0.0
    client.zadd("schedule", {job(2): real()})
    eventually(lambda: client.llen("queue:default") == 2)
    broker.process.poller.stop()


def test_a_short_delay_does_not_wait_for_the_next_look(slow: SidekiqBroker, client: redis.Redis) -> None:
    ran: list[str] = []

    @dramatiq.actor(queue_name="python", broker=slow)
    def step(name: str) -> None:
        ran.append(name)

    with working(slow):
        eventually(lambda: slow.process.poller._loop._due > time.monotonic() + 1)
        step.send_with_options(args=("delayed",), delay=50)
        eventually(lambda: ran == ["delayed"])
        step.send_with_options(args=("later",), delay=500)
        step.send_with_options(args=("sooner",), delay=20)
        eventually(lambda: ran == ["delayed", "sooner", "later"])


def test_a_short_retry_does_not_wait_for_the_next_look(slow: SidekiqBroker, client: redis.Redis) -> None:
    tries: list[int] = []

    @dramatiq.actor(queue_name="python", broker=slow, min_backoff=50, max_backoff=100)
    def fails() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise Retry(delay=50) if len(tries) == 1 else ValueError

    with working(slow):
        eventually(lambda: slow.process.poller._loop._due > time.monotonic() + 1)
        fails.send()
        eventually(lambda: len(tries) == 3)


@pytest.mark.parametrize(("odd", "other"), [("schedule", "retry"), ("retry", "schedule")])
def test_a_set_of_another_type_keeps_no_other_back(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture, odd: str, other: str
) -> None:
    client.set(odd, "text")
    client.zadd(other, {job(1): 1.0})
    for _ in range(5):
        broker.process.poller.poll()
    assert client.llen("queue:default") == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"The Redis key {odd!r} holds a string, not a sorted set. Remove it."
    ]


def test_with_queues_of_another_type_what_is_due_waits(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.set("queues", "text")
    due: dict[Any, float] = {job(n): 1.0 for n in range(3)}
    client.zadd("schedule", due | {b"not JSON": 1.0})
    for _ in range(5):
        broker.process.poller.poll()
    assert (client.zcard("schedule"), client.zcard("dead"), client.llen("queue:default")) == (3, 1, 0)
    assert sum("'queues' is of another type" in record.getMessage() for record in caplog.records) == 1
    client.delete("queues")
    assert broker.process.poller.poll() == 3
    assert client.llen("queue:default") == 3


def test_what_cannot_be_moved_is_looked_at_once_and_passed_over(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.set("dead", "text")
    client.set("queue:odd", "text")
    bad: dict[Any, float] = {b"not JSON %d" % n: 1.0 for n in range(150)}
    client.zadd("schedule", bad | {job(n, queue="odd"): 2.0 for n in range(150)} | {job(n): 3.0 for n in range(150)})
    client.config_resetstat()
    with caplog.at_level(logging.INFO):
        assert broker.process.poller.poll() == 150
    assert (client.zcard("schedule"), client.llen("queue:default")) == (300, 150)
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] < 20
    assert len(caplog.records) == 1
    caplog.clear()
    client.delete("dead")
    assert broker.process.poller.poll() == 300
    assert client.zcard("dead") == 300
    # One line for all that could not be read.
    (record,) = caplog.records
    assert "150 members of 'schedule' cannot be read" in record.getMessage()


def test_a_poller_that_cannot_move_anything_does_not_spin(slow: SidekiqBroker, client: redis.Redis) -> None:
    client.set("dead", "text")
    client.zadd("schedule", {b"not JSON %d" % n: 1.0 for n in range(150)})
    client.config_resetstat()
    slow.process.poller.start()
    eventually(lambda: slow.process.poller._logged)

    def calls() -> Any:
        return client.info("commandstats")["cmdstat_evalsha"]["calls"]

    eventually(lambda: calls() >= 5)
    # Each nudge is one look more, and nothing else is.
    client.zadd("retry", {job(1): time.time()})
    slow.process.poller.nudge(0.0)
    eventually(lambda: client.llen("queue:default"))
    slow.process.poller.stop()
    assert calls() <= 15


def test_an_idle_poller_sends_one_command_for_each_look(broker: SidekiqBroker, client: redis.Redis) -> None:
    client.zadd("schedule", {job(1): time.time() + 600})
    broker.process.poller.poll()
    broker.connection.call("PING")  # opens its connection
    with client.monitor() as monitor:
        broker.process.poller.poll()
        broker.connection.call("PING")
        seen: list[Any] = []
        while not seen or not seen[-1].startswith("PING"):
            command = monitor.next_command()
            if command["client_type"] != "lua":
                seen.append(command["command"])
    assert [name.split()[0] for name in seen] == ["EVALSHA", "PING"]


def test_queues_that_are_no_names_go_to_dead(broker: SidekiqBroker, client: redis.Redis) -> None:
    for n, queue in enumerate(({"a": 1}, ["a"], "\ud800")):
        client.zadd("schedule", {job(n, queue=queue): 1.0})
    client.zadd("schedule", {job(5, queue=5): 2.0, job(6, queue=""): 2.0})
    broker.process.poller.poll()
    assert client.zcard("dead") == 3
    assert client.smembers("queues") == {b"5", b"default"}
