"""The access rules of docs/security.md: with them every feature works, and none of them can be left out."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import redis

from dramatiq_sidekiq_flow.broker.standing import STANDING
from dramatiq_sidekiq_flow.store import scripts

from ..running import eventually, in_flight, members
from .acl import Command, Listener, Role, kinds, refused, roles
from .processes import ROOT, registered, workers
from .servers import Server

ROLES = roles()

#: What the actors note, sorted; jobs whose worker died with them run again.
RAN = {
    *("sent", "sent-later", "sends-now", "sends-later", "fails-once", "fails", "dies"),
    *("first", "second", "pair-a", "pair-b", "delayed", "last"),
    *(f"link-{n}" for n in range(6)),
    *("step-fails-once", "after-it", "step-fails", "released", "fans-out"),
    *("typed-document", "document-left", "document-right", "remembers-document", "clears-document"),
    *("waits-begun", "waits-cancelled", "forgets-1", "forgets-2", "on-failure", "on-complete", "signalled"),
}


#: The source of the search for jobs: sent by the first client that searches, which may be the keeper.
SEARCH = ("EVAL_RO", "return 1", "0")

#: Commands of a role that MONITOR does not show, such as those for administrators, or not always.
NOT_SHOWN: dict[str, list[Command]] = {
    "worker": [("CLIENT", "UNBLOCK", "7"), SEARCH],
    # Of runs of 1,000 steps that are retried.
    "operator": [SEARCH, ("SETBIT", "swf:flow:x:done", "1", "0"), ("SETRANGE", "swf:flow:x:done", "1", "0")],
    "reader": [SEARCH],
}


@attrs.frozen
class World:
    """What is left when everything was done once.

    Attributes:
      server: It has the users of the page.
      sent: User -> the commands of it, and of its scripts.
      denied: What ACL LOG has of the users.
    """

    server: Server
    folder: Path
    sent: dict[str, list[Command]]
    denied: list[dict[str, Any]]
    log: str


def url(server: Server, role: Role) -> str:
    return f"redis://{role.user}:{role.password()}@127.0.0.1:{server.port}/0"


def grant(client: Any, user: str, rules: list[str]) -> None:
    client.execute_command("ACL", "SETUSER", user, *rules)


def play(server: Server, role: str, folder: Path, **environment: str) -> str:
    """Do what a role does, in a process of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.acceptance.acl_roles", role],
        env={**os.environ, "REDIS_URL": url(server, ROLES[role]), "RECORD": str(folder), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("acl")
    server = Server(folder / "redis", "--save", "")
    server.start()
    for role in ROLES.values():
        grant(server.client, role.user, role.rules())
    server.client.acl_log_reset()
    listener = Listener(server.port)
    log, port = folder / "log", free_port()
    try:
        do_everything(server, folder, log, port)
        entries: Any = server.client.acl_log()
        # Text or bytes, as the server's version has it.
        denied = [entry for entry in entries if "flow-" in str(entry["username"])]
        yield World(server, folder, listener.stop(), denied, log.read_text("utf-8", "replace"))
    finally:
        server.kill()


def do_everything(server: Server, folder: Path, log: Path, port: int) -> None:
    client: Any = server.client

    def ran() -> set[str]:
        record = folder / "ran"
        return set(record.read_text("utf-8").splitlines()) if record.exists() else set()

    worker = url(server, ROLES["worker"])
    app = {"module": "tests.acceptance.acl_app", "RECORD": str(folder)}
    with (
        workers(worker, log, count=0, METRICS=str(port), TMPDIR=str(folder), **app) as at_work,
        workers(worker, log, count=0, FORGETFUL="1", **app) as forgetful,
    ):
        at_work.command += ["--queues", "python"]
        at_work.start(2)
        # More queues than fetches may stand for: this one waits to be notified.
        forgetful.command += ["--queues", "forgetful", *(f"idle{number}" for number in range(STANDING))]
        forgetful.start()
        registered(client, 3)
        # Left by an earlier run of the same id.
        client.hset("swf:flow:to-cancel", "state", "done")
        client.set("queue:full", "not a list")
        jid = play(server, "producer", folder).strip()
        left = {"released", "waits-cancelled", "signalled"}
        # More than two thousand jobs, on a busy machine.
        eventually(lambda: RAN - ran() <= left, 60)
        eventually(lambda: client.zcard("dead") >= 2)
        assert "Depths(" in play(server, "dashboard", folder)
        lose_barriers(client)
        hold_back(client)
        play(server, "reader", folder)
        # The next one sends the source of the search once more.
        client.script_flush()
        play(server, "operator", folder, JID=jid)
        client.delete("queue:blocked", "queue:full")
        eventually(lambda: client.llen("queue:full") == 2 and not client.exists("swf:resting"))
        assert client.hget("swf:flow:too-late", "reason") == b"deadline of 0:00:00.100000 passed"
        eventually(lambda: ran() >= RAN, what=f"{RAN - ran()}")
        eventually(lambda: client.llen("queue:python") == 0 and not in_flight(client))
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20).read().decode()
        assert 'sidekiq_flow_queue_depth{queue="python"} 0.0' in metrics
        # As the Web UI does: what begins after it stays in the queue.
        for identity in client.smembers("processes"):
            client.lpush(identity + b"-signals", "TSTP")
        eventually(lambda: not client.keys("*-signals"), what="the signals were taken")
        at_work.stop()
        forgetful.stop()
    assert not client.exists("queue:python", "schedule", "retry", "processes")


def hold_back(client: redis.Redis) -> None:
    """A fan-out of the run that is to be cancelled: its queue cannot take it yet."""
    job = {"class": "step", "args": ["x"], "jid": "0" * 24, "queue": "blocked", "workflow_run_id": "to-cancel"}
    client.set("queue:blocked", "not a list")
    client.rpush("swf:fanout:held", "qblocked", json.dumps(job))
    client.zadd("swf:fanouts", {"held": 1})


def lose_barriers(client: redis.Redis) -> None:
    """Of the run that is to be released: as if they had expired."""
    (dead,) = (job for job in members(client, "dead") if job.get("workflow_run_id") == "of-the-dead")
    for barrier, _, _ in dead["workflow_completion_callbacks"]:
        client.delete(barrier, f"{barrier}_ran", f"{barrier}:u")


def test_everything_works_under_the_rules_of_the_page(world: World) -> None:
    # redis-py ignores its refusal, and the page says so. Redis 7.0 does not have it.
    assert [entry for entry in world.denied if "client|setinfo" not in str(entry["object"])] == []
    assert set(world.sent) >= {role.user for role in ROLES.values()}
    assert "CLIENT TRACKING" not in world.log
    assert "NOPERM" not in world.log
    assert "INFO" not in re.findall(r"may not call (\w+)", world.log)


@pytest.mark.parametrize("role", ROLES.values(), ids=ROLES)
def test_no_grant_can_be_left_out(world: World, role: Role) -> None:
    """Without it, the server refuses something of what the user has sent."""
    client, commands = world.server.client, kinds([*world.sent[role.user], *NOT_SHOWN.get(role.name, [])])
    grant(client, "probe", role.rules())
    assert refused(client, "probe", commands) == []

    def is_needed(given: str) -> bool:
        grant(client, "probe", role.rules(without=[given]))
        name = given[1:].partition("|")[0]
        concerned = [command for command in commands if given[0] != "+" or command[0].lower() == name]
        return bool(refused(client, "probe", concerned))

    assert [given for given in role.grants if not is_needed(given)] == []


def test_the_worker_may_call_what_its_scripts_call() -> None:
    """Also in branches that no scenario comes to."""
    # Worker processes pause, resume and retry no runs.
    others = {"pause", "unpause", "park_jobs", "park_fanout", "unpark", "hold_barriers", "rearm", "retry_dead"}
    others |= {"mark_dead", "restart", "note_repeat"}
    sent = [script for script in scripts.ALL if script.name not in others]
    called = {name for script in sent for name in re.findall(r"(?:call|add)\('([A-Z]+)'", script.source)}
    assert {"HDEL", "INCRBY", "UNLINK"} <= called
    assert {f"+{name.lower()}" for name in called} <= set(ROLES["worker"].grants)


#: Redis 7.0 does not name the command here: ACL LOG does.
SCRIPT = "NOPERM|ACL failure in script|user executing the script can't"

#: What a worker loses, and what its log has of it.
LOSSES = {
    "scripts": (("+evalsha", "+eval"), "NOPERM .*'eval"),
    "hashes": (("+hget", "+hset", "+hdel"), SCRIPT),
    "queues": (("~queue:*",), SCRIPT),
    "files of its own": (("~swf:*",), SCRIPT),
}


def test_a_loss_of_rights_is_reported_and_loses_nothing(world: World, tmp_path: Path) -> None:
    """A real worker says what it is refused, and goes on when it has its rights again."""
    server, role, log, record = world.server, ROLES["worker"], tmp_path / "log", tmp_path / "ran"
    client: Any = server.client
    record.touch()
    app = {"module": "tests.acceptance.acl_app", "RECORD": str(tmp_path)}

    def logged(report: str) -> bool:
        return re.search(report, log.read_text("utf-8", "replace")[begin:]) is not None

    with workers(url(server, role), log, count=1, **app) as at_work:
        eventually(lambda: client.smembers("processes"))
        for loss, (grants, report) in LOSSES.items():
            begin = len(log.read_text("utf-8", "replace"))
            grant(client, role.user, role.rules(without=grants))
            job = {"class": "sends", "args": [loss], "jid": f"{len(loss):024x}", "queue": "python", "retry": True}
            client.lpush("queue:python", json.dumps(job))
            eventually(partial(logged, report), what=loss)
            grant(client, role.user, role.rules())
            eventually(partial(logged, "Redis is available again"), what=loss)
        eventually(lambda: len(record.read_text("utf-8").splitlines()) >= 2 * len(LOSSES))
        at_work.stop()
    ran = record.read_text("utf-8").splitlines()
    assert sorted(ran) == sorted(f"{loss}-{when}" for loss in LOSSES for when in ("now", "later"))
    assert not client.exists("queue:python", "retry", "schedule")
