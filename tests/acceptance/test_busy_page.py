"""Real worker processes and Sidekiq's Busy page: seen, quieted, stopped, and gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dramatiq
import redis

from dramatiq_sidekiq_flow import Chain, SidekiqBroker, Workflow, WorkflowMiddleware

from ..running import eventually, in_flight
from .processes import ROOT, registered, workers


def infos(client: redis.Redis) -> list[dict[str, Any]]:
    """``ProcessSet#each``."""
    found = [client.hget(identity, "info") for identity in client.smembers("processes")]
    return [json.loads(info) for info in found if info]


def send(client: redis.Redis, identity: str, name: str) -> None:
    """``Process#signal``."""
    client.lpush(f"{identity}-signals", name)
    client.expire(f"{identity}-signals", 60)


def start(redis_url: str, *steps: tuple[str, float]) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware())

    @dramatiq.actor(queue_name="python", broker=broker)
    def step(name: str, seconds: float = 0.0) -> None: ...

    Workflow(Chain(*(step.message(*arguments) for arguments in steps)), broker=broker).run()
    broker.close()


def began(client: redis.Redis, name: str) -> list[int]:
    """The processes in which a step began."""
    events = [json.loads(raw) for raw in client.lrange("events", 0, -1)]
    return [event["pid"] for event in events if event["what"] == "start" and event["step"] == name]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_stop_stops_the_whole_command_gracefully(redis_url: str, client: redis.Redis, tmp_path: Path) -> None:
    """All worker processes of it, and each ends what it has begun."""
    with workers(redis_url, tmp_path / "log", count=0) as at_work:
        at_work.command[at_work.command.index("--processes") + 1] = "2"
        at_work.start()
        found = eventually(lambda: len(infos(client)) == 2 and infos(client), what="two processes on the Busy page")
        (command,) = at_work.running
        assert all(not info["embedded"] for info in found)
        assert {os.getpgid(info["pid"]) for info in found} == {command.pid}
        start(redis_url, ("a", 1.0))
        eventually(lambda: began(client, "a"))
        send(client, found[0]["identity"], "TERM")
        assert command.wait(60) == 0
    assert len(began(client, "a")) == 1
    assert any(b'"end"' in event for event in client.lrange("events", 0, -1))
    assert not in_flight(client)
    assert not client.exists("processes", *(info["identity"] for info in found))
    assert client.get("stat:processed") == b"1"


def test_quiet_and_dump(redis_url: str, client: redis.Redis, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with workers(redis_url, log, count=1) as at_work:
        (info,) = eventually(lambda: infos(client), what="a process on the Busy page")
        send(client, info["identity"], "TSTP")
        eventually(lambda: client.hget(info["identity"], "quiet") == b"true", what="quiet")
        start(redis_url, ("a", 0.0))
        send(client, info["identity"], "TTIN")
        eventually(lambda: "Thread MainThread" in log.read_text(), what="a dump in the log")
        assert client.llen("queue:python") == 1
        at_work.start()
        eventually(lambda: began(client, "a"), what="the job in another process")
        assert began(client, "a") != [info["pid"]]
        at_work.stop()


def test_killed_it_disappears_and_its_jobs_run_elsewhere(redis_url: str, client: redis.Redis, tmp_path: Path) -> None:
    """Its record lives as long as it may be silent: 60 seconds, here 1."""
    with workers(redis_url, tmp_path / "log", count=2, KILL_AT="in_actor", KILL_STEP="a") as at_work:
        registered(client, 2)
        eventually(lambda: len(infos(client)) == 2, what="two processes on the Busy page")
        before = {info["pid"]: info["identity"] for info in infos(client)}
        start(redis_url, ("a", 0.0), ("b", 0.0))
        eventually(lambda: began(client, "b"), what="the next step")
        dead, survivor = began(client, "a")
        assert dead in before
        assert survivor != dead
        eventually(lambda: not client.exists(before[dead], f"{before[dead]}:work"), what="no record of it")
        eventually(lambda: before[dead].encode() not in client.smembers("processes"), what="no member of it")
        eventually(lambda: not in_flight(client))
        at_work.stop()


PROGRAM = """
import multiprocessing, os, sys, time
import dramatiq, dramatiq.cli
from dramatiq_sidekiq_flow import SidekiqBroker

def child(url):
    broker = SidekiqBroker(url=url, heartbeat_timeout=1000)
    broker.declare_queue("python")
    worker = dramatiq.Worker(broker)
    worker.start()
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.05)
    worker.stop()

if __name__ == "__main__":
    process = multiprocessing.get_context("fork").Process(target=child, args=(sys.argv[1],))
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


def test_a_worker_inside_another_program_leaves_it_alone(redis_url: str, client: redis.Redis, tmp_path: Path) -> None:
    end = tmp_path / "end"
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, redis_url, str(end)], cwd=ROOT, start_new_session=True)
    try:
        (info,) = eventually(lambda: infos(client), what="a process on the Busy page")
        assert info["embedded"]
        for name in ("TERM", "TSTP"):
            send(client, info["identity"], name)
        eventually(lambda: client.hget(info["identity"], "quiet") == b"true", what="quiet")
        assert program.poll() is None
        assert alive(info["pid"])
        end.touch()
        assert program.wait(60) == 0
    finally:
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGKILL)
            program.wait()
    assert not client.exists("processes")
