"""The examples of docs/brokers.md run as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.stub import StubBroker

from dramatiq_sidekiq_flow import Chain, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.embedded import URL_VARIABLE

from ..acceptance.processes import ROOT, workers
from ..running import eventually
from .ruby import FakeRuby

DOCS = (ROOT / "docs" / "brokers.md").read_text("utf-8")


def test_the_example_runs_as_printed(redis_url: str, client: redis.Redis, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(# app\.py\n.*?)```", DOCS, re.DOTALL)
    sidekiq, others = redis_url, redis_url.removesuffix("/0") + "/1"
    for printed, ours in (("redis://localhost:6379/0", sidekiq), ("redis://localhost:6379/1", others)):
        assert printed in code
        code = code.replace(printed, ours)
    (tmp_path / "app.py").write_text(code, "utf-8")
    seen: list[Any] = []
    with workers(redis_url, tmp_path / "log", count=0, module="app") as at_work:
        at_work.command += ["--path", str(tmp_path)]
        at_work.start()
        done = subprocess.run(
            [sys.executable, "app.py"], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60
        )
        with FakeRuby(redis_url, seen, "ruby", classes={"extract": {"queue": "python"}}):
            key = f"swf:mem:{done.stdout.strip()}"
            eventually(lambda: client.hget(key, "text") == b'"the text of 44"')
    assert seen == [200]


def test_the_stub_broker_is_joined_whole(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, redis_url)
    assert 'WorkflowMiddleware(url="embedded://")' in DOCS
    broker = StubBroker()
    broker.add_middleware(WorkflowMiddleware(url="embedded://", bridge=False))
    log: list[int] = []

    @dramatiq.actor(queue_name="python", broker=broker)
    def step(n: int) -> None:
        log.append(n)

    worker = dramatiq.Worker(broker, worker_timeout=100)
    worker.start()
    try:
        Workflow(Chain(*map(step.message, range(10))), broker=broker).run()
        broker.join("python", timeout=30_000)
    finally:
        worker.stop()
    assert log == list(range(10))
