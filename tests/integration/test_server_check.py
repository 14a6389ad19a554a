"""Servers that cannot be used, and servers that do not say what they are."""

from __future__ import annotations

import logging
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    RedisHashMemory,
    SidekiqBroker,
    WithDelay,
    Workflow,
    WorkflowMiddleware,
)
from dramatiq_sidekiq_flow.broker.worker_middleware import UnusableServer
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from dramatiq_sidekiq_flow.errors import ConfigurationError
from dramatiq_sidekiq_flow.store import server_check
from dramatiq_sidekiq_flow.store.connection import connect

from ..running import eventually, working

ROOT = Path(__file__).parent.parent.parent


class Answer:
    """A connection whose server says what a test wants it to say."""

    url = "redis://example:6379/0"

    def __init__(self, **info: str) -> None:
        self.info = info

    def call(self, *command: Any) -> bytes:
        assert command == ("INFO",)
        lines = ["# Server", *(f"{name}:{value}" for name, value in self.info.items())]
        return "\r\n".join(lines).encode()


def test_a_cluster_is_refused() -> None:
    for info in ({"redis_mode": "cluster"}, {"redis_version": "9.0.0", "cluster_enabled": "1"}):
        with pytest.raises(ConfigurationError, match="redis://example:6379/0 is a Redis Cluster"):
            server_check.inspect(Answer(**info))  # type: ignore[arg-type]


def test_an_old_server_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"6\.0\.16 is too old; 6\.2"):
        server_check.inspect(Answer(redis_version="6.0.16"))  # type: ignore[arg-type]


def test_an_eviction_policy_is_warned_of() -> None:
    (warning,) = server_check.inspect(Answer(redis_version="7.0.0", maxmemory_policy="allkeys-lru"))  # type: ignore[arg-type]
    assert "noeviction" in warning


def test_this_one_is_fine(redis_url: str) -> None:
    connection = connect(redis_url)
    assert server_check.inspect(connection) == []
    connection.close()


def test_a_user_who_may_not_call_info_has_a_worker_all_the_same(
    redis_url: str, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.acl_setuser("worker", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-info"])
    broker = SidekiqBroker(url=redis_url.replace("redis://", "redis://worker:secret@"), poll_interval=50)
    broker.add_middleware(WorkflowMiddleware())

    @dramatiq.actor(queue_name="python", broker=broker)
    def note(name: str) -> None:
        client.rpush("ran", name)

    with caplog.at_level(logging.WARNING), working(broker):
        note.send("now")
        note.send_with_options(args=("later",), delay=50)
        eventually(lambda: client.llen("ran") == 2)
        assert client.scard("processes") == 1
    assert sum("may not call INFO" in record.getMessage() for record in caplog.records) == 1
    broker.close()
    client.acl_deluser("worker")


def test_the_rights_in_the_documentation_are_enough(redis_url: str, client: redis.Redis) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (rights,) = re.findall(r"A worker needs.*`(\+@read[^`]*)`", text)
    client.acl_setuser("worker", enabled=True, passwords=["+secret"], keys=["*"], commands=rights.split())
    broker = SidekiqBroker(url=redis_url.replace("redis://", "redis://worker:secret@"), poll_interval=50)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))

    @dramatiq.actor(queue_name="python", broker=broker, max_retries=1, min_backoff=10, max_backoff=10)
    def step(name: str) -> dict[str, str]:
        if client.rpush("ran", name) == 1:
            raise ValueError
        return {name: name}

    tree = Chain(step.message("a"), Group(step.message("b"), step.message("c")), WithDelay(step.message("d"), 50))
    with working(broker):
        Workflow(tree, broker).run()
        eventually(lambda: client.llen("ran") == 5)
        eventually(lambda: broker.process.standing.of(broker.process.in_flight["python"]).stands)
        broker.join("python", timeout=20_000)
        assert not broker.process.availability.lasts
    broker.close()
    client.acl_deluser("worker")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# -- a real cluster ----------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The URL of a server in cluster mode."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    settings: dict[str, Any] = {"cluster_enabled": True, "cluster_port": free_port()}
    with EmbeddedServer(binary=binary, data_dir=tmp_path, **settings) as cluster:
        yield cluster.url


def test_a_worker_does_not_start_on_a_cluster(cluster: str) -> None:
    broker = SidekiqBroker(url=cluster)
    worker = dramatiq.Worker(broker)
    with pytest.raises(UnusableServer, match="is a Redis Cluster"):
        worker.start()
    broker.close()


def test_the_dramatiq_command_ends_with_one_line(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "cluster_app.py").write_text(
        "import dramatiq\n"
        "from dramatiq_sidekiq_flow import SidekiqBroker\n"
        f"dramatiq.set_broker(SidekiqBroker(url={cluster!r}))\n"
    )
    command = [sys.executable, "-m", "dramatiq", "cluster_app", "--processes", "1", "--path", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode
    assert "is a Redis Cluster" in done.stderr
    assert "This worker ends." in done.stderr
    assert "Traceback" not in done.stderr
