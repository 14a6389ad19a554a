"""Acknowledgements that are handed over while another thread has the line."""

from __future__ import annotations

import threading
from typing import Any

import redis

from dramatiq_sidekiq_flow.broker.availability import Availability
from dramatiq_sidekiq_flow.broker.commit import GroupCommit
from dramatiq_sidekiq_flow.store import keys
from dramatiq_sidekiq_flow.store.connection import Connection


def test_one_that_comes_during_a_round_trip_is_sent_after_it(client: redis.Redis) -> None:
    connection = Connection(client)
    commit = GroupCommit(connection, Availability())
    client.hset(keys.in_flight("me"), "1:1", "a job")
    send = connection.send

    def slow(commands: Any) -> Any:
        replies = send(commands)
        if commands == [("PING",)]:
            # While this thread waits for its reply, another one is done with its job.
            other = threading.Thread(target=commit.done, args=("me", "1:1"))
            other.start()
            other.join()
        return replies

    connection.send = slow  # type: ignore[method-assign]
    assert commit.run(("PING",)) in (b"PONG", "PONG", True)
    assert client.hlen(keys.in_flight("me")) == 0
    connection.close()
