"""Counts of what happened to jobs, and how much waits, as Prometheus reads them."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import SkipMessage
from prometheus_client import values
from prometheus_client.parser import text_string_to_metric_families

from dramatiq_sidekiq_flow import Chain, Prometheus, SidekiqBroker, Workflow
from dramatiq_sidekiq_flow.errors import ConfigurationError
from dramatiq_sidekiq_flow.store.connection import connect
from dramatiq_sidekiq_flow.telemetry.exposition import FOLDER_VARIABLE, Exposition, _fresh_folder

from ..running import eventually, working

Samples = dict[tuple[str, str, str], float]


def read(text: str) -> Samples:
    """(name, queue, actor) -> value, of all samples but buckets and times of creation."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert set(sample.labels) <= {"queue", "actor", "le", "state"}, sample
            if not sample.name.endswith(("_bucket", "_created")):
                name = sample.name.removeprefix("sidekiq_flow_")
                found[name, sample.labels.get("queue", ""), sample.labels.get("actor", "")] = sample.value
    return found


def scrape(middleware: Prometheus) -> Samples:
    """Over HTTP, as Prometheus does."""
    assert middleware.exposition is not None
    assert middleware.exposition.address is not None
    host, port = middleware.exposition.address
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=20) as answer:
        return read(answer.read().decode())


@pytest.fixture
def metrics(broker: SidekiqBroker) -> Prometheus:
    metrics = Prometheus(host="127.0.0.1", port=0)
    broker.add_middleware(metrics)
    return metrics


def test_what_happens_to_jobs(broker: SidekiqBroker, client: redis.Redis, metrics: Prometheus) -> None:
    @dramatiq.actor(queue_name="python")
    def good() -> None: ...

    @dramatiq.actor(queue_name="python")
    def bad() -> None:
        raise ValueError

    Workflow(Chain(good.message(), good.message(), good.message())).run()
    good.send()
    bad.send()
    bad.send_with_options(max_retries=0)
    bad.send_with_options(retry=False)
    with working(broker):
        for actor, count in (("good", 4), ("bad", 3)):
            eventually(lambda a=actor, n=count: scrape(metrics)["jobs_total", "python", a] == n)
        found = scrape(metrics)
    of_good = {name: value for (name, queue, actor), value in found.items() if actor == "good" and queue == "python"}
    of_bad = {name: value for (name, queue, actor), value in found.items() if actor == "bad" and queue == "python"}
    for of_actor in (of_good, of_bad):
        for name in ("latency_seconds_sum", "duration_seconds_sum"):
            assert 0 < of_actor.pop(name) < 60
    nothing = dict.fromkeys(
        ("failures_total", "retries_total", "dead_total", "discarded_total", "advances_total", "barrier_expired_total"),
        0,
    )
    # The last step of a chain has nothing to go on with.
    assert of_good == {
        **nothing,
        "jobs_total": 4,
        "advances_total": 2,
        "running": 0,
        "latency_seconds_count": 4,
        "duration_seconds_count": 4,
    }
    assert of_bad == {
        **nothing,
        "jobs_total": 3,
        "failures_total": 3,
        "retries_total": 1,
        "dead_total": 1,
        "discarded_total": 1,
        "running": 0,
        "latency_seconds_count": 3,
        "duration_seconds_count": 3,
    }
    assert (found["retry_jobs", "", ""], found["dead_jobs", "", ""]) == (1, 1)


def test_what_a_shutdown_interrupted_has_not_ended(broker: SidekiqBroker, metrics: Prometheus) -> None:
    begun = threading.Event()

    @dramatiq.actor(queue_name="python", notify_shutdown=True)
    def long() -> None:
        begun.set()
        while True:
            time.sleep(0.01)

    Workflow(Chain(long.message(), long.message())).run()
    with working(broker):
        assert begun.wait(20)
        exposition = metrics.exposition
    assert exposition is not None
    found = {name: value for (name, _, actor), value in read(exposition.text()).items() if actor == "long"}
    assert found.pop("latency_seconds_count") == 1
    assert found.pop("latency_seconds_sum") > 0
    assert set(found.values()) == {0}


def test_what_waits_and_what_runs(broker: SidekiqBroker, client: redis.Redis, metrics: Prometheus) -> None:
    release, at_work = threading.Event(), threading.Event()

    @dramatiq.actor(queue_name="python")
    def long() -> None:
        at_work.set()
        release.wait(30)

    for _ in range(3):
        client.lpush("queue:ruby", "{}")
    client.sadd("queues", "ruby")
    long.send()
    long.send_with_options(delay=3_600_000)
    with working(broker):
        assert at_work.wait(20)
        found = scrape(metrics)
        release.set()
    assert found["queue_depth", "ruby", ""] == 3
    assert found["queue_depth", "python", ""] == 0
    assert found["in_flight", "python", ""] == 1
    assert found["running", "python", "long"] == 1
    assert found["scheduled_jobs", "", ""] == 1
    assert found["redis_up", "", ""] == 1


def test_a_barrier_that_is_gone(broker: SidekiqBroker, client: redis.Redis, metrics: Prometheus) -> None:
    @dramatiq.actor(queue_name="python")
    def step() -> None: ...

    Workflow(Chain(step.message(), step.message())).run()
    client.delete(*client.keys("*_ran"))
    with working(broker):
        found = eventually(lambda: (now := scrape(metrics)).get(("jobs_total", "python", "step")) and now)
    assert found["barrier_expired_total", "python", "step"] == 1
    assert found["dead_total", "python", "step"] == 1
    assert found["advances_total", "python", "step"] == 0


def test_recovered_and_unreadable_jobs(broker: SidekiqBroker, client: redis.Redis, metrics: Prometheus) -> None:
    dead_worker = "gone:1:abc:python"
    client.hset(f"swf:inflight:{dead_worker}", "1:1", json.dumps({"class": "step", "args": [], "jid": "a" * 24}))
    client.hset(f"swf:inflight:{dead_worker}", "1:2", json.dumps({"class": "step", "args": [], "jid": "b" * 24}))
    client.set("swf:recovered:" + "b" * 24, 2)
    client.zadd("swf:workers", {dead_worker: 1})

    @dramatiq.actor(queue_name="python")
    def step() -> None: ...

    client.lpush("queue:python", "no job")
    client.zadd("schedule", {"no job either": 1})
    with working(broker):
        broker.process.heartbeat.beat()
        found = eventually(
            lambda: (
                (now := scrape(metrics)).get(("jobs_total", "python", "step"))
                and now.get(("dead_total", "python", "")) == 2
                and now.get(("dead_total", "schedule", ""))
                and now
            )
        )
    assert found["recovered_total", "python", ""] == 1
    assert found["dead_jobs", "", ""] == 3


def test_no_thread_of_the_broker_runs_before_all_middleware_is_ready(broker: SidekiqBroker) -> None:
    """What one finds then would be counted nowhere."""
    before: set[threading.Thread] = set()
    begun: list[threading.Thread] = []

    class Last(dramatiq.Middleware):
        def before_worker_boot(self, broker: Any, worker: Any) -> None:
            begun.extend(set(threading.enumerate()) - before)

    broker.add_middleware(Last())
    before.update(threading.enumerate())
    with working(broker):
        assert begun == []


def test_names_from_outside_are_no_labels(broker: SidekiqBroker, client: redis.Redis, metrics: Prometheus) -> None:
    broker.declare_queue("python")
    for number in range(3):
        client.lpush("queue:python", json.dumps({"class": f"Nobody{number}", "args": [], "jid": f"{number:024}"}))
    with working(broker):
        found = eventually(lambda: (now := scrape(metrics)).get(("retries_total", "python", "")) == 3 and now)
    assert not [key for key in found if "Nobody" in str(key)]


def test_a_skipped_job_leaves_nothing_running(broker: SidekiqBroker, metrics: Prometheus) -> None:
    class Skip(dramatiq.Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            if not message.args:
                raise SkipMessage

    broker.add_middleware(Skip())
    broker.add_middleware(Skip(), before=Prometheus)

    @dramatiq.actor(queue_name="python")
    def step(*args: int) -> None: ...

    step.send()
    step.send(1)
    with working(broker, threads=1):
        found = eventually(lambda: (now := scrape(metrics)).get(("jobs_total", "python", "step")) and now)
    assert found["jobs_total", "python", "step"] == 1
    assert found["running", "python", "step"] == 0


def test_counts_are_served_though_redis_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"
    exposition = Exposition(connect(url), "127.0.0.1", 0, None, several=False)
    assert read(exposition.text()) == {("redis_up", "", ""): 0}
    assert "Redis did not answer" in caplog.text


def test_a_taken_port_is_said_once_and_jobs_run(
    broker: SidekiqBroker, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Event()

    @dramatiq.actor(queue_name="python")
    def step() -> None:
        done.set()

    step.send()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        middleware = Prometheus(host="127.0.0.1", port=other.getsockname()[1])
        broker.add_middleware(middleware)
        with caplog.at_level(logging.WARNING), working(broker):
            assert done.wait(20)
            middleware._serve()
        assert len([r for r in caplog.records if "cannot be served" in r.getMessage()]) == 1


# -- several processes ----------------------------------------------------------


@pytest.fixture
def several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that processes share; this one is told of it, and forgets it after the test."""
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


def test_one_process_serves_and_another_takes_over(redis_url: str, several: Path) -> None:
    # Each has a lock of its own on the file, as two processes have.
    first, second = (Exposition(connect(redis_url), "127.0.0.1", 0, None, several=True) for _ in range(2))
    first.serve()
    second.serve()
    assert first.address is not None
    assert second.address is None
    first.close()
    second.serve()
    assert second.address is not None
    second.close()


def test_what_a_killed_process_ran_runs_no_more(redis_url: str, several: Path) -> None:
    code = """
import os, signal
from prometheus_client import CollectorRegistry
from dramatiq_sidekiq_flow.telemetry.prometheus import _Metrics
metrics = _Metrics.new(CollectorRegistry())
metrics.running.labels("python", "step").inc()
metrics.jobs.labels("python", "step").inc(3)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, FOLDER_VARIABLE: str(several)}, check=False
    )
    assert killed.returncode == -9
    assert list(several.glob("gauge_livesum_*.db"))
    found = read(Exposition(connect(redis_url), "127.0.0.1", 0, None, several=True).text())
    assert ("running", "python", "step") not in found
    assert found["jobs_total", "python", "step"] == 3


def test_each_command_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine = _fresh_folder()
    assert mine == _fresh_folder()
    assert mine.parent.stat().st_mode & 0o777 == 0o700
    # Of a command that has ended, and of one whose process id came again.
    old = [mine.with_name(f"{os.getppid()}-1"), mine.with_name("999999999-5")]
    for folder in old:
        folder.mkdir()
    assert _fresh_folder() == mine
    assert mine.exists()
    assert not any(folder.exists() for folder in old)


def test_another_broker_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="SidekiqBroker"):
        Prometheus().attach(StubBroker())


def test_a_file_that_is_just_being_made_is_waited_for(
    redis_url: str, several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dramatiq_sidekiq_flow.telemetry.exposition.READS", 3_000)
    exposition = Exposition(connect(redis_url), "127.0.0.1", 0, None, several=True)
    made = several / "counter_1.db"
    made.touch()
    threading.Timer(0.02, lambda: made.write_bytes(b"\x08" + b"\0" * 65_535)).start()
    assert read(exposition.text())["redis_up", "", ""] == 1


def test_what_has_not_happened_yet_is_zero(broker: SidekiqBroker, metrics: Prometheus) -> None:
    @dramatiq.actor(queue_name="python")
    def step() -> None: ...

    with working(broker):
        assert scrape(metrics)["dead_total", "python", "step"] == 0
