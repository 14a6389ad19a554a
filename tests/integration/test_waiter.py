"""Waiting for jobs of many queues, on one connection, and where the server refuses that."""

from __future__ import annotations

import logging
import os
import resource
import threading
import time
from collections.abc import Iterator

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware
from dramatiq_sidekiq_flow.broker import waiter as module
from dramatiq_sidekiq_flow.broker.waiter import Waiter
from dramatiq_sidekiq_flow.store.connection import LOST, connect

from ..running import eventually, working


@pytest.fixture
def waiter(redis_url: str) -> Iterator[Waiter]:
    connection = connect(redis_url)
    waiter = Waiter(connection)
    yield waiter
    waiter.stop()
    connection.close()


class Waiting:
    """A consumer's thread that waits for a queue, again and again."""

    def __init__(self, waiter: Waiter, queue_name: str, seconds: float = 30.0) -> None:
        self.woken = threading.Event()
        self.lost: Exception | None = None
        self.thread = threading.Thread(target=self._run, args=(waiter, queue_name, seconds), daemon=True)
        self.thread.start()

    def _run(self, waiter: Waiter, queue_name: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if waiter.wait(queue_name, seconds):
                    self.woken.set()
                    return
            except LOST as e:
                self.lost = e
                return


def registered(client: redis.Redis, keys: int = 1) -> bool:
    """Whether the server tracks so many keys."""
    return int(client.info("stats")["tracking_total_keys"]) >= keys


def test_a_push_wakes_the_consumer_of_its_queue_alone(waiter: Waiter, client: redis.Redis) -> None:
    a, b = Waiting(waiter, "a"), Waiting(waiter, "b")
    eventually(lambda: registered(client, 2))
    client.lpush("queue:a", "a job")
    assert a.woken.wait(10)
    assert not b.woken.is_set()
    client.lpush("queue:b", "a job")
    assert b.woken.wait(10)
    # Nothing was taken.
    assert client.llen("queue:a") == client.llen("queue:b") == 1


def test_a_queue_that_is_filled_already_is_not_waited_for(waiter: Waiter, client: redis.Redis) -> None:
    client.lpush("queue:a", "a job")
    assert waiter.wait("a", 10)


def test_the_time_passes(waiter: Waiter, client: redis.Redis) -> None:
    assert not waiter.wait("a", 0.05)
    assert not waiter.wait("a", 0.05)


def test_it_wakes_each_time(waiter: Waiter, client: redis.Redis) -> None:
    for _ in range(20):
        waiting = Waiting(waiter, "a")
        eventually(lambda: registered(client))
        client.lpush("queue:a", "a job")
        assert waiting.woken.wait(10)
        client.delete("queue:a")


def test_an_emptied_database_wakes_all(waiter: Waiter, client: redis.Redis) -> None:
    waiting = [Waiting(waiter, name) for name in "abc"]
    eventually(lambda: registered(client, 3))
    client.flushdb()
    assert all(one.woken.wait(10) for one in waiting)


def test_many_queues_share_one_connection(waiter: Waiter, client: redis.Redis) -> None:
    before = len(client.client_list())
    waiting = [Waiting(waiter, f"q{number}") for number in range(100)]
    eventually(lambda: registered(client, 100))
    # The one that it took the place of is closed.
    assert len(client.client_list()) <= before + 1
    client.lpush("queue:q99", "a job")
    assert waiting[99].woken.wait(10)
    waiter.release()


def test_a_killed_connection_is_made_anew(waiter: Waiter, client: redis.Redis) -> None:
    waiting = Waiting(waiter, "a")
    eventually(lambda: registered(client))
    mine = client.client_id()
    for one in client.client_list():
        if int(one["id"]) != mine:
            client.client_kill_filter(_id=one["id"])
    eventually(lambda: waiting.lost)
    again = Waiting(waiter, "a")
    eventually(lambda: registered(client))
    client.lpush("queue:a", "a job")
    assert again.woken.wait(10)


def test_a_silent_connection_is_found_out(redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECHECK", 0.05)
    connection = connect(redis_url, socket_timeout=0.2)
    waiter = Waiter(connection)
    waiting = Waiting(waiter, "a")
    eventually(lambda: registered(client))
    client.execute_command("CLIENT", "PAUSE", 1000, "ALL")
    eventually(lambda: waiting.lost)
    client.execute_command("CLIENT", "UNPAUSE")
    again = Waiting(waiter, "a")
    client.lpush("queue:a", "a job")
    assert again.woken.wait(10)
    waiter.stop()
    connection.close()


def test_the_others_wait_on_where_the_one_that_reads_is_lost(waiter: Waiter, client: redis.Redis) -> None:
    waiting = [Waiting(waiter, name) for name in "abc"]
    eventually(lambda: registered(client, 3))
    mine = client.client_id()
    for one in client.client_list():
        if int(one["id"]) != mine:
            client.client_kill_filter(_id=one["id"])
    # One is told of the loss; the others are told to look, since they may have missed something.
    eventually(lambda: sum(one.woken.is_set() or one.lost is not None for one in waiting) == 3)
    again = Waiting(waiter, "b")
    eventually(lambda: registered(client))
    client.lpush("queue:b", "a job")
    assert again.woken.wait(10)


def test_another_one_reads_when_the_time_of_the_first_is_up(waiter: Waiter, client: redis.Redis) -> None:
    first = threading.Thread(target=waiter.wait, args=("a", 0.2))
    first.start()
    eventually(lambda: registered(client))
    waiting = Waiting(waiter, "b")
    eventually(lambda: registered(client, 2))
    first.join()
    client.lpush("queue:b", "a job")
    assert waiting.woken.wait(10)


def test_a_key_of_another_type_is_waited_for_like_an_empty_queue(waiter: Waiter, client: redis.Redis) -> None:
    client.set("queue:a", "text")
    waiting = Waiting(waiter, "a")
    eventually(lambda: registered(client))
    client.delete("queue:a")
    assert waiting.woken.wait(10)


# -- refused ---------------------------------------------------------------------


@pytest.fixture
def refusing_url(redis_url: str, client: redis.Redis) -> Iterator[str]:
    client.acl_setuser(
        "worker",
        enabled=True,
        passwords=["+secret"],
        keys=["*"],
        commands=["+@all", "-client|tracking", "-client|unblock"],
    )
    yield redis_url.replace("redis://", "redis://worker:secret@")
    client.acl_deluser("worker")


def test_where_tracking_is_refused_jobs_run_all_the_same(
    refusing_url: str, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    broker = SidekiqBroker(url=refusing_url)
    broker.add_middleware(WorkflowMiddleware())

    @dramatiq.actor(queue_name="python", broker=broker)
    def note(number: int) -> None:
        client.rpush("ran", number)

    with caplog.at_level(logging.WARNING, "dramatiq_sidekiq_flow"), working(broker, timeout=500):
        note.send(0)
        eventually(lambda: client.llen("ran") == 1)
        eventually(lambda: not broker.process.waiter.tracks)
        note.send(1)
        eventually(lambda: client.llen("ran") == 2)
    assert sum("refuses CLIENT TRACKING" in record.getMessage() for record in caplog.records) == 1
    broker.close()


def test_a_server_that_allows_it_later_is_asked_again(
    refusing_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_AGAIN", 0.05)
    connection = connect(refusing_url)
    waiter = Waiter(connection)
    waiter.wait("a", 0.1)
    assert not waiter.tracks
    client.execute_command("ACL", "SETUSER", "worker", "+client|tracking")
    waiting = Waiting(waiter, "a")
    eventually(lambda: waiter.tracks)
    eventually(lambda: registered(client))
    client.lpush("queue:a", "a job")
    assert waiting.woken.wait(10)
    waiter.stop()
    connection.close()


@pytest.mark.parametrize("limit", [2, 8])
def test_more_queues_than_connections(redis_url: str, client: redis.Redis, limit: int) -> None:
    broker = SidekiqBroker(url=redis_url, max_connections=limit)
    broker.add_middleware(WorkflowMiddleware())
    actors, ran = [], []
    for number in range(30):

        @dramatiq.actor(queue_name=f"q{number}", actor_name=f"a{number}", broker=broker)
        def note(number: int = number) -> None:
            ran.append(number)

        actors.append(note)
    before = len(client.client_list())
    with working(broker):
        for actor in actors:
            client.lpush(
                f"queue:{actor.queue_name}", b'{"class":"%b","args":[],"retry":true}' % actor.actor_name.encode()
            )
        eventually(lambda: len(ran) == 30)
        assert len(client.client_list()) - before <= limit
    assert set(ran) == set(range(30))
    broker.close()


def test_in_a_process_with_many_open_files(waiter: Waiter, client: redis.Redis) -> None:
    """select() refuses a file descriptor above 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    files: list[int] = []
    try:
        while not files or files[-1] < 1100:
            files.append(os.open(os.devnull, os.O_RDONLY))
        waiting = Waiting(waiter, "a")
        eventually(lambda: registered(client))
        client.lpush("queue:a", "a job")
        assert waiting.woken.wait(10)
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
