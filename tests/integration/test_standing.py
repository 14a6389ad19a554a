"""The fetch of an idle worker that stands at the server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import SidekiqBroker
from dramatiq_sidekiq_flow.broker import standing as module
from dramatiq_sidekiq_flow.broker.in_flight import InFlight
from dramatiq_sidekiq_flow.broker.standing import Answer, Standing
from dramatiq_sidekiq_flow.errors import WrongType
from dramatiq_sidekiq_flow.store import queues, standing_fetch
from dramatiq_sidekiq_flow.store.connection import LOST, Connection, ServerUnavailable, connect
from dramatiq_sidekiq_flow.store.queues import Fetch

from ..operations import ME, MINE
from ..running import eventually, in_flight, members, working


def blocked(client: redis.Redis) -> int:
    """How many clients are blocked."""
    return int(client.info("clients")["blocked_clients"])


def ran(client: redis.Redis, count: int) -> bool:
    """Whether so many jobs have run."""
    return client.llen("ran") == count


@pytest.fixture
def note(broker: SidekiqBroker, client: redis.Redis) -> dramatiq.Actor[Any, Any]:
    @dramatiq.actor(queue_name="python", broker=broker)
    def note(number: int) -> None:
        client.rpush("ran", number)

    return note


# -- a worker --------------------------------------------------------------------


def test_a_job_comes_with_the_fetch_that_stands(
    broker: SidekiqBroker, client: redis.Redis, note: dramatiq.Actor[Any, Any]
) -> None:
    with working(broker, timeout=1000):
        eventually(lambda: blocked(client) == 1)
        for number in range(5):
            note.send(number)
            eventually(partial(ran, client, number + 1))
            eventually(lambda: blocked(client) == 1)
        # No connection waits for a notice.
        assert not broker.process.waiter.tracks
        eventually(lambda: not in_flight(client))
    assert blocked(client) == 0


def test_many_jobs_at_once(broker: SidekiqBroker, client: redis.Redis, note: dramatiq.Actor[Any, Any]) -> None:
    with working(broker, timeout=1000):
        eventually(lambda: blocked(client) == 1)
        note.send_many([(number,) for number in range(100)])  # type: ignore[attr-defined]
        eventually(lambda: client.llen("ran") == 100)
        eventually(lambda: not in_flight(client))


def test_a_quiet_process_takes_no_job(
    broker: SidekiqBroker, client: redis.Redis, note: dramatiq.Actor[Any, Any]
) -> None:
    with working(broker, timeout=1000):
        eventually(lambda: blocked(client) == 1)
        broker.process.stop_fetching()
        eventually(lambda: blocked(client) == 0)
        note.send(1)
        assert len(members(client, "python")) == 1
    assert not client.exists("ran")
    assert not in_flight(client)


def test_a_job_that_comes_while_its_fetch_is_ended_goes_back(
    broker: SidekiqBroker, client: redis.Redis, note: dramatiq.Actor[Any, Any]
) -> None:
    consumer = broker.consume("python", prefetch=2, timeout=20)
    worker = dramatiq.Worker(broker, worker_threads=1)
    broker.process.workers.append(worker)
    assert next(consumer) is None
    assert next(consumer) is None
    assert blocked(client) == 1
    note.send(1)
    eventually(lambda: in_flight(client))
    broker.process.quiet = True
    assert next(consumer) is None
    assert not in_flight(client)
    assert len(members(client, "python")) == 1


def test_a_paused_worker_takes_no_job(
    broker: SidekiqBroker, client: redis.Redis, note: dramatiq.Actor[Any, Any]
) -> None:
    with working(broker) as worker:
        eventually(lambda: blocked(client) == 1)
        worker.pause()
        assert blocked(client) == 0
        note.send(1)
        assert len(members(client, "python")) == 1
        worker.resume()
        eventually(lambda: client.llen("ran") == 1)


def test_a_queue_that_is_paused(broker: SidekiqBroker, client: redis.Redis, note: dramatiq.Actor[Any, Any]) -> None:
    with working(broker):
        eventually(lambda: blocked(client) == 1)
        queues.pause(broker.connection, "python")
        note.send(1)
        # The fetch that stood was refused; none stands while the queue is paused.
        eventually(lambda: broker.process.in_flight["python"].unavailable)
        assert len(members(client, "python")) == 1
        queues.unpause(broker.connection, "python")
        eventually(lambda: client.llen("ran") == 1)
        eventually(lambda: blocked(client) == 1)


def test_the_server_forgets_the_script(
    broker: SidekiqBroker, client: redis.Redis, note: dramatiq.Actor[Any, Any]
) -> None:
    with working(broker, timeout=1000):
        eventually(lambda: blocked(client) == 1)
        client.script_flush()
        note.send(1)
        eventually(lambda: client.llen("ran") == 1)


def test_a_worker_that_was_declared_dead_registers_again(
    broker: SidekiqBroker, client: redis.Redis, note: dramatiq.Actor[Any, Any]
) -> None:
    with working(broker, timeout=1000):
        eventually(lambda: blocked(client) == 1)
        client.delete("swf:workers")
        note.send(1)
        eventually(lambda: client.llen("ran") == 1)


def test_a_connection_is_killed(broker: SidekiqBroker, client: redis.Redis, note: dramatiq.Actor[Any, Any]) -> None:
    with working(broker, timeout=1000):
        for number in range(3):
            eventually(lambda: blocked(client) == 1)
            for one in client.client_list():
                if "b" in one["flags"]:
                    client.client_kill_filter(_id=one["id"])
            note.send(number)
            eventually(partial(ran, client, number + 1))
        eventually(lambda: not in_flight(client))


def test_a_suspect_wakes_the_consumer(
    broker: SidekiqBroker, client: redis.Redis, note: dramatiq.Actor[Any, Any]
) -> None:
    with working(broker, timeout=1000):
        eventually(lambda: blocked(client) == 1)
        held = broker.process.in_flight["python"]
        base = held.trial_base()
        payload = b'{"class":"note","args":[7],"jid":"a","retry":true}'
        client.hset(f"swf:inflight:{held.member}", f"{base}:1?", payload)
        held.add_trial(payload)
        eventually(lambda: client.lrange("ran", 0, -1) == [b"7"])
        eventually(lambda: not in_flight(client))


# -- which queues ----------------------------------------------------------------


def queues_of(broker: SidekiqBroker, client: redis.Redis, count: int) -> list[dramatiq.Actor[Any, Any]]:
    actors = []
    for number in range(count):

        @dramatiq.actor(queue_name=f"q{number}", actor_name=f"a{number}", broker=broker)
        def note(name: str) -> None:
            client.rpush("ran", name)

        actors.append(note)
    return actors


def test_each_of_a_few_queues(broker: SidekiqBroker, client: redis.Redis) -> None:
    actors = queues_of(broker, client, module.STANDING)
    with working(broker, threads=8, timeout=1000):
        eventually(lambda: blocked(client) == module.STANDING)
        for actor in actors:
            actor.send(actor.actor_name)
        eventually(lambda: client.llen("ran") == module.STANDING)
        eventually(lambda: blocked(client) == module.STANDING)
        # One thread is reserved for each.
        assert sum(held.reserved for held in broker.process.in_flight.values()) == module.STANDING


def test_a_thread_for_each_that_stands(broker: SidekiqBroker, client: redis.Redis) -> None:
    actors = queues_of(broker, client, 3)
    with working(broker, threads=2, timeout=1000):
        eventually(lambda: blocked(client) == 2)
        eventually(lambda: broker.process.waiter.tracks)
        for actor in actors:
            actor.send(actor.actor_name)
        eventually(lambda: client.llen("ran") == 3)


def test_not_of_many_queues(broker: SidekiqBroker, client: redis.Redis) -> None:
    queues_of(broker, client, module.STANDING + 1)
    with working(broker, threads=8):
        eventually(lambda: broker.process.waiter.tracks)
        eventually(lambda: blocked(client) == 0)


@pytest.mark.parametrize(("order", "stands"), [(["q0", "q1"], 0), ({"q0": 2, "q1": 1}, 2)])
def test_not_in_strict_order(redis_url: str, client: redis.Redis, order: Any, stands: int) -> None:
    broker = SidekiqBroker(url=redis_url, queue_order=order)
    actors = queues_of(broker, client, 2)
    with working(broker, timeout=1000):
        eventually(lambda: broker.process.waiter.tracks or stands)
        eventually(lambda: blocked(client) == stands)
        for actor in actors:
            actor.send(actor.actor_name)
        eventually(lambda: client.llen("ran") == 2)
    broker.close()


# -- refused ---------------------------------------------------------------------


@pytest.mark.parametrize("command", ["client|id", "client|reply", "client|unblock", "blmove"])
def test_where_a_command_is_refused_the_server_notifies(redis_url: str, client: redis.Redis, command: str) -> None:
    client.acl_setuser("worker", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", f"-{command}"])
    broker = SidekiqBroker(url=redis_url.replace("redis://", "redis://worker:secret@"))
    (actor,) = queues_of(broker, client, 1)
    with working(broker, timeout=1000):
        eventually(lambda: broker.process.waiter.tracks)
        actor.send("a")
        eventually(lambda: client.llen("ran") == 1)
        assert blocked(client) == 0
    broker.close()
    client.acl_deluser("worker")


def test_a_command_that_is_refused_later(redis_url: str, client: redis.Redis) -> None:
    """The reply of BLMOVE is skipped after a fetch that has brought jobs, and so is its error."""
    client.acl_setuser("worker", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"])
    broker = SidekiqBroker(url=redis_url.replace("redis://", "redis://worker:secret@"))
    (actor,) = queues_of(broker, client, 1)
    with working(broker, timeout=1000):
        actor.send("a")
        eventually(lambda: client.llen("ran") == 1)
        eventually(lambda: blocked(client) == 1)
        client.execute_command("ACL", "SETUSER", "worker", "-blmove")
        actor.send("b")
        eventually(lambda: client.llen("ran") == 2)
        eventually(lambda: broker.process.waiter.tracks)
        actor.send("c")
        eventually(lambda: client.llen("ran") == 3)
    broker.close()
    client.acl_deluser("worker")


# -- without a worker -----------------------------------------------------------


@pytest.fixture
def held(client: redis.Redis) -> InFlight:
    client.zadd("swf:workers", {ME: 1})
    return InFlight("python", ME)


@pytest.fixture
def standing(connection: Connection, held: InFlight) -> Iterator[Standing]:
    standing = Standing(connection, held)
    yield standing
    standing.close()


def fetch(base: str = "1", count: int = 2) -> Fetch:
    return Fetch(ME, "python", base, count, 1)


def lose(standing: Standing) -> None:
    """Lose the reply that has arrived, and the connection."""
    opened = standing._open
    assert opened is not None
    eventually(lambda: opened.wait(0.1))
    opened._socket.recv(65_536)
    opened._socket.shutdown(socket.SHUT_RDWR)


def test_the_answer(standing: Standing, client: redis.Redis) -> None:
    assert standing.begin(fetch())
    assert standing.wait(0.01) is None
    assert standing.stands
    client.lpush("queue:python", "job")
    assert standing.wait(10) == Answer([("1:1", b"job")], 2)
    assert not standing.stands
    assert client.hgetall(MINE) == {b"1:1": b"job"}
    assert not client.exists("queue:python")


def ran_fetches(client: redis.Redis) -> int:
    """How many scripts the server has run."""
    stats = client.info("commandstats")
    return sum(stats[name]["calls"] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in stats)


def test_a_job_wakes_one_of_many(connection: Connection, client: redis.Redis) -> None:
    standings = []
    for number in range(5):
        member = f"host:{number}:abc:python"
        client.zadd("swf:workers", {member: 1})
        standings.append(Standing(connection, InFlight("python", member)))
        standings[-1].begin(Fetch(member, "python", "1", 2, 1))
        eventually(partial(lambda count: blocked(client) == count, number + 1))
    before = ran_fetches(client)
    client.lpush("queue:python", "a", "b")
    # As many as there are jobs; the first one has room for both.
    assert standings[0].wait(10) == Answer([("1:1", b"a"), ("1:2?", b"b")], 2)
    assert standings[1].wait(10) == Answer([], 2)
    assert blocked(client) == 3
    client.lpush("queue:python", "c")
    assert standings[2].wait(10) == Answer([("1:1", b"c")], 2)
    assert blocked(client) == 2
    assert ran_fetches(client) == before + 3
    for standing in standings:
        standing.close()


def test_one_that_may_not_take_the_job_wakes_the_next(connection: Connection, client: redis.Redis) -> None:
    dead, live = (Standing(connection, InFlight("python", f"host:{n}:abc:python")) for n in range(2))
    client.zadd("swf:workers", {live.held.member: 1})
    for count, standing in enumerate((dead, live), 1):
        standing.begin(Fetch(standing.held.member, "python", "1", 1, 1))
        eventually(partial(lambda count: blocked(client) == count, count))
    client.lpush("queue:python", "a")
    assert dead.wait(10) == Answer(None, 1)
    assert live.wait(10) == Answer([("1:1", b"a")], 1)
    dead.close()
    live.close()


def test_jobs_of_a_lost_process_come_first(connection: Connection, held: InFlight, client: redis.Redis) -> None:
    """As if it had been lost between the two commands."""
    client.lpush("queue:python", "a", "b", "c")
    for _ in range(2):
        client.blmove("queue:python", "swf:arrived:python", 0, "RIGHT", "RIGHT")
    assert queues.fetch(connection, held.member, "python", "1", 3, free=3) == [
        ("1:1", b"a"),
        ("1:2", b"b"),
        ("1:3", b"c"),
    ]
    assert not client.exists("swf:arrived:python")


def test_jobs_that_arrive_at_a_paused_queue_go_back(
    connection: Connection, held: InFlight, client: redis.Redis
) -> None:
    client.sadd("paused", "python")
    client.rpush("swf:arrived:python", "a")
    assert queues.fetch(connection, held.member, "python", "1", 1) is queues.PAUSED
    assert client.lrange("queue:python", 0, -1) == [b"a"]
    assert not client.exists("swf:arrived:python")


@pytest.mark.parametrize("key", ["queue:python", "swf:arrived:python"])
def test_jobs_stay_where_they_are_beside_a_key_of_another_type(
    connection: Connection, held: InFlight, client: redis.Redis, key: str
) -> None:
    other = {"queue:python": "swf:arrived:python", "swf:arrived:python": "queue:python"}[key]
    client.set(key, "text")
    client.rpush(other, "a")
    if key == "queue:python":
        with pytest.raises(WrongType, match=key):
            queues.fetch(connection, held.member, "python", "1", 1)
        assert client.lrange(other, 0, -1) == [b"a"]
    else:
        assert queues.fetch(connection, held.member, "python", "1", 1) == [("1:1?", b"a")]


def test_one_who_may_not_put_jobs_back_takes_none(redis_url: str, held: InFlight, client: redis.Redis) -> None:
    client.acl_setuser("worker", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-rpush"])
    client.rpush("swf:arrived:python", "a")
    limited = connect(redis_url.replace("redis://", "redis://worker:secret@"))
    with pytest.raises(ServerUnavailable, match="RPUSH"):
        queues.fetch(limited, held.member, "python", "1", 1)
    assert client.lrange("swf:arrived:python", 0, -1) == [b"a"]
    limited.close()
    client.acl_deluser("worker")


def test_the_threads_are_free_again(standing: Standing, held: InFlight, client: redis.Redis) -> None:
    held.reserved = 1
    standing.begin(fetch())
    client.lpush("queue:python", "job")
    assert standing.wait(10)
    assert held.reserved == 0


def test_a_large_job(standing: Standing, client: redis.Redis) -> None:
    large = b"x" * 3_000_000
    standing.begin(fetch())
    client.lpush("queue:python", large)
    assert standing.wait(10) == Answer([("1:1", large)], 2)


def test_a_job_is_sent_once_while_each_fetch_brings_jobs(standing: Standing, client: redis.Redis) -> None:
    job = b"x" * 100_000
    for number, factor in enumerate((2, 1, 1)):
        standing.begin(fetch(f"{number + 1}"))
        before = client.info("stats")["total_net_output_bytes"]
        client.lpush("queue:python", job)
        assert standing.wait(10) == Answer([(f"{number + 1}:1", job)], 2)
        sent = client.info("stats")["total_net_output_bytes"] - before
        assert factor * len(job) < sent < (factor + 0.5) * len(job)


def test_a_server_that_waits_no_more_is_found_out(standing: Standing, client: redis.Redis) -> None:
    standing.begin(fetch("1"))
    client.lpush("queue:python", "job")
    assert standing.wait(10)
    client.set("queue:other", "not a list")
    for base in ("2", "3"):
        standing.begin(Fetch(ME, "other", base, 2, 1))
        with pytest.raises(WrongType):
            standing.wait(10)
    assert not standing.may_begin()


def test_ended_without_a_job(standing: Standing, client: redis.Redis) -> None:
    assert standing.end() is None
    standing.begin(fetch())
    assert standing.end() == Answer([], 2)
    client.lpush("queue:python", "job")
    assert not client.exists(MINE)


def test_ended_when_a_job_has_come(standing: Standing, client: redis.Redis) -> None:
    standing.begin(fetch())
    client.lpush("queue:python", "job")
    eventually(lambda: client.exists(MINE))
    assert standing.end() == Answer([("1:1", b"job")], 2)


def test_a_reply_that_is_lost_comes_with_the_next_fetch(standing: Standing, client: redis.Redis) -> None:
    standing.begin(fetch())
    client.lpush("queue:python", "job")
    eventually(lambda: client.exists(MINE))
    lose(standing)
    with pytest.raises(LOST):
        standing.wait(10)
    assert standing.begin(fetch())
    client.lpush("queue:python", "another job")
    assert standing.wait(10) == Answer([("1:1", b"job")], 2)


def test_the_bell_ends_a_wait(standing: Standing, held: InFlight) -> None:
    standing.begin(fetch())
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(standing.wait(60)))
    waiting.start()
    standing.ring()
    waiting.join(20)
    assert answers == [None]
    assert standing.stands
    # It was heard.
    assert not standing._open.wait(0.01)  # type: ignore[union-attr]


def test_the_time_of_the_server_is_over(
    standing: Standing, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_fetch, "STANDS", 0.05)
    standing.begin(fetch())
    assert standing.wait(10) == Answer([], 2)


def test_a_silent_server_counts_as_lost(redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_fetch, "STANDS", 0.05)
    connection = connect(redis_url, socket_timeout=0.2)
    held = InFlight("python", ME)
    standing = Standing(connection, held)
    standing.begin(fetch())
    held.reserved = 1
    client.execute_command("CLIENT", "PAUSE", 1000, "ALL")
    with pytest.raises(LOST):
        eventually(lambda: standing.wait(0.05))
    client.execute_command("CLIENT", "UNPAUSE")
    assert not standing.stands
    assert held.reserved == 0
    connection.close()


def test_a_lost_server_leaves_nothing_expected(standing: Standing, held: InFlight, client: redis.Redis) -> None:
    base = held.next_base()
    standing.begin(fetch(base))
    client.lpush("queue:python", "job")
    eventually(lambda: client.exists(MINE))
    lose(standing)
    with pytest.raises(LOST):
        standing.end()
    # The heartbeat puts it back.
    assert held.unknown([f"{base}:1".encode()], []) == {f"{base}:1".encode()}


def test_an_empty_base_is_kept_while_it_stands(standing: Standing, held: InFlight) -> None:
    base = held.next_base()
    standing.begin(fetch(base))
    assert not held.unknown([f"{base}:1".encode()], [])
