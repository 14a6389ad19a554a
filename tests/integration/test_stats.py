"""Stats and metrics, compared with what real Sidekiq processes wrote."""

from __future__ import annotations

import calendar
import time
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import SidekiqBroker
from dramatiq_sidekiq_flow.store import stats
from dramatiq_sidekiq_flow.store.stats import Counts, Executions

from ..recordings import VERSIONS, live, snapshot
from ..redis_values import as_bytes
from ..running import eventually, working


def executions(processed: int, failed: int = 0, ms: int = 0) -> Executions:
    done = Executions()
    for number in range(processed):
        done.add(ms if number == 0 else 0, failed=number < failed)
    return done


@pytest.mark.parametrize("version", VERSIONS)
def test_the_same_jobs_leave_the_same_keys(broker: SidekiqBroker, client: redis.Redis, version: str) -> None:
    """Names, types, values and lifetimes."""
    real = {key: value for key, value in live(version).items() if key.startswith(("j|", "h|", "stat:", "Ok-"))}
    minute = max(key for key in real if key.startswith("j|"))
    hour, _, minutes = minute.rpartition("|")[2].partition(":")
    at = float(calendar.timegm((2026, 11, 24, int(hour), int(minutes), 30)))
    classes = {
        "Boom": executions(2, 2),
        "BoomNoRetry": executions(1, 1),
        "BoomDiscard": executions(1, 1),
        "BoomFor": executions(2, 2),
        "Ok": executions(21, ms=int(real[minute]["value"]["Ok|ms"])),
    }
    processed, failed = (int(real[f"stat:{name}"]["value"]) for name in ("processed", "failed"))
    counts = Counts(1, at, processed, failed, classes)
    assert stats.flush(broker.connection, "app-1:1:abc", counts, version[0]) == []
    ours = snapshot(client)
    assert ours.keys() == real.keys()
    for key, entry in real.items():
        assert (ours[key]["type"], ours[key]["value"]) == (entry["type"], entry["value"]), key
        assert ours[key]["ttl"] == pytest.approx(entry["ttl"], abs=60), key


def test_counts_sent_twice_are_added_once(broker: SidekiqBroker, client: redis.Redis) -> None:
    counts = Counts(7, time.time(), 3, 1, {"A": executions(3, 1)})
    for _ in range(2):
        assert stats.flush(broker.connection, "app-1:1:abc", counts, ("7", "8")) == []
    assert (client.get("stat:processed"), client.get("stat:failed")) == (b"3", b"1")
    for name in stats.minutes("8", time.gmtime(counts.at)):
        assert client.hget(name, "A|p") == b"3"
    later = Counts(8, counts.at, 1, 0, {})
    stats.flush(broker.connection, "app-1:1:abc", later, ("7", "8"))
    assert client.get("stat:processed") == b"4"


@pytest.mark.parametrize("lost", ["request", "reply"])
def test_a_lost_connection_loses_and_doubles_nothing(
    broker: SidekiqBroker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    broker.process.execution_stats.count_unknown()
    call = broker.connection.call
    first = iter([True])

    def call_and_lose(*command: Any) -> Any:
        if command[0] == "EVALSHA" and next(first, False):
            if lost == "reply":
                call(*command)
            raise redis.ConnectionError(f"the {lost} was lost")
        return call(*command)

    monkeypatch.setattr(broker.connection, "call", call_and_lose)
    with pytest.raises(redis.ConnectionError):
        broker.process.presence.flush()
    broker.process.execution_stats.count_unknown()
    broker.process.presence.flush()
    assert client.get("stat:processed") == b"2"


def test_a_key_of_another_type_is_left_alone(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.lpush("stat:failed", "mine")
    for _ in range(2):
        broker.process.execution_stats.count_unknown()
    broker.process.presence.flush()
    assert client.lrange("stat:failed", 0, -1) == [b"mine"]
    assert client.get("stat:processed") == b"2"
    assert "'stat:failed'" in caplog.text


def test_a_histogram_is_full_at_16_bits(broker: SidekiqBroker, client: redis.Redis) -> None:
    done = Executions(processed=70_000, buckets=[70_000] + [0] * 25)
    at = time.time()
    for number in (1, 2):
        stats.flush(broker.connection, "app-1:1:abc", Counts(number, at, 70_000, 0, {"A": done}), ("8",))
    assert client.get(stats.histogram("8", "A", time.gmtime(at))) == b"\xff\xff"


@pytest.fixture
def actors(broker: SidekiqBroker) -> dict[str, Any]:
    @dramatiq.actor(actor_name="Ok", queue_name="python")
    def ok() -> None: ...

    @dramatiq.actor(actor_name="Boom", queue_name="python", max_retries=0)
    def boom() -> None:
        raise ValueError("boom")

    @dramatiq.actor(queue_name="python", actor_name="not a constant")
    def carried() -> None: ...

    return {actor.actor_name: actor for actor in (ok, boom, carried)}


def total(client: redis.Redis, pattern: str, field: str) -> int:
    """Over all minutes: a test may run on the edge of two."""
    return sum(int(client.hget(key, field) or 0) for key in client.keys(pattern))


def test_a_worker_counts_what_it_did(broker: SidekiqBroker, client: redis.Redis, actors: dict[str, Any]) -> None:
    with working(broker):
        for _ in range(5):
            actors["Ok"].send()
        actors["Boom"].send()
        actors["not a constant"].send()
        client.rpush("queue:python", '{"class":"Nobody","args":[],"jid":"1","retry":0,"queue":"python"}', "{not json")
        eventually(lambda: client.zcard("dead") == 3)
        broker.join("python", timeout=20_000)
    # What is not a job is no execution, neither here nor in Sidekiq (processor.rb).
    assert (client.get("stat:processed"), client.get("stat:failed")) == (b"8", b"2")
    assert sum(int(as_bytes(client.get(key))) for key in client.keys("stat:processed:*")) == 8
    for pattern in ("j|20[0-9][0-9]????|*", "j|[0-9][0-9]????|*:?", "j|[0-9][0-9]????|*:??"):
        assert total(client, pattern, "Ok|p") == 5
        assert total(client, pattern, "Boom|f") == 1
        assert total(client, pattern, "not a constant|p") == 1
        assert total(client, pattern, "Nobody|p") == 0
    assert not any(client.hexists(key, "Boom|ms") for key in client.keys("j|*"))
    for pattern in ("Ok-*", "h|Ok-*"):
        assert sum(int.from_bytes(as_bytes(client.get(key))[:2], "big") for key in client.keys(pattern)) == 5


@pytest.mark.parametrize("version", VERSIONS)
def test_the_layout_is_that_of_the_processes_that_run(
    broker: SidekiqBroker, client: redis.Redis, actors: dict[str, Any], version: str
) -> None:
    (name,) = live(version)["processes"]["value"]
    client.sadd("processes", name)
    client.hset(name, "info", live(version)[name]["value"]["info"])
    with working(broker):
        actors["Ok"].send()
        broker.join("python", timeout=20_000)
    assert bool(client.keys("Ok-*")) == (version[0] == "7")
    assert bool(client.keys("h|Ok-*")) == (version[0] == "8")


@pytest.mark.parametrize(("metrics", "seven", "eight"), [("7", True, False), ("8", False, True), ("off", False, False)])
def test_the_layout_can_be_set(redis_url: str, client: redis.Redis, metrics: str, seven: bool, eight: bool) -> None:
    broker = SidekiqBroker(url=redis_url, metrics=metrics)

    @dramatiq.actor(actor_name="Ok", queue_name="python", broker=broker)
    def ok() -> None: ...

    with working(broker):
        ok.send()
        broker.join("python", timeout=20_000)
    assert (bool(client.keys("Ok-*")), bool(client.keys("h|Ok-*"))) == (seven, eight)
    assert bool(client.keys("j|*")) == (seven or eight)
    assert client.get("stat:processed") == b"1"
    broker.close()
