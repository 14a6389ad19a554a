"""Redis falls ill for some seconds, under load: all is done soon after, and nothing twice.

Two real worker processes, plain jobs, chains and groups.  Whatever Redis says
of itself meanwhile, or does not say, is waited out.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Group, SidekiqBroker, Workflow, WorkflowMiddleware

from ..running import eventually, in_flight
from .processes import registered, workers
from .servers import Server

#: Seconds for which Redis is ill, and within which all is done afterwards.
ILL = 4.0
WELL = 10.0

JOBS = 240
CHAINS = 12


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """The workers' user is `worker`; the tests' is another one, which keeps its rights."""
    options = ["--appendonly", "yes", "--appendfsync", "always", "--save", "3600 1", "--enable-debug-command", "yes"]
    server = Server(tmp_path / "redis", *options, "--user", "worker", "on", ">worker", "~*", "&*", "+@all")
    server.start()
    yield server
    server.kill()


# -- the illnesses: each lasts ILL seconds, and returns when it is over ----------------


def for_a_while() -> None:
    time.sleep(ILL)


def busy(server: Server) -> None:
    """A script that does not end; it has written nothing, so it can be killed."""
    server.client.config_set("busy-reply-threshold", 50)

    def run() -> None:
        with contextlib.suppress(redis.ResponseError):
            redis.Redis(port=server.port).eval("while true do end", 0)

    script = threading.Thread(target=run)
    script.start()
    for_a_while()
    server.client.script_kill()
    script.join()


def misconf(server: Server) -> None:
    """Saving fails, since the folder to save to is gone, so writes are refused."""
    server.client.config_set("appendonly", "no")
    shutil.rmtree(server.folder)
    server.client.bgsave()
    eventually(lambda: server.client.info("persistence")["rdb_last_bgsave_status"] == "err")
    for_a_while()
    server.client.config_set("stop-writes-on-bgsave-error", "no")


def noreplicas(server: Server) -> None:
    server.client.config_set("min-replicas-to-write", 1)
    for_a_while()
    server.client.config_set("min-replicas-to-write", 0)


def noperm(server: Server) -> None:
    server.client.acl_setuser("worker", enabled=True, categories=["-@all"])
    for_a_while()
    server.client.acl_setuser("worker", enabled=True, categories=["+@all"])


def oom(server: Server) -> None:
    server.client.config_set("maxmemory", 1)
    for_a_while()
    server.client.config_set("maxmemory", 0)


def readonly(server: Server) -> None:
    """A replica of a master that is not there: a failover that has lost its way."""
    server.client.replicaof("127.0.0.1", 1)
    for_a_while()
    server.client.replicaof("no", "one")


def loading(server: Server) -> None:
    """It loads its data set, slowly, and answers LOADING meanwhile."""
    count = 400
    server.client.mset({f"padding:{number}": "x" * 4096 for number in range(count)})
    server.client.config_set("loading-process-events-interval-bytes", 1024)
    # In microseconds, for each key.
    server.client.config_set("key-load-delay", int(ILL * 1_000_000 / count))
    redis.Redis(port=server.port, socket_timeout=60).execute_command("DEBUG", "RELOAD")
    server.client.config_set("key-load-delay", 0)
    server.client.delete(*(f"padding:{number}" for number in range(count)))


def password(server: Server) -> None:
    """The password is changed, and connections are thrown out: those that come again are refused."""
    server.client.acl_setuser("worker", enabled=True, reset_passwords=True, passwords=["+another"])
    server.client.execute_command("CLIENT", "KILL", "USER", "worker")
    for_a_while()
    server.client.acl_setuser("worker", enabled=True, reset_passwords=True, passwords=["+worker"])


def client_pause(server: Server) -> None:
    server.client.client_pause(int(ILL * 1000))
    for_a_while()


def stopped(server: Server) -> None:
    server.signal(signal.SIGSTOP)
    for_a_while()
    server.signal(signal.SIGCONT)


def killed(server: Server) -> None:
    server.kill()
    for_a_while()
    server.start()


#: And what a client is told meanwhile.
ILLNESSES = {
    busy: "BUSY",
    misconf: "MISCONF",
    noreplicas: "NOREPLICAS",
    noperm: "NoPermissionError",
    oom: "OutOfMemoryError",
    readonly: "ReadOnlyError",
    loading: "BusyLoadingError",
    password: "AuthenticationError",
    client_pause: "TimeoutError",
    stopped: "TimeoutError",
    killed: "ConnectionError",
}


@contextlib.contextmanager
def probing(server: Server) -> Iterator[set[str]]:
    """What a client with the workers' rights is told, for as long as the block."""
    told: set[str] = set()
    ended = threading.Event()

    def probe() -> None:
        while not ended.is_set():
            try:
                with redis.Redis.from_url(server.url("worker"), socket_timeout=1, retry=None) as client:
                    client.set("probe", 1, ex=60)
            except redis.RedisError as e:
                told.add(f"{type(e).__name__}: {e}")
            ended.wait(0.2)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield told
    finally:
        ended.set()
        thread.join()


# -- the test ----------------------------------------------------------------------------


def send_all(url: str) -> set[str]:
    """Send the load; the names of all that is to run."""
    broker = SidekiqBroker(url=url)
    broker.add_middleware(WorkflowMiddleware())

    @dramatiq.actor(queue_name="python", broker=broker)
    def job(name: str, seconds: float = 0.0) -> None: ...

    @dramatiq.actor(queue_name="python", broker=broker)
    def fails_once(name: str) -> None: ...

    names: set[str] = set()

    def step(name: str) -> Any:
        names.add(name)
        return job.message(name, 0.05)

    for number in range(CHAINS):
        steps = [step(f"{number}-{place}") for place in range(3)]
        group = Group(*(step(f"{number}-in-group-{place}") for place in range(3)))
        Workflow(Chain(*steps, group, step(f"{number}-last")), broker=broker).run()
    for number in range(JOBS):
        job.send(f"job-{number}", 0.05)
        names.add(f"job-{number}")
        if number % 20 == 0:
            fails_once.send(f"fails-{number}")
            names.update((f"fails-{number}-0", f"fails-{number}-1"))
    broker.close()
    return names


@pytest.mark.parametrize(("illness", "sign"), ILLNESSES.items(), ids=[illness.__name__ for illness in ILLNESSES])
def test_all_is_done_soon_after(server: Server, tmp_path: Path, illness: Callable[[Server], None], sign: str) -> None:
    record, log = tmp_path / "record", tmp_path / "log"
    record.touch()
    client = server.client

    def ran() -> Counter[str]:
        return Counter(line.split()[1] for line in record.read_text().splitlines())

    with workers(server.url("worker"), log, module="tests.acceptance.sick_app", RECORD=str(record)) as at_work:
        registered(client, 2)
        names = send_all(server.url())
        eventually(lambda: len(ran()) > 40, what="some jobs have run")
        with probing(server) as told:
            illness(server)
            well = time.monotonic()

        def missing() -> dict[str, Any]:
            found = {"not run": names - set(ran()), "in flight": in_flight(client), "retry": client.zcard("retry")}
            return {what: value for what, value in found.items() if value}

        eventually(lambda: time.monotonic() - well > WELL or not missing(), seconds=2 * WELL)
        assert missing() == {}
        at_work.stop()
    assert re.search(sign, "\n".join(told)), "it was not ill"
    assert not client.exists("queue:python", "dead", "retry", "schedule")
    assert in_flight(client) == []
    assert {name: count for name, count in ran().items() if count > 1} == {}
    lines = log.read_text("utf-8", "replace").splitlines()
    faults = ("You've found a bug", "Unhandled error", "Unexpected failure", "unexpected error")
    assert [line for line in lines if any(fault.lower() in line.lower() for fault in faults)] == []
