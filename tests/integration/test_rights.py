"""A user who lost a right: a script refuses before it takes a job out of its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from dramatiq_sidekiq_flow.errors import FlowError
from dramatiq_sidekiq_flow.store.connection import Connection, connect

from ..operations import NAMED
from .test_scripts import everything

#: Operation -> what it writes after the job has left its place.
WRITES = {
    "advance": ("hset", "lpush", "sadd", "setex", "zadd"),
    "advance_kept": ("hset", "setex"),
    "chain_step": ("hset", "setex"),
    "chain_step_pushed": ("lpush", "setex"),
    "advance_member": ("decrby", "hset"),
    "advance_group": ("decrby", "hset", "sadd"),
    "begin": ("hset",),
    "requeue": ("rpush",),
    "recover": ("hset", "rpush", "set", "zadd"),
    "fail_retry": ("zadd",),
    "fail_dead": ("zadd",),
    "fail_caught": ("lpush", "sadd", "zadd"),
    "replace_dead": ("lpush", "sadd", "zadd"),
    "trial": ("hset", "set"),
}


@pytest.fixture
def limited(redis_url: str, client: Any) -> Iterator[Connection]:
    """The connection of a user of its own."""
    client.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">secret", "~*", "+@all")
    limited = connect(redis_url.replace("redis://", "redis://limited:secret@"))
    yield limited
    limited.close()
    client.execute_command("ACL", "DELUSER", "limited")


@pytest.mark.parametrize(("name", "command"), [(name, command) for name, them in WRITES.items() for command in them])
def test_without_a_right_the_job_stays_where_it_is(limited: Connection, client: Any, name: str, command: str) -> None:
    operation = NAMED[name]
    operation.prepare(client)
    before = everything(client)
    client.execute_command("ACL", "SETUSER", "limited", f"-{command}")
    with pytest.raises((FlowError, redis.RedisError), match=f"(?i)NOPERM.*{command}"):
        operation.call(limited)
    assert everything(client) == before
    client.execute_command("ACL", "SETUSER", "limited", f"+{command}")
    operation.call(limited)
    assert everything(client) != before
