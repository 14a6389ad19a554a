"""Acknowledgements that are handed over while another thread has the line."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from dramatiq.errors import ConnectionClosed

from dramatiq_sidekiq_flow.broker.ack_batch import GroupCommit
from dramatiq_sidekiq_flow.process.availability import Availability
from dramatiq_sidekiq_flow.store import keys
from dramatiq_sidekiq_flow.store.connection import Connection
from dramatiq_sidekiq_flow.store.faults import ServerUnavailable
from dramatiq_sidekiq_flow.store.outcomes import Operation

PING: Operation[Any] = Operation(("PING",), lambda reply: reply)


def test_one_that_comes_during_a_round_trip_is_sent_after_it(client: redis.Redis) -> None:
    connection = Connection(client)
    commit = GroupCommit(connection, Availability())
    client.hset(keys.in_flight("me"), "1:1", "a job")
    send = connection.send

    def slow(commands: Any) -> Any:
        replies = send(commands)
        if commands == [("PING",)]:
            # While this thread waits for its reply, another one is done with its job.
            other = threading.Thread(target=commit.ack, args=("me", "1:1"))
            other.start()
            other.join()
        return replies

    connection.send = slow  # type: ignore[method-assign]
    assert commit.run(PING) in (b"PONG", "PONG", True)
    assert client.hlen(keys.in_flight("me")) == 0
    connection.close()


@pytest.fixture
def refusing(client: redis.Redis) -> Iterator[Any]:
    """A commit whose server refuses all commands for now."""
    connection = Connection(client)
    commit = GroupCommit(connection, Availability())
    send = connection.send
    commit.refused = True  # type: ignore[attr-defined]

    def refuse(commands: Any) -> Any:
        if commit.refused:  # type: ignore[attr-defined]
            return [ServerUnavailable(redis.ResponseError("BUSY")) for _ in commands]
        return send(commands)

    connection.send = refuse  # type: ignore[method-assign]
    yield commit
    connection.close()


def test_what_the_server_refuses_for_now_is_sent_again(client: redis.Redis, refusing: Any) -> None:
    client.hset(keys.in_flight("me"), "1:1", "a job")
    refusing.ack("me", "1:1")
    assert refusing.waiting() == [("me", "1:1")]
    refusing.refused = False
    refusing.flush()
    assert not client.exists(keys.in_flight("me"))


def test_a_refusal_is_not_an_answer(refusing: Any) -> None:
    with pytest.raises(ConnectionClosed, match="BUSY"):
        refusing.run(PING)
    refusing.refused = False
    assert refusing.run(PING) in (b"PONG", "PONG", True)
