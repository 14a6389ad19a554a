"""The worker process, as Sidekiq's Web UI reads it."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware
from dramatiq_sidekiq_flow.store import keys, processes

from ..recordings import VERSIONS, live
from ..redis_values import fields, texts
from ..running import eventually, in_flight, members, working


def identity(client: redis.Redis) -> str:
    (found,) = texts(client.smembers("processes"))
    return found


def record(client: redis.Redis) -> dict[str, str]:
    return {k: v.decode() for k, v in fields(client.hgetall(identity(client))).items()}


def recorded(version: str) -> tuple[dict[str, str], dict[str, str]]:
    """A real process's record and work."""
    snapshot = live(version)
    (name,) = snapshot["processes"]["value"]
    return snapshot[name]["value"], snapshot[f"{name}:work"]["value"]


def kinds(value: Any) -> Any:
    """The shape of a JSON value: names and types, of a list those of its first item."""
    if isinstance(value, dict):
        return {key: kinds(item) for key, item in value.items()}
    if isinstance(value, list):
        return [kinds(value[0])] if value else []
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


@pytest.fixture
def gate(broker: SidekiqBroker) -> Callable[[], None]:
    """An actor ``gate`` that runs until the function is called."""
    opened = threading.Event()

    @dramatiq.actor(actor_name="Gate", queue_name="python", tags=["slow"])
    def gate() -> None:
        assert opened.wait(60)

    return opened.set


@contextlib.contextmanager
def at_work(broker: SidekiqBroker, gate: Callable[[], None], **options: Any) -> Iterator[dramatiq.Worker]:
    """A worker, whose gate is open at the end: a test that fails must not wait for it."""
    with working(broker, **options) as worker:
        try:
            yield worker
        finally:
            gate()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_record_has_all_that_a_real_one_has(broker: SidekiqBroker, client: redis.Redis, version: str) -> None:
    broker.declare_queue("python")
    with working(broker):
        ours = record(client)
        ttl = client.ttl(identity(client))
    real, _ = recorded(version)
    assert real.keys() <= ours.keys()
    for name in ("rss", "busy", "rtt_us", "concurrency"):
        assert ours[name].isdigit(), name
    assert int(ours["rss"]) > 1000
    assert float(ours["beat"]) == pytest.approx(time.time(), abs=60)
    assert ours["quiet"] == "false"
    assert 50 < ttl <= 60
    info, real_info = json.loads(ours["info"]), json.loads(real["info"])
    assert real_info.keys() <= info.keys()
    for name in real_info.keys() - {"capsules", "weights", "labels"}:
        assert kinds(info[name]) == kinds(real_info[name]), name
    assert kinds(info["weights"]) == [{"python": "number"}]
    if "capsules" in real_info:
        assert info["capsules"].keys() == real_info["capsules"].keys()
        assert kinds({**info["capsules"]["default"], "weights": 0}) == kinds(
            {**real_info["capsules"]["default"], "weights": 0}
        )


def test_what_the_record_says(redis_url: str, client: redis.Redis) -> None:
    broker = SidekiqBroker(url=redis_url, tag="shop", labels=["blue", "eu"], queue_order=["high", "low"])
    for name in ("low", "high", "other"):
        broker.declare_queue(name)
    with working(broker, threads=3):
        info = json.loads(record(client)["info"])
        assert info["identity"] == identity(client) == broker.process.heartbeat.identity
        assert info["identity"].split(":")[:2] == [info["hostname"], str(info["pid"])]
        assert (info["tag"], info["labels"], info["concurrency"]) == ("shop", ["blue", "eu"], 3)
        assert info["queues"] == ["high", "low", "other"]
        assert info["weights"] == [{"high": 0, "low": 0, "other": 0}]
        assert info["capsules"]["default"]["mode"] == "strict"
        assert info["embedded"] is True
    broker.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_job_at_work_is_shown(
    broker: SidekiqBroker, client: redis.Redis, gate: Callable[[], None], version: str
) -> None:
    _, (real,) = recorded(version)[0], recorded(version)[1].values()
    with at_work(broker, gate):
        jid = broker.get_actor("Gate").send().message_id
        eventually(lambda: broker.process.execution_stats.running())
        broker.process.presence.beat()
        name = f"{identity(client)}:work"
        (work,) = client.hvals(name)
        assert kinds(json.loads(work)) == kinds(json.loads(real))
        work = json.loads(work)
        assert json.loads(work["payload"])["jid"] == jid
        assert json.loads(work["payload"])["tags"] == ["slow"]
        assert work["queue"] == "python"
        assert work["run_at"] == pytest.approx(time.time(), abs=60)
        assert record(client)["busy"] == "1"
        assert 50 < client.ttl(name) <= 60
        gate()
        eventually(lambda: not broker.process.execution_stats.running())
        broker.process.presence.beat()
        assert not client.exists(name)
        assert record(client)["busy"] == "0"


def test_a_clean_exit_leaves_no_record(broker: SidekiqBroker, client: redis.Redis) -> None:
    broker.declare_queue("python")
    with working(broker):
        name = identity(client)
        client.lpush(f"{name}-signals", "NONE")
    assert not client.exists("processes", name, f"{name}:work", f"{name}-signals")


def test_it_can_be_left_out(redis_url: str, client: redis.Redis) -> None:
    broker = SidekiqBroker(url=redis_url, show_process=False)

    @dramatiq.actor(queue_name="python", broker=broker)
    def noop() -> None: ...

    with working(broker):
        noop.send()
        broker.join("python", timeout=20_000)
        broker.process.presence.beat()
        assert not client.exists("processes")
    assert client.get("stat:processed") == b"1"
    broker.close()


def test_quiet_from_the_ui(broker: SidekiqBroker, client: redis.Redis, gate: Callable[[], None]) -> None:
    with at_work(broker, gate, threads=1) as worker:
        jids = [broker.get_actor("Gate").send().message_id for _ in range(6)]
        eventually(lambda: broker.process.execution_stats.running() and worker.work_queue.qsize())
        signals = f"{identity(client)}-signals"
        client.lpush(signals, "TSTP")
        broker.process.presence.beat()
        assert broker.process.quiet
        # All but the one that runs are back, in their order.
        eventually(lambda: len(in_flight(client)) == 1 and len(members(client, "python")) == 5)
        assert [job["jid"] for job in members(client, "python")] == jids[:0:-1]
        broker.process.presence.beat()
        assert record(client)["quiet"] == "true"
        assert not client.exists(signals)
        gate()
        eventually(lambda: not in_flight(client))
        # Still alive, and still not fetching: the next beat would show it busy.
        broker.get_actor("Gate").send()
        broker.process.presence.beat()
        assert (record(client)["busy"], len(members(client, "python"))) == ("0", 6)


def test_a_quiet_worker_that_is_started_anew_works_again(broker: SidekiqBroker, gate: Callable[[], None]) -> None:
    gate()
    with at_work(broker, gate):
        broker.stop_fetching()
    with working(broker):
        broker.get_actor("Gate").send()
        broker.join("python", timeout=20_000)


def test_dump_from_the_ui(
    broker: SidekiqBroker, client: redis.Redis, gate: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with at_work(broker, gate):
        broker.get_actor("Gate").send()
        eventually(lambda: broker.process.execution_stats.running())
        client.lpush(f"{identity(client)}-signals", "TTIN")
        broker.process.presence.beat()
        assert "opened.wait" in caplog.text


def test_stop_from_the_ui_does_not_stop_this_program(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    broker.declare_queue("python")
    with working(broker):
        client.lpush(f"{identity(client)}-signals", "TERM")
        broker.process.presence.beat()
        assert not broker.process.quiet
    assert "inside another program" in caplog.text


def test_signals_are_heard_in_their_order_and_once(
    broker: SidekiqBroker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    monkeypatch.setattr("dramatiq_sidekiq_flow.process.presence.handle_signal", lambda name, *_: heard.append(name))
    broker.declare_queue("python")
    with working(broker):
        for name in ("TSTP", "TTIN", "TERM"):
            client.lpush(f"{identity(client)}-signals", name)
        broker.process.presence.beat()
        # The heartbeat's thread may have taken them, and be about to obey.
        eventually(lambda: len(heard) >= 3, what=f"three signals; waiting: {client.keys('*-signals')}")
        broker.process.presence.beat()
    assert heard == ["TSTP", "TTIN", "TERM"]


def test_processes_that_expired_are_struck_off(broker: SidekiqBroker, client: redis.Redis) -> None:
    client.sadd("processes", "gone:1:abc")
    processes.beat(broker.connection, "here:1:abc", {"info": "{}"}, {}, ttl=60)
    assert client.smembers("processes") == {b"here:1:abc"}
    client.sadd("processes", "gone:1:abc")
    # Another process looked within the last minute.
    processes.beat(broker.connection, "here:1:abc", {"info": "{}"}, {}, ttl=60)
    assert client.sismember("processes", "gone:1:abc")


def test_a_recovered_process_loses_its_record(redis_url: str, client: redis.Redis) -> None:
    broker = SidekiqBroker(url=redis_url, heartbeat_timeout=1000)
    broker.add_middleware(WorkflowMiddleware())
    dead = "gone:1:abc"
    client.zadd("swf:workers", {f"{dead}:python": time.time() - 100})
    client.hset(keys.in_flight(f"{dead}:python"), "1:1", '{"class":"X","args":[],"jid":"1"}')
    client.sadd("processes", dead)
    client.hset(dead, "info", "{}")
    broker.process.heartbeat.beat()
    assert len(members(client, "python")) == 1
    assert not client.exists("processes", dead)
    broker.close()


def test_a_worker_starts_and_works_though_its_record_cannot_be_written(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture, gate: Callable[[], None]
) -> None:
    gate()
    client.set("processes", "of another type")
    with at_work(broker, gate):
        broker.get_actor("Gate").send()
        broker.join("python", timeout=20_000)
    assert "could not be written" in caplog.text


@pytest.mark.parametrize("version", VERSIONS)
def test_a_queue_that_ruby_takes_from_too_is_warned_of(
    redis_url: str, client: redis.Redis, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    info = json.loads(recorded(version)[0]["info"])
    if "capsules" in info:
        # Sidekiq 9 writes nothing else.
        capsules = {"default": {"weights": {"low": 0}}, "single": {"weights": {"shared": 0}}}
        info = {**{k: v for k, v in info.items() if k not in ("queues", "weights")}, "capsules": capsules}
    else:
        info["queues"] = ["low", "shared"]
    client.sadd("processes", "app-1:1:abc")
    client.hset("app-1:1:abc", mapping={"info": json.dumps(info)})
    broker = SidekiqBroker(url=redis_url)
    for queue in ("python", "shared"):
        broker.declare_queue(queue)
    with working(broker):
        eventually(lambda: "consumes queue 'shared', too" in caplog.text)
    assert "Ruby process app-1:" in caplog.text
    assert "'python', too" not in caplog.text
    broker.close()
