"""Programs that fork with a broker at hand: preforking servers, pools of processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import redis

from ..running import members
from .processes import ROOT


def run(program: str, redis_url: str) -> None:
    command = [sys.executable, "-m", "tests.acceptance.fork_app", program]
    result = subprocess.run(
        command, env={**os.environ, "REDIS_URL": redis_url}, cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("program", ["children", "children of a parent that has sent", "grandchildren"])
def test_what_was_sent_is_there(redis_url: str, client: redis.Redis, program: str) -> None:
    run(program, redis_url)
    names = {f"{child}-{number}" for child in range(4) for number in range(25)}
    queued = [job["args"][0] for job in members(client, "python")]
    scheduled = [job["args"][0] for job in members(client, "schedule")]
    before = ["from the parent"] if "parent" in program else []
    assert sorted(queued) == sorted([*names, *before])
    assert sorted(scheduled) == sorted(names)
    jids = [job["jid"] for job in [*members(client, "python"), *members(client, "schedule")]]
    assert len(set(jids)) == len(jids)


def test_a_child_that_closes_its_broker_leaves_what_its_parent_holds(redis_url: str, client: redis.Redis) -> None:
    run("close", redis_url)
    in_flight, registered, queued = (json.loads(value) for value in client.lrange("after", 0, -1))
    assert (in_flight, queued) == (1, 0)
    assert registered >= 1
    # Each ran once, and the second one in the same worker.
    assert client.lrange("events", 0, -1) == [b"begin", b"end"] * 2
    assert not client.exists("queue:long", "retry", "dead")
