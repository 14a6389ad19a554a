"""Sentinel: the primary is killed -9 in the middle of workflows, and a replica takes its place."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from redis.sentinel import MasterNotFoundError, Sentinel

from dramatiq_sidekiq_flow import Chain, Group, SidekiqBroker, Workflow, WorkflowMiddleware

from ..running import eventually
from .processes import registered, workers
from .servers import BINARY, Server

SENTINELS = 3


class Watched:
    """A primary, a replica, and three Sentinels that watch them as ``flow``."""

    def __init__(self, folder: Path) -> None:
        self.primary, self.replica = Server(folder / "one"), Server(folder / "two")
        self.folder = folder
        self.ports: list[int] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self.primary.start()
        self.replica.start()
        self.replica.client.replicaof("127.0.0.1", str(self.primary.port))
        for number in range(SENTINELS):
            watching = Server(self.folder / f"sentinel{number}")
            config = watching.folder / "sentinel.conf"
            config.write_text(
                f"port {watching.port}\nbind 127.0.0.1\ndir {watching.folder}\n"
                f"sentinel monitor flow 127.0.0.1 {self.primary.port} 2\n"
                "sentinel down-after-milliseconds flow 1000\nsentinel failover-timeout flow 5000\n"
            )
            self.ports.append(watching.port)
            command = (BINARY, str(config), "--sentinel")
            self.processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        for port in self.ports:
            eventually(lambda port=port: self._sees_all(port), what="Sentinels that know each other and the replica")

    def _sees_all(self, port: int) -> bool:
        with contextlib.suppress(redis.RedisError):
            state: Any = redis.Redis(port=port).sentinel_master("flow")
            return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == SENTINELS - 1)
        return False

    def sentinel(self) -> Sentinel:
        return Sentinel([("127.0.0.1", port) for port in self.ports], socket_timeout=1)

    def master_port(self) -> int | None:
        with contextlib.suppress(MasterNotFoundError):
            return int(self.sentinel().discover_master("flow")[1])
        return None

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for server in (self.primary, self.replica):
            server.kill()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    try:
        watched.start()
        yield watched
    finally:
        watched.close()


def test_a_failover_in_the_middle_of_workflows(watched: Watched, tmp_path: Path) -> None:
    """All that the replica had before is done once, in order; sending goes on without a new broker."""
    broker = SidekiqBroker(client=watched.sentinel().master_for("flow", socket_timeout=3))
    broker.add_middleware(WorkflowMiddleware())

    @dramatiq.actor(queue_name="python", broker=broker)
    def step(name: str, seconds: float = 0.0) -> None: ...

    def run(name: str) -> None:
        middle = Group(*(step.message(f"{name} m{n}", 0.05) for n in range(3)))
        Workflow(Chain(step.message(f"{name} first", 0.05), middle, step.message(f"{name} last")), broker).run()

    record = tmp_path / "record"
    environment = {"RECORD": str(record), "SENTINELS": ",".join(map(str, watched.ports))}
    with workers("", tmp_path / "log", 2, "tests.acceptance.tls_app", **environment):
        registered(watched.primary.client, 2)
        for number in range(60):
            run(f"before{number}")
        eventually(lambda: record.exists() and " last" in record.read_text(), what="the end of a run")
        # What the replica does not have is Redis's to lose.
        assert watched.primary.client.wait(1, 5000) == 1
        os.kill(watched.primary.process.pid, 9) if watched.primary.process else None
        killed = time.monotonic()
        eventually(lambda: watched.master_port() == watched.replica.port, 30, what="a new master")
        took = time.monotonic() - killed

        def sent() -> bool:
            with contextlib.suppress(dramatiq.errors.ConnectionClosed):
                run("after")
                return True
            return False

        eventually(sent, what=f"a producer that goes on, {took:.1f} s after the kill")
        last = {f"before{number} last" for number in range(60)} | {"after last"}
        eventually(lambda: last <= names(record), 40, what="the end of all runs")
        eventually(lambda: not watched.replica.client.llen("queue:python"), what="an empty queue")
    jids: dict[str, set[str]] = defaultdict(set)
    first_seen: dict[str, int] = {}
    for number, line in enumerate(record.read_text().splitlines()):
        name, _, jid = line.rpartition(" ")
        jids[name].add(jid)
        first_seen.setdefault(name, number)
    assert len(jids) == 61 * 5
    # `after` may have been started by the call that raised, too; `before` was started once.
    assert {name: len(found) for name, found in jids.items() if len(found) > 1 and "before" in name} == {}
    for run_name in {name.split()[0] for name in jids}:
        order = [first_seen[f"{run_name} {part}"] for part in ("first", "m0", "m1", "m2", "last")]
        assert order[0] < min(order[1:4])
        assert max(order[1:4]) < order[4]
    assert not watched.replica.client.exists("dead", "retry")


def names(record: Path) -> set[str]:
    return {line.rpartition(" ")[0] for line in record.read_text().splitlines()}
