"""A Ruby worker with the companion waits out a Redis that is sick, and forgets nothing in between."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Group, Job, SidekiqBroker, WithDelay, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop.tests.companions import installed, worker
from interop.tests.processes import Site
from tests.redis_values import texts
from tests.running import eventually, in_flight

#: How long it is sick, in seconds.
SICK = float(os.environ.get("INTEROP_SICK", "2.5"))

#: Of the log, in a second: fewer is no loop.
LINES = 50


class Server:
    """A redis-server of our own, to be made sick; ``worker`` is the user of the Ruby worker."""

    def __init__(self, folder: Path) -> None:
        binary = shutil.which("redis-server")
        assert binary, "redis-server is not installed"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        options = {"port": self.port, "dir": folder, "appendonly": "yes", "appendfsync": "always", "save": "3600 1"}
        self.folder = folder
        self.command = [binary, *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
        self.client = redis.Redis(port=self.port)
        self.start()

    @property
    def url(self) -> str:
        return f"redis://worker:secret@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)

        def answers() -> bool:
            with contextlib.suppress(redis.ConnectionError, redis.exceptions.BusyLoadingError):
                return bool(self.client.ping())
            return False

        eventually(answers, 20, "an answer of redis-server")
        self.client.acl_setuser("worker", enabled=True, passwords="+secret", keys="*", channels="*", commands=["+@all"])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    # -- sicknesses -------------------------------------------------------------

    def config(self, well: Any, ill: Any, name: str) -> Iterator[None]:
        self.client.config_set(name, ill)
        yield
        self.client.config_set(name, well)

    def noreplicas(self) -> Iterator[None]:
        return self.config(0, 1, "min-replicas-to-write")

    def oom(self) -> Iterator[None]:
        return self.config(0, 1, "maxmemory")

    def misconf(self) -> Iterator[None]:
        # A folder where the file is to be: the snapshot fails.
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "dump.rdb").unlink()
        (self.folder / "dump.rdb").mkdir()
        (self.folder / "dump.rdb" / "in the way").touch()
        self.client.bgsave()
        eventually(lambda: self.client.info("persistence")["rdb_last_bgsave_status"] == "err", 20, "a failed save")
        yield
        shutil.rmtree(self.folder / "dump.rdb")
        self.client.bgsave()
        eventually(lambda: self.client.info("persistence")["rdb_last_bgsave_status"] == "ok", 20, "a save")

    def readonly(self) -> Iterator[None]:
        self.client.replicaof("127.0.0.1", "1")
        yield
        self.client.replicaof("NO", "ONE")

    def masterdown(self) -> Iterator[None]:
        self.client.config_set("replica-serve-stale-data", "no")
        yield from self.readonly()
        self.client.config_set("replica-serve-stale-data", "yes")

    def noperm(self) -> Iterator[None]:
        self.client.execute_command("ACL", "SETUSER", "worker", "-@write")
        yield
        self.client.execute_command("ACL", "SETUSER", "worker", "+@all")

    def noauth(self) -> Iterator[None]:
        self.client.execute_command("ACL", "SETUSER", "worker", "resetpass", ">other")
        self.client.execute_command("CLIENT", "KILL", "USER", "worker")
        yield
        self.client.execute_command("ACL", "SETUSER", "worker", ">secret")

    def full(self) -> Iterator[None]:
        self.client.config_set("maxclients", 1)
        self.client.execute_command("CLIENT", "KILL", "USER", "worker")
        yield
        self.client.config_set("maxclients", 10_000)

    def busy(self) -> Iterator[None]:
        self.client.config_set("lua-time-limit", 50)
        loop = threading.Thread(target=self._loop)
        loop.start()
        yield
        self.client.script_kill()
        loop.join()

    def _loop(self) -> None:
        with contextlib.suppress(redis.RedisError), redis.Redis(port=self.port, socket_timeout=60) as client:
            client.eval("while true do end", 0)

    def paused(self) -> Iterator[None]:
        self.client.client_pause(int(SICK * 1000))
        yield

    def killed(self) -> Iterator[None]:
        self.kill()
        yield
        self.start()


SICKNESSES = (
    "noreplicas",
    "oom",
    "misconf",
    "readonly",
    "masterdown",
    "noperm",
    "noauth",
    "full",
    "busy",
    "paused",
    "killed",
)


@pytest.fixture(scope="module")
def sick(
    server: EmbeddedServer, container: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Site, redis.Redis]]:
    folder = tmp_path_factory.mktemp("sick")
    sick = Server(folder)
    notes = redis.Redis.from_url(f"{server.url.rstrip('/').removesuffix('/0')}/7")
    site = Site(sick.url, folder, ())
    try:
        with installed(folder, "notes.rb") as environment:
            environment |= {"INTEROP_NOTES": notes_url(notes), "INTEROP_RECORD": "0", "INTEROP_HEARTBEAT": "60"}
            worker(site, **environment)
            yield sick, site, notes
            site.stop()
    finally:
        site.close()
        sick.kill()
        notes.close()


def notes_url(notes: redis.Redis) -> str:
    options = notes.connection_pool.connection_kwargs
    return f"redis://{options['host']}:{options['port']}/{options['db']}"


@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", SICKNESSES)
def test_a_sick_redis_is_waited_out(sick: tuple[Server, Site, redis.Redis], name: str) -> None:
    server, site, notes = sick
    notes.delete("notes")
    server.client.delete("dead", "retry")
    broker = SidekiqBroker(url=f"redis://127.0.0.1:{server.port}/0")
    broker.add_middleware(WorkflowMiddleware())

    def note(text: str, seconds: float = 0.05) -> Job:
        return Job("Rb::Note", text, seconds, queue="ruby", retry=0)

    wanted: list[str] = []
    for run in range(12):
        names = [f"{run}:{step}" for step in range(5)]
        wanted += names
        first, left, right, late, last = map(note, names)
        Workflow(Chain(first, Group(left, right, WithDelay(late, delay=300)), last), broker).run()
    # One that ends while Redis is sick: whatever it is, the end is to be told.
    for n in range(3):
        wanted.append(f"long {n}")
        Workflow(Chain(note(f"long {n}", SICK / 2), note(f"after {n}")), broker).run()
        wanted.append(f"after {n}")
    eventually(lambda: notes.llen("notes") > 8, 60, "some of it")
    lines = len(site.workers[0].log.read_text().splitlines())
    began = time.monotonic()
    sickness = getattr(server, name)()
    next(sickness)
    time.sleep(SICK)  # what is tried is the time itself
    next(sickness, None)

    def all_done() -> bool:
        site.workers[0].check()
        return notes.llen("notes") >= len(wanted) and not in_flight(server.client)

    try:
        eventually(all_done, 60, "all of it")
    except AssertionError as e:
        raise AssertionError(f"{e}\n{site.report()}") from None
    counted = Counter(texts(notes.lrange("notes", 0, -1)))
    assert counted == Counter(wanted)
    assert server.client.zcard("dead") == server.client.zcard("retry") == 0
    written = len(site.workers[0].log.read_text().splitlines()) - lines
    assert written < LINES * (time.monotonic() - began)
    broker.close()
