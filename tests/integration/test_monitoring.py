"""Gauges of runs and queues, and the dashboard and alerts in ``examples/monitoring``."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
import yaml

from dramatiq_sidekiq_flow import Prometheus, SidekiqBroker
from dramatiq_sidekiq_flow.store.connection import Connection
from dramatiq_sidekiq_flow.store.run_stats import run_stats
from dramatiq_sidekiq_flow.telemetry.exposition import Exposition

from ..broken_runs import python_process
from ..recorded_runs import RecordedRun, job
from ..redis_values import raws
from ..running import working

FOLDER = Path(__file__).parents[2] / "examples" / "monitoring"

#: A metric in an expression.
METRIC = re.compile(r"sidekiq_flow_\w+")


def exposed(connection: Connection) -> str:
    return Exposition(connection, "127.0.0.1", 0, None, several=False).text()


def test_runs_by_state(client: redis.Redis, connection: Connection) -> None:
    now = time.time()
    for number, state in enumerate(("running", "running", "failed", "done")):
        RecordedRun(client, f"run-{number}", job("a"), state=state, started=now - 100 * number)
    RecordedRun(client, "expired", job("a"), started=now - 9_000)
    client.delete("swf:flow:expired")
    text = exposed(connection)
    for line in ('{state="running"} 2.0', '{state="failed"} 1.0', '{state="done"} 1.0', '{state="paused"} 0.0'):
        assert f"sidekiq_flow_runs{line}" in text
    (age,) = re.findall(r"^sidekiq_flow_oldest_open_run_seconds (\S+)$", text, re.MULTILINE)
    assert 200 <= float(age) < 1_000
    # What has expired leaves the list.
    assert sorted(raws(client.zrange("swf:flows:running", 0, -1))) == [b"run-0", b"run-1"]
    client.flushall()
    assert run_stats(connection).oldest == 0.0


def test_queues(client: redis.Redis, connection: Connection) -> None:
    python_process(client, "served")
    client.sadd("queues", "served", "lonely", "odd", "empty")
    client.sadd("paused", "lonely")
    stamp = int((time.time() - 50) * 1000)
    client.lpush("queue:lonely", f'{{"enqueued_at": {stamp}}}', f'{{"enqueued_at": {stamp + 40_000}}}')
    client.lpush("queue:odd", b"not JSON")
    text = exposed(connection)
    for line in (
        'queue_served{queue="served"} 1.0',
        'queue_served{queue="lonely"} 0.0',
        'queue_paused{queue="served"} 0.0',
        'queue_paused{queue="lonely"} 1.0',
        'queue_latency_seconds{queue="odd"} 0.0',
        'queue_latency_seconds{queue="empty"} 0.0',
    ):
        assert f"sidekiq_flow_{line}" in text
    (latency,) = re.findall(r'queue_latency_seconds{queue="lonely"} (\S+)', text)
    assert 50 <= float(latency) < 1_000


def test_what_the_user_may_not_read_is_left_out(client: redis.Redis, connection: Connection, redis_url: str) -> None:
    client.set("swf:flows:running", "of another program")
    text = exposed(connection)
    assert "sidekiq_flow_redis_up 1.0" in text
    assert "sidekiq_flow_runs{" not in text


@pytest.mark.parametrize("name", ["grafana.json", "alerts.yml"])
def test_each_metric_of_the_examples_exists(name: str, broker: SidekiqBroker, client: redis.Redis) -> None:
    metrics = Prometheus(host="127.0.0.1", port=0)
    broker.add_middleware(metrics)
    client.sadd("queues", "python")

    @dramatiq.actor(queue_name="python", broker=broker)
    def step() -> None: ...

    with working(broker):
        assert metrics.exposition is not None
        text = metrics.exposition.text()
    known = set(METRIC.findall(text))
    expressions = list(_expressions(_read(FOLDER / name)))
    assert len(expressions) > 5
    used = set(METRIC.findall(" ".join(expressions)))
    assert used <= known


def _read(path: Path) -> Any:
    text = path.read_text("utf-8")
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


def _expressions(value: Any) -> Any:
    """All values of keys ``expr``."""
    if isinstance(value, dict):
        yield from (each for key, each in value.items() if key == "expr")
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _expressions(each)
