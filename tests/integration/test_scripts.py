"""What holds for each script: a key of another type is named and nothing is written; sent twice, it is done once;
what it writes does not stay for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from dramatiq_sidekiq_flow.errors import WrongType
from dramatiq_sidekiq_flow.store.connection import Connection

from ..operations import NAMED, OPERATIONS

#: What Sidekiq keeps without a TTL, and what lives as long as its worker.
FOR_EVER = (
    *("queues", "queue:", "schedule", "retry", "dead", "processes", "swf:inflight:", "swf:workers"),
    # Until it is poured.
    "swf:fanout",
)


def everything(client: Any) -> dict[bytes, Any]:
    """All that is there, and when each key expires, to ten seconds."""
    read: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"hash": client.hgetall,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    return {key: (read[client.type(key)](key), (client.ttl(key) + 5) // 10) for key in client.keys()}


@pytest.mark.parametrize(
    ("name", "key"), [(operation.name, key) for operation in OPERATIONS for key in operation.types], ids=str
)
def test_a_key_of_another_type_is_named_and_nothing_is_written(
    connection: Connection, client: redis.Redis, name: str, key: str
) -> None:
    operation = NAMED[name]
    operation.prepare(client)
    client.delete(key)
    if operation.types[key] == "list":
        client.set(key, "text")
    else:
        client.rpush(key, "text")
    before = everything(client)
    try:
        reply = operation.call(connection)
    except (WrongType, redis.ResponseError) as e:
        reply = [b"TYPE", e.value if isinstance(e, WrongType) else str(e).split()[1].encode()]
    assert reply == [b"TYPE", key.encode()]
    assert everything(client) == before


@pytest.mark.parametrize("name", NAMED)
def test_sent_twice_it_is_done_once(connection: Connection, client: redis.Redis, name: str) -> None:
    operation = NAMED[name]
    operation.prepare(client)
    reply = operation.call(connection)
    done = everything(client)
    again = operation.call(connection)
    assert again == (reply if operation.repeated is None else operation.repeated)
    assert everything(client) == done


@pytest.mark.parametrize("name", NAMED)
def test_what_is_written_does_not_stay_for_ever(connection: Connection, client: Any, name: str) -> None:
    operation = NAMED[name]
    operation.prepare(client)
    operation.call(connection)
    names = [key.decode() for key in client.keys()]
    assert [name for name in names if client.ttl(name) == -1 and not name.startswith(FOR_EVER)] == []
