"""Workers that die, workers that were only thought dead, and replies that got lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

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
from dramatiq_sidekiq_flow.broker.begin import begin
from dramatiq_sidekiq_flow.errors import WrongType
from dramatiq_sidekiq_flow.process import recovery
from dramatiq_sidekiq_flow.store import processes, queue_stats, queues, sets, workers
from dramatiq_sidekiq_flow.store.connection import Connection

from ..redirection import redirect
from ..redis_values import as_text, raws, texts
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
    for member in raws(client.zrange("swf:workers", 0, -1)):
        client.zadd("swf:workers", {member: time.time() - 3600})


def test_a_dead_workers_jobs_go_back(
    broker: SidekiqBroker, client: redis.Redis, step: Any, other: SidekiqBroker
) -> None:
    for n in range(5):
        step.send(str(n))
    take(broker)
    assert len(in_flight(client)) == 5
    let_die(client)
    other.process.heartbeat.beat()
    assert in_flight(client) == []
    assert {job["args"][0] for job in members(client, "python")} == set("01234")
    assert client.zcard("swf:workers") == 0


def test_a_live_worker_is_left_alone(
    broker: SidekiqBroker, client: redis.Redis, step: Any, other: SidekiqBroker
) -> None:
    step.send("a")
    message = take(broker)
    other.process.heartbeat.beat()
    other.process.heartbeat.recover(message.member)
    assert len(in_flight(client)) == 1


def test_a_zombie_does_not_advance(broker: SidekiqBroker, client: redis.Redis, step: Any, other: SidekiqBroker) -> None:
    """Thought dead, recovered, and then it finishes after all: the step counts once."""
    Workflow(Chain(step.message("a"), Job("Next", queue="next"))).run()
    zombie = take(broker)
    let_die(client)
    other.process.heartbeat.beat()
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
    redis_url: str, client: redis.Redis, step: Any, other: SidekiqBroker
) -> None:
    step.send("poison")
    for death in range(3):
        assert not client.exists("dead")
        # Seen twice, it is a suspect: not in the queue, until a process tries it.
        assert client.llen("queue:python") == (death < 2)
        worker = SidekiqBroker(url=redis_url)
        worker.declare_queue("python")
        consumer = worker.consume("python", prefetch=200, timeout=1000)
        if death == 2:
            worker.process.heartbeat.beat()
        message = next(consumer)
        assert message is not None
        begin(worker.process.in_flight, worker.connection, message)
        let_die(client)
        other.process.heartbeat.beat()
        worker.close()
    (dead,) = members(client, "dead")
    assert dead["error_class"] == "PoisonPill"
    assert client.llen("queue:python") == 0
    assert 0 < client.ttl(client.keys("swf:recovered:*")[0]) <= 72 * 3600


def dying(client: redis.Redis, name: str = "gone:1:abc:python", /, **jobs: Any) -> str:
    """A dead worker with these jobs in flight: receipt -> args[0]."""
    client.zadd("swf:workers", {name: time.time() - 3600})
    for receipt, n in jobs.items():
        client.hset(f"swf:inflight:{name}", receipt, payload(n))
    return name


def payload(n: Any) -> str:
    return f'{{"class":"step","args":["{n}"],"jid":"{n:024x}","queue":"python","retry":true}}'


def test_what_had_not_begun_is_not_counted(broker: SidekiqBroker, client: redis.Redis, other: SidekiqBroker) -> None:
    name = dying(client, **{"a:1": 1, "a:2?": 2, "a:3~": 3, "a:4?": 4})
    for n, count in ((1, 2), (2, 1), (4, 2)):
        client.set(f"swf:recovered:{n:024x}", count)
    other.process.heartbeat.beat()
    assert [job["args"][0] for job in members(client, "dead")] == ["1"]
    # Taken from the right, in the old order.
    assert [job["args"][0] for job in members(client, "python")] == ["3", "2"]
    # Its trial did not begin: it is tried again.
    assert client.hkeys(f"swf:inflight:{name}") == [b"a:4!"]
    counts = [client.get(f"swf:recovered:{n:024x}") for n in (1, 2, 3, 4)]
    assert counts == [b"3", b"1", b"0", b"2"]


@pytest.mark.parametrize("receipt", ["a:1", "a:1~"])
def test_a_suspect_waits_for_its_trial(
    broker: SidekiqBroker, client: redis.Redis, other: SidekiqBroker, receipt: str
) -> None:
    name = dying(client, **{receipt: 1, "a:2?": 2})
    client.set(f"swf:recovered:{1:024x}", 1)
    other.process.heartbeat.beat()
    other.process.heartbeat.beat()
    assert client.hkeys(f"swf:inflight:{name}") == [b"a:1!"]
    assert client.zscore("swf:workers", name)
    assert client.get(f"swf:recovered:{1:024x}") == (b"2" if receipt == "a:1" else b"1")
    assert [job["args"][0] for job in members(client, "python")] == ["2"]


@pytest.mark.parametrize("beats", ["one", "many"])
def test_suspects_are_tried_one_at_a_time(redis_url: str, client: redis.Redis, beats: str) -> None:
    broker = SidekiqBroker(url=redis_url, heartbeat_timeout=600_000)
    running: list[str] = []
    most: list[int] = []

    @dramatiq.actor(queue_name="python", broker=broker)
    def step(name: str) -> None:
        running.append(name)
        most.append(len(running))
        eventually(lambda: len(most) > 0)
        time.sleep(0.01)
        running.remove(name)

    dying(client, **{f"a:{n}!": n for n in range(10)})
    dying(client, "gone:2:abc:python", **{f"a:{n}!": n for n in range(10, 15)})
    with working(broker):
        eventually(lambda: broker.process.in_flight)
        # One beat only: each trial that ends begins the next one.
        broker.process.heartbeat.beat()
        while beats == "many" and len(most) < 15:
            broker.process.heartbeat.beat()
        eventually(lambda: len(most) == 15 and not in_flight(client))
        assert set(most) == {1}
        assert client.zrange("swf:workers", 0, -1) == [next(iter(broker.process.heartbeat.members)).encode()]
    assert not client.exists("dead", "queue:python")
    broker.close()


def test_a_trial_that_takes_long_lets_the_next_one_begin(
    broker: SidekiqBroker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = dying(client, **{"a:1!": 1, "a:2!": 2})
    member = broker.process.heartbeat.register("python")

    def take(base: str) -> Any:
        return workers.try_suspect(broker.connection, name, member, base, timeout=60)

    assert take("b") == payload(1).encode()
    # The reply was lost.
    assert take("b") == payload(1).encode()
    assert take("c") == "wait"
    began, rest = as_text(client.get("swf:trial:python")).split(" ", 1)
    client.set("swf:trial:python", f"{float(began) - 60} {rest}")
    assert take("c") == payload(2).encode()
    assert not client.zscore("swf:workers", name)


def test_no_trial_of_a_paused_queue_or_of_a_live_worker(broker: SidekiqBroker, client: redis.Redis) -> None:
    name = dying(client, **{"a:1!": 1})
    member = broker.process.heartbeat.register("python")

    def take() -> Any:
        return workers.try_suspect(broker.connection, name, member, "b", timeout=60)

    broker.pause_queue("python")
    assert take() == "wait"
    broker.unpause_queue("python")
    client.zadd("swf:workers", {name: time.time()})
    assert take() is None
    client.zadd("swf:workers", {name: 1.0})
    client.zrem("swf:workers", member)
    assert take() is None
    broker.process.heartbeat.beat()
    assert take() == payload(1).encode()


def test_a_job_begins_when_its_actor_does(broker: SidekiqBroker, client: redis.Redis) -> None:
    gate: list[int] = []

    @dramatiq.actor(queue_name="python")
    def slow(n: int) -> None:
        eventually(lambda: gate)

    for n in range(6):
        slow.send(n)
    with working(broker, threads=2):
        try:
            eventually(lambda: len(receipts(client)) == 4)
            # Two threads were idle; what they do next is fetched.
            assert sorted(receipt[-1:] == b"?" for receipt in receipts(client)) == [False, False, True, True]
            eventually(lambda: len(broker.process.execution_stats.running()) == 2)
        finally:
            gate.append(1)
        eventually(lambda: not in_flight(client) and not client.exists("queue:python"))


def receipts(client: redis.Redis) -> list[bytes]:
    return raws(receipt for key in client.keys("swf:inflight:*") for receipt in client.hkeys(key))


def test_the_mark_of_a_job_that_begins(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    step.send("a")
    message = take(broker)
    assert message.receipt.endswith("?")
    before = message.receipt
    begin(broker.process.in_flight, broker.connection, message)
    assert receipts(client) == [message.receipt.encode()] == [before[:-1].encode()]
    assert list(broker.process.in_flight["python"].handed_out) == [message.receipt]
    # Sent twice, it is the same.
    assert workers.begin(broker.connection, message.member, before)
    finish(broker, message)
    broker.process.commit.flush()
    assert not in_flight(client)
    assert not workers.begin(broker.connection, message.member, before)


def test_a_job_that_another_worker_recovered_before_it_began_is_not_run(
    broker: SidekiqBroker, client: redis.Redis, other: SidekiqBroker
) -> None:
    ran: list[str] = []
    gate: list[int] = []

    @dramatiq.actor(queue_name="python")
    def step(name: str) -> None:
        ran.append(name)
        eventually(lambda: gate)

    Workflow(Chain(step.message("first"), Job("Next", queue="next"))).run()
    Workflow(Chain(step.message("ahead"), Job("Next", queue="next"))).run()
    with working(broker, threads=1) as worker:
        eventually(lambda: ran and worker.work_queue.qsize())
        let_die(client)
        other.process.heartbeat.beat()
        client.rename("queue:python", "queue:elsewhere")
        gate.append(1)
        eventually(lambda: not worker.work_queue.unfinished_tasks)
        assert ran == ["first"]
    assert client.llen("queue:next") == 0
    assert not client.exists("dead")
    assert client.get("stat:processed") == b"1"


def test_the_mark_of_a_beginning_may_be_lost(flaky: SidekiqBroker, client: redis.Redis) -> None:
    """The server was away when the job began; whether it has heard of it shows when the job leaves."""

    @dramatiq.actor(queue_name="python", broker=flaky)
    def step(name: str) -> None: ...

    assert isinstance(flaky.connection, Flaky)
    for heard in (False, True):
        Workflow(Chain(step.message("a"), Job("Next", queue="next")), broker=flaky).run()
        message = take(flaky)
        if heard:
            workers.begin(flaky.connection, message.member, message.receipt)
        flaky.connection.cut = True
        begin(flaky.process.in_flight, flaky.connection, message)
        flaky.connection.cut = False
        finish(flaky, message)
        assert not in_flight(client)
        assert not flaky.process.in_flight["python"].held
    assert client.llen("queue:next") == 2


def test_a_shutdown_hands_back_at_its_start_what_has_not_begun(broker: SidekiqBroker, client: redis.Redis) -> None:
    gate: list[int] = []

    @dramatiq.actor(queue_name="python")
    def slow(n: int) -> None:
        eventually(lambda: gate)

    for n in range(8):
        slow.send(n)
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=50)
    worker.start()
    eventually(lambda: len(broker.process.execution_stats.running()) == 2 and worker.work_queue.qsize() == 2)
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    try:
        # Two still run.
        eventually(lambda: len(in_flight(client)) == 2 and client.llen("queue:python") == 6)
    finally:
        gate.append(1)
        stopping.join()
    assert [job["args"][0] for job in reversed(members(client, "python"))] == [2, 3, 4, 5, 6, 7]


BROKEN = {
    "not UTF-8": b"\xff\xfe:1:abc:python",
    "no colons": b"nothing",
    "in flight of another type": b"gone:1:typed:python",
    "a queue of another type": b"gone:1:abc:odd",
}


@pytest.mark.parametrize("again", [0.0, recovery.AGAIN])
def test_one_bad_record_does_not_stop_the_other_recoveries(
    other: SidekiqBroker,
    client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    again: float,
) -> None:
    monkeypatch.setattr(recovery, "AGAIN", again)
    client.set("swf:inflight:gone:1:typed:python", "text")
    client.set("queue:odd", "text")
    old = time.time() - 7200
    for member in BROKEN.values():
        client.zadd("swf:workers", {member: old})
    # More of them than one beat names.
    for n in range(40):
        client.zadd("swf:workers", {f"nothing {n}": old})
    client.hset("swf:inflight:gone:1:abc:odd", "a:1?", payload(1))
    name = dying(client, **{"a:1?": 2})
    client.hset(f"swf:inflight:{name}", b"\xff:1", payload(3))
    client.hset(f"swf:inflight:{name}", b"", payload(4))
    client.hset(f"swf:inflight:{name}", "a:2", '{"class":"step","args":[],"jid":"\\ud800"}')
    client.hset(f"swf:inflight:{name}", "a:3", '{"class":"step","args":[],"jid":"1","retry_count":1' + "0" * 400 + "}")
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            other.process.heartbeat.beat()
    assert client.llen("queue:python") == 5
    assert not client.zscore("swf:workers", name)
    assert client.zcard("swf:workers") == 44
    assert client.hkeys("swf:inflight:gone:1:abc:odd") == [b"a:1?"]
    # Ten lines, one for the others, and one for the worker that was recovered.
    assert len(caplog.records) == 12
    assert "34 more lines were left out" in caplog.records[-1].getMessage()
    # Nothing else stumbles over them.
    client.sadd("processes", b"\xff")
    client.sadd("queues", b"\xff", "python")
    found = queue_stats.depths(other.connection)
    assert (found.waiting["python"], found.in_flight["odd"]) == (5, 1)
    client.set("schedule", "text")
    assert queues.unfinished(other.connection, "odd") == (1, [])
    assert processes.infos(other.connection) == {}


def test_dead_of_another_type_keeps_poison_pills_in_flight_and_nothing_else(
    other: SidekiqBroker, client: redis.Redis
) -> None:
    client.set("dead", "text")
    name = dying(client, **{"a:1": 1, "a:2": 2})
    client.set(f"swf:recovered:{1:024x}", 2)
    other.process.heartbeat.beat()
    assert client.hkeys(f"swf:inflight:{name}") == [b"a:1"]
    assert client.llen("queue:python") == 1
    client.delete("dead")
    other.process.heartbeat.beat()
    assert client.zcard("dead") == 1


def test_a_clock_of_redis_that_was_set_back_does_not_stop_recovery(
    redis_url: str, client: redis.Redis, other: SidekiqBroker
) -> None:
    name = dying(client, **{"a:1?": 1})
    client.zadd("swf:workers", {name: time.time() + 86_400})
    other.process.heartbeat.beat()
    assert client.zscore("swf:workers", name) == pytest.approx(time.time(), abs=60)

    def back() -> Any:
        other.process.heartbeat.beat()
        return client.llen("queue:python")

    eventually(back)


# -- in flight, and nobody knows it --------------------------------------------


def test_what_no_thread_has_goes_back(
    broker: SidekiqBroker, client: redis.Redis, step: Any, caplog: pytest.LogCaptureFixture
) -> None:
    step.send("held")
    message = take(broker)
    (member,) = broker.process.heartbeat.members
    client.hset(f"swf:inflight:{member}", "77:2", payload(2))
    client.hset(f"swf:inflight:{member}", "77:1?", payload(1))
    client.hset(f"swf:inflight:{member}", "1:1!", payload(3))
    broker.process.heartbeat.beat()
    assert len(in_flight(client)) == 4
    broker.process.heartbeat.beat()
    assert receipts(client) == [message.receipt.encode()]
    assert [job["args"][0] for job in reversed(members(client, "python"))] == ["3", "1", "2"]
    assert "no thread of this process had them" in caplog.text
    finish(broker, message)


def test_what_waits_to_be_acknowledged_is_known(flaky: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(queue_name="python", broker=flaky)
    def step(name: str) -> None: ...

    step.send("a")
    message = take(flaky)
    consumer = flaky.consume("python", prefetch=200)
    assert isinstance(flaky.connection, Flaky)
    flaky.connection.cut = True
    consumer.ack(message)
    flaky.connection.cut = False
    assert flaky.process.commit.waiting() == [(message.member, message.receipt)]
    client.hset(f"swf:inflight:{message.member}", "77:1", payload(1))
    for _ in range(3):
        flaky.process.heartbeat.beat()
    assert receipts(client) == [message.receipt.encode()]


def test_a_fetch_whose_reply_was_lost_twice(flaky: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(queue_name="python", broker=flaky)
    def step(name: str) -> None: ...

    for n in range(3):
        step.send(str(n))
    consumer = flaky.consume("python", prefetch=3, timeout=200)
    assert isinstance(flaky.connection, Flaky)
    flaky.connection.deaf = True
    assert next(consumer) is None
    flaky.connection.deaf = False
    assert len(in_flight(client)) == 3
    # It is about to be fetched again under the same base.
    for _ in range(3):
        flaky.process.heartbeat.beat()
    assert len(in_flight(client)) == 3
    taken: list[Any] = [next(consumer) for _ in range(3)]
    assert [message.args for message in taken] == [("0",), ("1",), ("2",)]
    assert len(in_flight(client)) == 3


def test_a_fetch_that_was_delivered_late(flaky: SidekiqBroker, client: redis.Redis) -> None:
    """It was given up before the server read it, which it does after all."""

    @dramatiq.actor(queue_name="python", broker=flaky)
    def step(name: str) -> None: ...

    step.send("a")
    message = take(flaky)
    step.send("b")
    finish(flaky, message)
    flaky.process.commit.flush()
    late = queues.fetch(flaky.connection, message.member, "python", "fffffff", 16)
    assert isinstance(late, list)
    assert len(late) == 1
    for _ in range(2):
        flaky.process.heartbeat.beat()
    assert client.llen("queue:python") == 1
    finish(flaky, take(flaky))


def test_a_shutdown_leaves_suspects_and_hands_back_all_else(
    broker: SidekiqBroker, client: redis.Redis, step: Any
) -> None:
    """A worker that was taken for dead, and lives."""
    broker.consume("python", prefetch=1)
    (member,) = broker.process.heartbeat.members
    jobs: dict[Any, Any] = {"a:1!": payload(1), b"\xff": payload(2), "a:2": payload(3), "9:3~": payload(4)}
    client.hset(f"swf:inflight:{member}", mapping=jobs)
    broker.process.hand_back()
    assert receipts(client) == [b"a:1!"]
    assert [job["args"][0] for job in reversed(members(client, "python"))] == ["2", "4", "3"]
    # Another process finds it, and tries the suspect.
    assert client.zscore("swf:workers", member)


def test_unreadable_bytes_in_flight_are_recovered_too(
    broker: SidekiqBroker, client: redis.Redis, step: Any, other: SidekiqBroker
) -> None:
    broker.consume("python")
    (member,) = texts(client.zrange("swf:workers", 0, -1))
    client.hset(f"swf:inflight:{member}", "1:1", b"{not json")
    let_die(client)
    other.process.heartbeat.beat()
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
    broker.process.hand_back()
    assert client.llen("queue:python") == 1
    later = broker.consume("python", prefetch=1)
    message: Any = next(later)
    consumer.ack(late)
    broker.process.commit.flush()
    assert in_flight(client) == [message.payload.raw]
    later.ack(message)
    broker.process.commit.flush()
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
    redirect(broker, connection)
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
    broker: SidekiqBroker, client: redis.Redis, step: Any, action: Literal["retry", "dead"]
) -> None:
    step.send("a")
    message = take(broker)
    fail = sets.fail(message.member, message.receipt, action, now=1e9, at=2e9, payload=b"{}")
    assert broker.connection.call(*fail.command) == [b"DONE"]
    client.delete(action)
    assert broker.connection.call(*fail.command) == [b"GONE"]
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
    member = broker.process.heartbeat.register("python")
    first = queues.fetch(broker.connection, member, "python", "base", 3)
    assert first is not None
    assert len(first) == 3
    assert queues.fetch(broker.connection, member, "python", "base", 3) == first
    assert client.llen("queue:python") == 1


@pytest.mark.parametrize("free", [0, 2, 5])
@pytest.mark.parametrize("burst", [False, True])
def test_a_fetch_names_what_has_begun(
    broker: SidekiqBroker, client: redis.Redis, step: Any, free: int, burst: bool
) -> None:
    for n in range(5):
        step.send(str(n))
    member = broker.process.heartbeat.register("python")
    jobs = queues.fetch(broker.connection, member, "python", "b", 5, free=free, burst=burst)
    assert isinstance(jobs, list)
    state = "~" if burst else "?"
    assert [receipt for receipt, _ in jobs] == [f"b:{n}" if n <= free else f"b:{n}{state}" for n in range(1, 6)]
    assert dict(jobs) == queues.in_flight(broker.connection, member)
    # The reply was lost, and meanwhile fewer threads are idle: the names are those of the first time.
    assert queues.fetch(broker.connection, member, "python", "b", 5, free=1, burst=not burst) == jobs


def test_a_fetch_stops_after_a_mebibyte(broker: SidekiqBroker, client: redis.Redis) -> None:
    client.lpush("queue:python", *(bytes([65 + n]) * 600_000 for n in range(5)))
    member = broker.process.heartbeat.register("python")
    jobs = queues.fetch(broker.connection, member, "python", "b", 5)
    assert isinstance(jobs, list)
    # The first one is always taken.
    assert [payload[:1] for _, payload in jobs] == [b"A", b"B", b"C"]
    assert queues.fetch(broker.connection, member, "python", "b", 5) == jobs


@pytest.mark.parametrize("key", ["queue:python", "swf:inflight:{}"])
def test_a_fetch_that_meets_another_type_moves_nothing(
    broker: SidekiqBroker, client: redis.Redis, step: Any, key: str
) -> None:
    member = broker.process.heartbeat.register("python")
    client.set(key.format(member), "text")
    if key != "queue:python":
        step.send("a")
    with pytest.raises(WrongType, match="another type"):
        queues.fetch(broker.connection, member, "python", "b", 5)
    assert key == "queue:python" or client.llen("queue:python") == 1


def test_a_recovery_sent_twice_counts_once(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    step.send("a")
    message = take(broker)
    begin(broker.process.in_flight, broker.connection, message)
    let_die(client)
    orphan = workers.InFlightJob(message.receipt.encode(), message.payload.jid, b"{}")

    def recover() -> Any:
        return workers.recover(broker.connection, message.member, [orphan], timeout=60, now=1.0)

    assert recover() == workers.RecoveryResult(back=1)
    assert recover() == workers.RecoveryResult()
    assert client.llen("queue:python") == 1
    assert client.get(f"swf:recovered:{message.payload.jid}") == b"1"


# -- a server that is away ------------------------------------------------------


class Flaky(Connection):
    """A connection that can be cut."""

    cut = False
    deaf = False

    def _send(self, commands: Any) -> list[Any]:
        if self.cut:
            raise redis.ConnectionError("cut")
        replies = super()._send(commands)
        if self.deaf:
            raise redis.ConnectionError("the reply is lost")
        return replies


@pytest.fixture
def flaky(redis_url: str) -> Iterator[SidekiqBroker]:
    broker = SidekiqBroker(url=redis_url)
    connection = Flaky(redis.Redis.from_url(redis_url))
    redirect(broker, connection)
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
    for task in flaky.process.heartbeat.tasks:
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
    eventually(lambda: flaky.process.availability.lasts)
    assert acknowledging.is_alive()
    flaky.connection.cut = False
    acknowledging.join(10)
    assert not acknowledging.is_alive()
    assert client.llen("queue:next") == 1


# -- out of memory -------------------------------------------------------------


def test_a_bad_job_that_found_no_server_is_buried_later(flaky: SidekiqBroker, client: redis.Redis) -> None:
    flaky.declare_queue("python")
    client.lpush("queue:python", b"no JSON", b"none either")
    consumer: Any = flaky.consume("python", prefetch=200)
    connection: Any = flaky.connection
    wanted = consumer.failures.write

    def cut_first(*arguments: Any) -> None:
        connection.cut = len(client.zrange("dead", 0, -1)) == 1
        wanted(*arguments)

    consumer.failures.write = cut_first
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


def test_a_fetch_that_comes_late_overwrites_no_job_in_flight(client: redis.Redis, broker: SidekiqBroker) -> None:
    connection, member = broker.connection, "host:1:nonce:python"
    client.lpush("queue:python", *"abcd")
    workers.beat(connection, {member: None}, 60)
    assert queues.fetch(connection, member, "python", "1", 2, free=2) == [("1:1", b"a"), ("1:2", b"b")]
    client.hdel(f"swf:inflight:{member}", "1:1")
    assert queues.fetch(connection, member, "python", "1", 2, free=2) == []
    assert in_flight(client) == [b"b"]
    assert client.lrange("queue:python", 0, -1) == [b"d", b"c"]


def test_a_fetch_of_the_last_job_is_sent_twice(client: redis.Redis, broker: SidekiqBroker) -> None:
    """It finds the queue empty the second time."""
    connection, member = broker.connection, "host:1:nonce:python"
    workers.beat(connection, {member: None}, 60)
    client.lpush("queue:python", "a")
    assert queues.fetch(connection, member, "python", "1", 2, free=1) == [("1:1", b"a")]
    assert queues.fetch(connection, member, "python", "1", 2, free=1) == [("1:1", b"a")]
    assert queues.fetch(connection, member, "python", "2", 2, free=1) == []
    client.zrem("swf:workers", member)
    assert queues.fetch(connection, member, "python", "2", 2, free=1) is None


def test_a_fetch_that_comes_late_takes_nothing(client: redis.Redis, broker: SidekiqBroker) -> None:
    """The names of its jobs are used up: an acknowledgement that is repeated then would take out another job."""
    connection, member = broker.connection, "host:1:nonce:python"
    client.lpush("queue:python", *(f"job {n}" for n in range(100)))
    workers.beat(connection, {member: None}, 60)
    done = []
    for base in range(1, 81):
        name = format(base, "x")
        fetched: Any = queues.fetch(connection, member, "python", name, 1, free=1)
        ((receipt, payload),) = fetched
        assert payload == f"job {base - 1}".encode()
        done.append((name, queues.done(member, [receipt])))
        connection.send([done[-1][1]])
    for name, command in done:
        assert queues.fetch(connection, member, "python", name, 1, free=1) == [], name
        connection.send([command])
    assert client.llen("queue:python") == 20
    assert client.zcard(f"swf:fetched:{member}") < 64 + 16
    assert in_flight(client) == []
    # The next one, and one of another thread that is a little behind it.
    assert queues.fetch(connection, member, "python", "52", 1, free=1) == [("52:1", b"job 80")]
    assert queues.fetch(connection, member, "python", "51", 1, free=1) == [("51:1", b"job 81")]
    assert 0 < client.ttl(f"swf:fetched:{member}") <= 3600
