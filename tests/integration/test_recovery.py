"""Workers that die, workers that were only thought dead, and replies that got lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.errors import ConnectionClosed

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    Job,
    RedisHashMemory,
    SidekiqBroker,
    WithDelay,
    Workflow,
    WorkflowMiddleware,
)
from dramatiq_sidekiq_flow.broker import SidekiqMessage
from dramatiq_sidekiq_flow.store import queues, sets, workers
from dramatiq_sidekiq_flow.store.connection import Connection

from ..running import eventually, in_flight, members, working


@pytest.fixture
def step(broker: SidekiqBroker) -> Any:
    @dramatiq.actor(queue_name="python")
    def step(name: str) -> None: ...

    return step


@pytest.fixture
def other(redis_url: str) -> Iterator[SidekiqBroker]:
    """Another process's broker, which finds workers dead after half a second."""
    broker = SidekiqBroker(url=redis_url, heartbeat_timeout=500)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
    yield broker
    broker.close()


def take(broker: SidekiqBroker) -> SidekiqMessage:
    message = next(broker.consume("python", prefetch=200, timeout=1000))
    assert message is not None
    return message


def finish(broker: SidekiqBroker, message: SidekiqMessage) -> None:
    broker.consume(message.queue_name, prefetch=200).ack(message)


def let_die(client: redis.Redis) -> None:
    """Make every worker's last beat an old one."""
    for member in client.zrange("swf:workers", 0, -1):
        client.zadd("swf:workers", {member: time.time() - 3600})


def test_a_dead_workers_jobs_go_back(
    broker: SidekiqBroker, client: redis.Redis, step: Any, other: SidekiqBroker
) -> None:
    for n in range(5):
        step.send(str(n))
    take(broker)
    assert len(in_flight(client)) == 5
    let_die(client)
    other.heartbeat.beat()
    assert in_flight(client) == []
    assert {job["args"][0] for job in members(client, "python")} == set("01234")
    assert client.zcard("swf:workers") == 0


def test_a_live_worker_is_left_alone(
    broker: SidekiqBroker, client: redis.Redis, step: Any, other: SidekiqBroker
) -> None:
    step.send("a")
    message = take(broker)
    other.heartbeat.beat()
    other.heartbeat.recover(message.member)
    assert len(in_flight(client)) == 1


def test_a_zombie_does_not_advance(broker: SidekiqBroker, client: redis.Redis, step: Any, other: SidekiqBroker) -> None:
    """Thought dead, recovered, and then it finishes after all: the step counts once."""
    Workflow(Chain(step.message("a"), Job("Next", queue="next"))).run()
    zombie = take(broker)
    let_die(client)
    other.heartbeat.beat()
    finish(broker, zombie)
    assert client.llen("queue:next") == 0
    again = take(broker)
    assert again.payload.jid == zombie.payload.jid
    finish(broker, again)
    finish(broker, zombie)
    assert client.llen("queue:next") == 1


def test_a_worker_taken_for_dead_registers_before_it_fetches(
    broker: SidekiqBroker, client: redis.Redis, step: Any
) -> None:
    consumer = broker.consume("python", prefetch=1, timeout=200)
    client.delete("swf:workers")
    step.send("a")
    assert next(consumer) is not None
    assert client.zcard("swf:workers") == 1


def test_a_job_recovered_three_times_is_dead(
    broker: SidekiqBroker, client: redis.Redis, step: Any, other: SidekiqBroker
) -> None:
    step.send("poison")
    for death in range(3):
        assert client.llen("queue:python") == 1, death
        take(broker)
        let_die(client)
        other.heartbeat.beat()
    (dead,) = members(client, "dead")
    assert dead["error_class"] == "PoisonPill"
    assert client.llen("queue:python") == 0
    assert 0 < client.ttl(client.keys("swf:recovered:*")[0]) <= 72 * 3600


def test_unreadable_bytes_in_flight_are_recovered_too(
    broker: SidekiqBroker, client: redis.Redis, step: Any, other: SidekiqBroker
) -> None:
    broker.consume("python")
    (member,) = client.zrange("swf:workers", 0, -1)
    client.hset(f"swf:inflight:{member.decode()}", "1:1", b"{not json")
    let_die(client)
    other.heartbeat.beat()
    assert client.lrange("queue:python", 0, -1) == [b"{not json"]


def test_the_heartbeat_keeps_a_worker_alive(redis_url: str, client: redis.Redis) -> None:
    broker = SidekiqBroker(url=redis_url, heartbeat_timeout=250)
    broker.declare_queue("python")
    with working(broker):
        first = eventually(lambda: client.zrange("swf:workers", 0, -1, withscores=True))
        eventually(lambda: client.zrange("swf:workers", 0, -1, withscores=True)[0][1] > first[0][1])
    assert client.zcard("swf:workers") == 0


def test_a_hard_shutdown_puts_back_what_still_runs(broker: SidekiqBroker, client: redis.Redis) -> None:
    started: list[int] = []
    release: list[int] = []

    @dramatiq.actor(queue_name="python")
    def slow() -> None:
        started.append(1)
        eventually(lambda: release)

    slow.send()
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=50)
    worker.start()
    eventually(lambda: started)
    worker.stop(timeout=100)
    assert client.llen("queue:python") == 1
    release.append(1)


def test_what_outlives_a_shutdown_acknowledges_nothing_of_the_next_worker(
    broker: SidekiqBroker, client: redis.Redis
) -> None:
    @dramatiq.actor(queue_name="python")
    def step(n: int) -> None: ...

    step.send(1)
    consumer = broker.consume("python", prefetch=1)
    late = next(consumer)
    broker.hand_back()
    assert client.llen("queue:python") == 1
    later = broker.consume("python", prefetch=1)
    message = next(later)
    consumer.ack(late)
    broker.commit.flush()
    assert in_flight(client) == [message.payload.raw]
    later.ack(message)
    broker.commit.flush()
    assert not in_flight(client)


# -- sent twice ----------------------------------------------------------------


class Twice(Connection):
    """A connection whose first reply always gets lost: everything is sent twice."""

    def send_counted(self, commands: Any) -> tuple[list[Any], int]:
        super().send_counted(commands)
        return super().send_counted(commands)[0], 2


@pytest.fixture
def twice(redis_url: str) -> Iterator[SidekiqBroker]:
    broker = SidekiqBroker(url=redis_url, poll_interval=20)
    connection = Twice(redis.Redis.from_url(redis_url))
    broker.connection = broker.fetching = connection
    for part in (broker.commit, broker.heartbeat, broker.poller):
        part.connection = connection
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
    yield broker
    broker.close()


def test_everything_sent_twice_happens_once(twice: SidekiqBroker, client: redis.Redis) -> None:
    log: list[str] = []

    @dramatiq.actor(queue_name="python", broker=twice, min_backoff=10, max_backoff=20)
    def step(name: str) -> dict[str, str]:
        log.append(name)
        if name == "once more" and log.count(name) == 1:
            raise ValueError
        return {name: name}

    tree = Chain(
        step.message("a"),
        Group(step.message("b"), step.message("c"), Chain(step.message("d"), step.message("e"))),
        WithDelay(Group(step.message("f"), step.message("g")), 30),
        step.message("once more"),
        step.message("h"),
    )
    with working(twice):
        for n in range(10):
            Workflow(tree, broker=twice).run()
            step.send(f"alone {n}")
        eventually(lambda: log.count("h") == 10)
        twice.join("python", timeout=10_000)
    assert {name: log.count(name) for name in "abcdefgh"} == dict.fromkeys("abcdefgh", 10)
    # The first try of all failed, once.
    assert log.count("once more") == 11
    assert all(log.count(f"alone {n}") == 1 for n in range(10))
    assert not client.exists("dead", "retry", "schedule")


@pytest.mark.parametrize("action", ["retry", "dead"])
def test_a_failure_sent_twice_is_one_failure(
    broker: SidekiqBroker, client: redis.Redis, step: Any, action: str
) -> None:
    step.send("a")
    message = take(broker)
    command = sets.fail(message.member, message.receipt, action, now=1e9, at=2e9, payload=b"{}")
    assert broker.connection.call(*command) == [b"DONE"]
    client.delete(action)
    assert broker.connection.call(*command) == [b"GONE"]
    assert not client.exists(action)


def test_a_requeue_sent_twice_is_one(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    step.send("a")
    message = take(broker)
    assert queues.requeue(broker.connection, message.member, "python", [message.receipt]) == 1
    assert queues.requeue(broker.connection, message.member, "python", [message.receipt]) == 0
    assert client.llen("queue:python") == 1


def test_what_is_put_back_is_taken_next_in_the_old_order(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    for n in range(4):
        step.send(str(n))
    first = [take(broker) for _ in range(3)]
    broker.consume("python", prefetch=200).requeue(first)
    broker.consume("python", prefetch=200).close()
    order = [job["args"][0] for job in reversed(members(client, "python"))]
    assert order.index("0") < order.index("1") < order.index("2")


def test_a_fetch_sent_twice_gives_the_same_jobs(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    for n in range(4):
        step.send(str(n))
    member = broker.heartbeat.register("python")
    first = queues.fetch(broker.connection, member, "python", "base", 3)
    assert first is not None
    assert len(first) == 3
    assert queues.fetch(broker.connection, member, "python", "base", 3) == first
    assert client.llen("queue:python") == 1


def test_a_recovery_sent_twice_counts_once(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    step.send("a")
    message = take(broker)
    let_die(client)
    orphan = workers.Orphan(message.receipt, message.payload.jid, b"{}")
    recover = lambda: workers.recover(broker.connection, message.member, [orphan], timeout=60, now=1.0)  # noqa: E731
    assert recover() == (1, 0)
    assert recover() == (0, 0)
    assert client.llen("queue:python") == 1
    assert client.get(f"swf:recovered:{message.payload.jid}") == b"1"


# -- a server that is away ------------------------------------------------------


class Flaky(Connection):
    """A connection that can be cut."""

    cut = False

    def _send(self, commands: Any) -> list[Any]:
        if self.cut:
            raise redis.ConnectionError("cut")
        return super()._send(commands)


@pytest.fixture
def flaky(redis_url: str) -> Iterator[SidekiqBroker]:
    broker = SidekiqBroker(url=redis_url)
    connection = Flaky(redis.Redis.from_url(redis_url))
    broker.connection = connection
    for part in (broker.commit, broker.heartbeat, broker.poller):
        part.connection = connection
    broker.add_middleware(WorkflowMiddleware())
    yield broker
    connection.cut = False
    broker.close()


def test_acknowledgements_wait_until_the_server_is_back(flaky: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(queue_name="python", broker=flaky)
    def step(name: str) -> None: ...

    for n in range(3):
        step.send(str(n))
    messages = [take(flaky) for _ in range(3)]
    consumer = flaky.consume("python", prefetch=200)
    assert isinstance(flaky.connection, Flaky)
    flaky.connection.cut = True
    for message in messages:
        consumer.ack(message)
    assert len(in_flight(client)) == 3
    flaky.connection.cut = False
    for task in flaky.heartbeat.tasks:
        task()
    assert not in_flight(client)


def test_an_advance_that_found_no_server_is_tried_again(flaky: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(queue_name="python", broker=flaky)
    def step(name: str) -> None: ...

    Workflow(Chain(step.message("a"), Job("Next", queue="next")), broker=flaky).run()
    message = take(flaky)
    consumer = flaky.consume("python", prefetch=200)
    assert isinstance(flaky.connection, Flaky)
    flaky.connection.cut = True
    acknowledging = threading.Thread(target=consumer.ack, args=(message,))
    acknowledging.start()
    eventually(lambda: flaky.availability.lasts)
    assert acknowledging.is_alive()
    flaky.connection.cut = False
    acknowledging.join(10)
    assert not acknowledging.is_alive()
    assert client.llen("queue:next") == 1


# -- out of memory -------------------------------------------------------------


def test_a_bad_job_that_found_no_server_is_buried_later(flaky: SidekiqBroker, client: redis.Redis) -> None:
    flaky.declare_queue("python")
    client.lpush("queue:python", b"no JSON", b"none either")
    consumer = flaky.consume("python", prefetch=200)
    connection: Any = flaky.connection
    wanted = consumer._write_failure

    def cut_first(*arguments: Any) -> None:
        connection.cut = len(client.zrange("dead", 0, -1)) == 1
        wanted(*arguments)

    consumer._write_failure = cut_first  # type: ignore[method-assign]
    assert next(consumer) is None
    assert len(in_flight(client)) == 1
    connection.cut = False
    consumer = flaky.consume("python", prefetch=200, timeout=100)
    assert next(consumer) is None
    assert len(members(client, "dead")) == 2
    assert not in_flight(client)


def test_out_of_memory_loses_nothing(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    """A full Redis refuses new work, and still lets a step be advanced."""
    Workflow(Chain(step.message("a"), step.message("b"))).run()
    message = take(broker)
    client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(ConnectionClosed, match="OOM"):
            step.send("refused")
        finish(broker, message)
        assert [job["args"] for job in members(client, "python")] == [["b"]]
    finally:
        client.config_set("maxmemory", "0")
    assert take(broker).payload.args == ["b"]
