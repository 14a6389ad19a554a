"""The acknowledgement that goes with the mark of the thread's next job."""

from __future__ import annotations

import threading

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import SidekiqBroker
from dramatiq_sidekiq_flow.broker.begin import begin
from dramatiq_sidekiq_flow.broker.owed_acks import OwedAcks
from dramatiq_sidekiq_flow.store.connection import LOST, Connection, connect
from dramatiq_sidekiq_flow.store.replication import Replication

from ..operations import ME, MINE
from ..running import eventually, in_flight, working


@pytest.fixture
def sent() -> list[tuple[str, str]]:
    """What was sent without a mark."""
    return []


@pytest.fixture
def owed(connection: Connection, sent: list[tuple[str, str]]) -> OwedAcks:
    return OwedAcks(connection, lambda member, receipt: sent.append((member, receipt)))


def reads(client: redis.Redis) -> int:
    return int(client.info("stats")["total_reads_processed"])


def test_it_goes_with_the_next_command(owed: OwedAcks, client: redis.Redis, sent: list[tuple[str, str]]) -> None:
    client.hset(MINE, mapping={"a:1": "done", "b:1": "next"})
    owed.call("PING")
    owed.owe(ME, "a:1")
    assert owed.waiting() == [(ME, "a:1")]
    before = reads(client)
    assert owed.call("HLEN", MINE) == 1
    # One read, and that of INFO.
    assert reads(client) - before == 2
    assert client.hgetall(MINE) == {b"b:1": b"next"}
    assert owed.waiting() == sent == []
    # Once.
    client.hset(MINE, "a:1", "another job")
    assert owed.call("HLEN", MINE) == 2


def test_a_heartbeat_forgets_only_what_it_has_sent(connection: Connection) -> None:
    """While it sends the acknowledgement of a thread, that thread ends its next job."""
    sending, ended = threading.Event(), threading.Event()

    def send(member: str, receipt: str) -> None:
        sending.set()
        assert ended.wait(10)

    owed = OwedAcks(connection, send)
    owed.owe(ME, "a:1")
    heartbeat = threading.Thread(target=owed.send_all)
    heartbeat.start()
    assert sending.wait(10)
    owed.call("PING")
    owed.owe(ME, "b:1")
    ended.set()
    heartbeat.join()
    assert owed.waiting() == [(ME, "b:1")]


def test_without_a_command_it_is_sent_as_usual(owed: OwedAcks, sent: list[tuple[str, str]]) -> None:
    owed.send()
    owed.owe(ME, "a:1")
    owed.send()
    owed.send()
    assert sent == [(ME, "a:1")]
    owed.owe(ME, "b:1")
    owed.owe(ME, "c:1")
    assert sent == [(ME, "a:1"), (ME, "b:1")]
    assert owed.waiting() == [(ME, "c:1")]


def test_each_thread_sends_its_own(owed: OwedAcks, client: redis.Redis, sent: list[tuple[str, str]]) -> None:
    client.hset(MINE, "a:1", "done")
    other = threading.Thread(target=owed.owe, args=(ME, "a:1"))
    other.start()
    other.join()
    owed.send()
    assert owed.call("HLEN", MINE) == 1
    assert sent == []
    # The thread has ended: a heartbeat sends it.
    owed.send_all()
    assert sent == [(ME, "a:1")]
    assert owed.waiting() == []


def test_it_stays_while_the_server_cannot_be_reached(
    owed: OwedAcks, connection: Connection, client: redis.Redis, sent: list[tuple[str, str]]
) -> None:
    client.hset(MINE, "a:1", "done")
    owed.owe(ME, "a:1")
    with connection.redirected("redis://127.0.0.1:1"), pytest.raises(LOST):
        owed.call("HLEN", MINE)
    assert owed.waiting() == [(ME, "a:1")]
    assert owed.call("HLEN", MINE) == 0


def test_one_that_is_refused_is_sent_as_usual(redis_url: str, client: redis.Redis, sent: list[tuple[str, str]]) -> None:
    client.acl_setuser("worker", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-hdel"])
    connection = connect(redis_url.replace("redis://", "redis://worker:secret@"))
    owed = OwedAcks(connection, lambda member, receipt: sent.append((member, receipt)))
    owed.owe(ME, "a:1")
    assert owed.call("HLEN", MINE) == 0
    assert sent == [(ME, "a:1")]
    connection.close()
    client.acl_deluser("worker")


def test_a_mark_that_gets_no_reply(owed: OwedAcks, broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(queue_name="python", broker=broker)
    def step(number: int) -> None:
        pass

    step.send_many([(1,), (2,)])  # type: ignore[attr-defined]
    consumer = broker.consume("python", prefetch=2, timeout=1000)
    first, second = next(consumer), next(consumer)
    assert first is not None
    assert second is not None
    broker.process.owed.owe(first.member, first.receipt)
    with broker.connection.redirected("redis://127.0.0.1:1"):
        begin(broker.process.in_flight, broker.process.owed, second)
    assert second.unsure
    # Known to the heartbeat until it is sent.
    assert (first.member, first.receipt) in broker.process._leaving()
    broker.process._flush()
    consumer.ack(second)
    eventually(lambda: not in_flight(client))


@pytest.mark.parametrize("replicas", [0, 1])
@pytest.mark.parametrize("threads", [1, 3])
def test_in_a_worker(redis_url: str, client: redis.Redis, threads: int, replicas: int) -> None:
    broker = SidekiqBroker(url=redis_url, replication=Replication(push=0, acknowledge=replicas))
    owing: list[int] = []

    @dramatiq.actor(queue_name="python", broker=broker)
    def step(number: int) -> None:
        owing.append(len(broker.process.owed.waiting()))
        client.rpush("ran", number)

    step.send_many([(number,) for number in range(20)])  # type: ignore[attr-defined]
    with working(broker, threads=threads):
        eventually(lambda: client.llen("ran") == 20)
        # All are sent, without a beat: the last ones by threads that found nothing more to do.
        eventually(lambda: not in_flight(client), seconds=3)
        assert broker.process.owed.waiting() == []
    # While an actor runs, its thread owes nothing.
    assert max(owing) < threads
    broker.close()


def test_a_thread_without_a_next_job_sends_what_it_owes(broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(queue_name="python", broker=broker)
    def step(number: int) -> None:
        member = broker.process.in_flight["python"].member
        client.hset(f"swf:inflight:{member}", "fff:1", "done before")
        broker.process.owed.owe(member, "fff:1")
        client.rpush("ran", number)

    # No beat sends it.
    broker.process.heartbeat.tasks.clear()
    with working(broker):
        step.send(1)
        eventually(lambda: client.llen("ran") == 1)
        eventually(lambda: not in_flight(client))


def test_a_next_job_that_has_begun_already(broker: SidekiqBroker, client: redis.Redis) -> None:
    """It is not marked: what its thread owes is sent before it runs."""

    @dramatiq.actor(queue_name="python", broker=broker)
    def step(number: int) -> None:
        pass

    step.send(1)
    broker.process.workers.append(dramatiq.Worker(broker, worker_threads=1))
    message = next(broker.consume("python", prefetch=1, timeout=1000))
    assert message is not None
    assert not message.receipt.endswith("?")
    broker.process.owed.owe(message.member, "fff:1")
    broker.emit_before("process_message", message)
    assert broker.process.owed.waiting() == []
