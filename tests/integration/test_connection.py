"""How many connections a process opens, and what a forked child does with its parent's."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware
from dramatiq_sidekiq_flow.store import connection as module
from dramatiq_sidekiq_flow.store import producers as producing
from dramatiq_sidekiq_flow.store import queues
from dramatiq_sidekiq_flow.store.connection import Connection, connect
from dramatiq_sidekiq_flow.store.faults import PoolExhausted, ServerUnavailable
from dramatiq_sidekiq_flow.store.handshake import SOCKET_TIMEOUT

from ..running import eventually, in_flight, working

FORK = multiprocessing.get_context("fork")


def run_in_fork(work: Callable[[], None]) -> None:
    """Run a function in a forked child, as a preforking server does."""
    child = FORK.Process(target=work)
    child.start()
    child.join(30)
    assert child.exitcode == 0


@pytest.fixture
def few(redis_url: str) -> Iterator[Connection]:
    connection = connect(redis_url, max_connections=8)
    yield connection
    connection.close()


def opened(client: redis.Redis) -> int:
    """Connections to the server, without that of ``client``."""
    return len(client.client_list()) - 1


def test_no_more_connections_than_the_client_may_open(few: Connection, client: redis.Redis) -> None:
    before = opened(client)
    most = 0
    together = threading.Barrier(20)

    def work() -> None:
        together.wait()
        for _ in range(20):
            few.call("PING")

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most = max(most, opened(client) - before)
    assert 0 < most <= 8


def test_a_refused_handshake_is_an_outage_as_a_refused_command_is(redis_url: str, client: redis.Redis) -> None:
    client.execute_command("ACL", "SETUSER", "unable", "on", "nopass", "~*", "+@all", "-select")
    unable = connect(redis_url.replace("//", "//unable:any@").removesuffix("/0") + "/1")
    try:
        with pytest.raises(ServerUnavailable, match="NOPERM"):
            unable.call("PING")
    finally:
        unable.close()
        client.execute_command("ACL", "DELUSER", "unable")


def test_with_none_free_it_says_what_to_raise(few: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POOL_TIMEOUT", 0.05)
    held = [few.exclusive() for _ in range(8)]
    with pytest.raises(PoolExhausted, match="All 8 connections.*max_connections"):
        few.call("PING")
    few.drop(held.pop())
    assert few.call("PING")
    for connection in held:
        few.drop(connection)


def test_a_lane_keeps_its_connection(few: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = few.lane()
    assert lane.call("PING")
    held = [few.exclusive() for _ in range(7)]
    monkeypatch.setattr(module, "POOL_TIMEOUT", 0.05)
    with pytest.raises(PoolExhausted):
        few.call("PING")
    assert lane.call("PING")
    for connection in held:
        few.drop(connection)


def test_where_very_few_are_allowed_they_are_shared(redis_url: str) -> None:
    connection = connect(redis_url, max_connections=2)
    assert connection.lane() is connection
    connection.close()


def test_a_silent_server_is_given_up(redis_url: str) -> None:
    connection = connect(redis_url, socket_timeout=0.1)
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("CLIENT", "PAUSE", 2000, "ALL")
        try:
            with pytest.raises(redis.TimeoutError):
                connection.call("PING")
        finally:
            client.execute_command("CLIENT", "UNPAUSE")
    connection.close()


def test_a_client_without_a_time_limit_gets_one(redis_url: str) -> None:
    for limit in (None, 0):
        connection = connect(redis_url, socket_timeout=limit)
        assert connection.longest_wait == SOCKET_TIMEOUT / 2
    assert connect(redis_url, socket_timeout=3).longest_wait == 1.5


def test_one_refused_command_is_no_reason_to_refuse_the_others(client: redis.Redis, redis_url: str) -> None:
    client.acl_setuser("worker", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-get"])
    try:
        connection = connect(redis_url.replace("redis://", "redis://worker:secret@"))
        replies = connection.send([("SET", "a", 1), ("GET", "a"), ("PING",)])
        assert isinstance(replies[1], ServerUnavailable)
        assert str(replies[1]).startswith("NOPERM")
        assert client.get("a") == b"1"
        connection.close()
    finally:
        client.acl_deluser("worker")


# -- replies that do not come ------------------------------------------------------


def test_a_lost_reply_is_answered_by_sending_again(redis_url: str, client: redis.Redis) -> None:
    connection = connect(redis_url)
    connection.call("PING")
    client.client_kill_filter(_type="normal", skipme=True)
    assert connection.send_counted([("INCR", "a")]) == ([1], 2)
    connection.close()


def test_an_interrupted_connection_is_not_used_again(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next command would read the reply of this one."""
    connection = connect(redis_url)
    used = []

    def interrupted(opened: Any, commands: Any) -> Any:
        used.append(opened)
        opened.send_packed_command(opened.pack_commands(commands))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(connection, "_exchange", interrupted)
        with pytest.raises(KeyboardInterrupt):
            connection.call("ECHO", "first")
    assert [opened._sock for opened in used] == [None]
    assert connection.call("ECHO", "second") == b"second"
    connection.close()


def test_after_a_failover_another_connection_is_opened(redis_url: str, client: redis.Redis) -> None:
    """What the address leads to now may be the new primary."""
    connection = connect(redis_url)
    connection.call("PING")
    before = {entry["id"] for entry in client.client_list()}
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        (reply,), times = connection.send_counted([("SET", "a", 1)])
    finally:
        client.execute_command("REPLICAOF", "NO", "ONE")
    assert isinstance(reply, ServerUnavailable)
    assert times == 2
    assert {entry["id"] for entry in client.client_list()} - before
    connection.close()


# -- forks -----------------------------------------------------------------------


@pytest.fixture
def note(broker: SidekiqBroker) -> Any:
    @dramatiq.actor(queue_name="python")
    def note(number: int) -> None: ...

    return note


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_children_push_what_they_send(note: Any, client: redis.Redis, warm: bool) -> None:
    """Number and name of a push are copied by a fork: siblings took each other's for repetitions."""
    if warm:
        note.send(-1)

    def serve() -> None:
        for number in range(10):
            note.send(number)
            note.send_with_options(args=(number,), delay=60_000)

    children = [FORK.Process(target=serve) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0] * 4
    assert client.llen("queue:python") == 40 + warm
    assert client.zcard("schedule") == 40


def test_a_copy_of_a_running_machine_pushes_what_it_sends(redis_url: str, client: redis.Redis) -> None:
    connection = connect(redis_url)
    queues.push(connection, "q", [b"one"])
    copied = producing.producers._free[-1]
    twin = producing.Producer()
    twin.key = copied.key
    queues.push(connection, "q", [b"two"])
    producing.producers._free.append(twin)
    queues.push(connection, "q", [b"three"])
    assert client.lrange("queue:q", 0, -1) == [b"three", b"two", b"one"]
    connection.close()


def test_a_copy_of_a_running_machine_pushes_its_batches(redis_url: str, client: redis.Redis) -> None:
    """The copy has made two pushes under the same name: the first two of three are refused as repetitions."""
    connection = connect(redis_url)
    queues.push(connection, "q", [b"0"])
    producer = producing.producers._free[-1]
    twin = producing.Producer()
    twin.key, twin.number = producer.key, producer.number
    for _ in range(2):
        queues.push(connection, "q", [b"theirs"])
    producing.producers._free.append(twin)
    pushed = queues.push_all(
        connection, [queues.Batch("q", [b"1"]), queues.Batch("q", [b"2"]), queues.Batch("q", [b"3"])]
    )
    assert pushed == queues.Pushed(3)
    assert sorted(client.lrange("queue:q", 0, -1)) == [b"0", b"1", b"2", b"3", b"theirs", b"theirs"]
    connection.close()


def test_keys_do_not_grow_with_the_threads_that_sent(note: Any, client: redis.Redis) -> None:
    for number in range(50):
        thread = threading.Thread(target=note.send, args=(number,))
        thread.start()
        thread.join()
    assert client.llen("queue:python") == 50
    assert len(client.keys("swf:push:*")) == 1


def test_a_child_that_closes_its_copy_leaves_the_parents_job_alone(
    redis_url: str, client: redis.Redis, broker: SidekiqBroker
) -> None:
    began, end = threading.Event(), threading.Event()
    ran: list[str] = []

    @dramatiq.actor(queue_name="python")
    def work() -> None:
        began.set()
        end.wait(20)
        ran.append("done")

    with working(broker):
        work.send()
        began.wait(20)
        run_in_fork(broker.close)
        assert len(in_flight(client)) == 1
        assert client.llen("queue:python") == 0
        assert client.zcard("swf:workers") == 1
        end.set()
        eventually(lambda: not in_flight(client))
    assert ran == ["done"]
    assert client.llen("queue:python") == 0


def test_a_child_works_with_a_broker_that_the_parent_works_with(redis_url: str, client: redis.Redis) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware())

    @dramatiq.actor(queue_name="python", broker=broker)
    def work(by: str) -> None:
        client.rpush("ran", by)

    def child() -> None:
        client.connection_pool.reset()
        with working(broker):
            work.send("child")
            broker.join("python", timeout=20_000)

    with working(broker):
        work.send("parent")
        eventually(lambda: client.llen("ran") == 1)
    with working(broker):
        broker.stop_fetching()
        run_in_fork(child)
    assert client.lrange("ran", 0, -1) == [b"parent", b"child"]
    broker.close()


def test_a_server_that_has_forgotten_its_scripts_gets_them_again(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that forgets them again before the second try."""
    connection = connect(redis_url)
    client.script_flush()
    exchange = Connection._exchange

    def forgetful(*arguments: Any) -> Any:
        replies = exchange(*arguments)
        client.script_flush()
        return replies

    monkeypatch.setattr(Connection, "_exchange", staticmethod(forgetful))
    queues.push(connection, "q", [b"one"])
    queues.push(connection, "q", [b"two"])
    assert client.lrange("queue:q", 0, -1) == [b"two", b"one"]
    connection.close()


def test_a_child_opens_connections_of_its_own(redis_url: str) -> None:
    """It would read the replies to its parent's commands, and the parent those to its."""
    connection = connect(redis_url)
    mine = connection.call("CLIENT", "ID")

    def look() -> None:
        assert connection.call("CLIENT", "ID") != mine
        connection.close()

    run_in_fork(look)
    assert connection.call("CLIENT", "ID") == mine
    connection.close()


def test_a_child_does_not_push_under_its_parents_name(note: Any) -> None:
    """A push of its own whose reply is lost would be taken for one that its sibling has made."""
    note.send(-1)
    known = {producer.key for producer in producing.producers._free}
    assert known

    def look() -> None:
        assert producing.producers.take().key not in known

    run_in_fork(look)


def test_a_child_has_a_name_of_its_own(broker: SidekiqBroker) -> None:
    mine = broker.process.heartbeat.identity

    def look() -> None:
        assert broker.process.heartbeat.identity != mine
        assert broker.process.heartbeat.identity == broker.process.heartbeat.identity

    run_in_fork(look)
    assert broker.process.heartbeat.identity == mine
