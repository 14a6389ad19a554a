"""Steps of a group that are acknowledged together: ``advance_group.lua``, and who settles the last one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Group, SidekiqBroker, Workflow
from dramatiq_sidekiq_flow.broker import ack_batch
from dramatiq_sidekiq_flow.broker.in_flight import InFlight
from dramatiq_sidekiq_flow.errors import BarrierExpired, WrongType
from dramatiq_sidekiq_flow.store import group_steps, runs
from dramatiq_sidekiq_flow.store.connection import Connection
from dramatiq_sidekiq_flow.store.group_steps import GroupStep, StepGroup
from dramatiq_sidekiq_flow.store.outcomes import NeedsPlan
from dramatiq_sidekiq_flow.store.runs import NO_MEMORY, MemoryKey, Walk
from dramatiq_sidekiq_flow.store.step_records import StepRecord

from .. import operations
from ..operations import DAY, INNER, ME, MINE, OUTER, TTL
from ..running import eventually, in_flight, members, working

GROUP = StepGroup((Walk(INNER, "n"), Walk(OUTER, "f")), TTL, NO_MEMORY)


def ended(client: redis.Redis, *units: str, receipts: str = "a") -> list[GroupStep]:
    """Steps that are in flight, and done."""
    steps = [GroupStep(GROUP, f"{receipts}:{number}", unit, {}) for number, unit in enumerate(units, 1)]
    for step in steps:
        client.hset(MINE, step.receipt, "job")
    return steps


def advanced(connection: Connection, steps: Sequence[GroupStep]) -> list[int]:
    return group_steps.advance(ME, steps).run(connection)


# -- the script ------------------------------------------------------------------


def test_many_are_counted_at_once(connection: Connection, client: redis.Redis) -> None:
    operations.barriers(client, INNER, OUTER, value=5)
    assert advanced(connection, ended(client, "a", "b", "c")) == []
    assert (client.get(INNER), client.get(OUTER)) == (b"2", b"5")
    assert client.smembers(f"{INNER}:u") == {b"a", b"b", b"c"}
    assert not client.exists(MINE)


@pytest.mark.parametrize("value", [3, 2, 1, 0, -1])
def test_the_step_that_releases_is_left(connection: Connection, client: redis.Redis, value: int) -> None:
    operations.barriers(client, INNER, value=value)
    operations.barriers(client, OUTER)
    steps = ended(client, "a", "b", "c")
    counted = max(0, value - 1)
    assert advanced(connection, steps) == list(range(counted, 3))
    assert client.get(INNER) == str(min(value, 1)).encode()
    assert sorted(client.hkeys(MINE)) == [step.receipt.encode() for step in steps[counted:]]
    # By itself it releases, and so does the one above.
    first = steps[counted]
    assert runs.advance(ME, first.receipt, first.unit, GROUP.walk, ttl=TTL).run(connection) == NeedsPlan(2)


def test_a_step_that_comes_twice_counts_once(connection: Connection, client: redis.Redis) -> None:
    operations.barriers(client, INNER, OUTER, value=9)
    assert advanced(connection, ended(client, "a", "b", "a")) == []
    assert advanced(connection, ended(client, "b", "c", receipts="b")) == []
    assert (client.get(INNER), client.scard(f"{INNER}:u")) == (b"6", 3)
    assert not client.exists(MINE)


def test_a_step_that_is_gone_is_not_recorded(connection: Connection, client: redis.Redis) -> None:
    """Nor one that is left."""
    operations.barriers(client, INNER, OUTER, value=3)
    record = "swf:flow:run"
    client.hset(record, "state", "running")
    texts = ("1 1.5 2.5 0 me", "2 1.5 2.5 0 me", "1234", "4 1.5 2.5 0 me")
    steps = ended(client, "a", "b", "c", "d")
    steps = [step._replace(record=StepRecord(record, text)) for step, text in zip(steps, texts)]
    client.hdel(MINE, steps[0].receipt)
    assert advanced(connection, steps) == [3]
    assert client.hgetall(f"{record}:times") == {b"2": b"1.5 2.5 0 me"}
    assert (client.getbit(f"{record}:done", 1234), client.bitcount(f"{record}:done")) == (1, 1)


def test_a_step_that_is_recovered_elsewhere_does_not_count(connection: Connection, client: redis.Redis) -> None:
    operations.barriers(client, INNER, OUTER, value=9)
    steps = ended(client, "a", "b")
    client.hdel(MINE, steps[0].receipt)
    assert advanced(connection, steps) == []
    assert client.get(INNER) == b"8"
    assert client.smembers(f"{INNER}:u") == {b"b"}


def test_after_the_release_steps_leave_flight_only(connection: Connection, client: redis.Redis) -> None:
    operations.barriers(client, INNER, OUTER)
    client.set(f"{INNER}_ran", 0)
    assert advanced(connection, ended(client, "a", "b")) == []
    assert (client.get(INNER), client.exists(MINE, f"{INNER}:u")) == (b"1", 0)


@pytest.mark.parametrize("suffix", ["", "_ran"])
def test_a_barrier_that_is_gone_writes_nothing(connection: Connection, client: redis.Redis, suffix: str) -> None:
    operations.barriers(client, INNER, OUTER, value=9)
    client.delete(INNER + suffix)
    steps = ended(client, "a", "b")
    with pytest.raises(BarrierExpired):
        advanced(connection, steps)
    assert client.hlen(MINE) == 2


@pytest.mark.parametrize("suffix", ["", "_ran"])
def test_a_barrier_that_is_not_a_number_writes_nothing(
    connection: Connection, client: redis.Redis, suffix: str
) -> None:
    operations.barriers(client, INNER, OUTER, value=9)
    client.set(INNER + suffix, "1.5")
    with pytest.raises(WrongType):
        advanced(connection, ended(client, "a", "b"))
    assert client.hlen(MINE) == 2


def test_outputs_are_written_and_live_with_the_run(connection: Connection, client: redis.Redis) -> None:
    operations.barriers(client, INNER, value=9)
    operations.barriers(client, OUTER, value=9)
    client.expire(OUTER, TTL + 100 * DAY)
    group = StepGroup(GROUP.walk, TTL, MemoryKey("swf:mem:run", DAY))
    client.hset(MINE, mapping={"a:1": "job", "a:2": "job", "a:3": "job"})
    client.sadd(f"{INNER}:u", "c")
    steps = [
        GroupStep(group, "a:1", "a", {"x": b"1", "y": b"2"}),
        GroupStep(group, "a:2", "b", {}),
        # Counted before: its output was written then.
        GroupStep(group, "a:3", "c", {"x": b"3"}),
    ]
    assert advanced(connection, steps) == []
    assert client.hgetall("swf:mem:run") == {b"x": b"1", b"y": b"2"}
    assert client.ttl("swf:mem:run") > TTL + 99 * DAY
    assert client.ttl(f"{INNER}:u") > TTL - DAY


def test_waiting_barriers_live_on(connection: Connection, client: redis.Redis) -> None:
    operations.barriers(client, INNER, OUTER, value=9)
    for name in (INNER, f"{INNER}_ran", OUTER, f"{OUTER}_ran"):
        client.expire(name, 100)
    assert advanced(connection, ended(client, "a")) == []
    assert all(client.ttl(name) > DAY for name in (INNER, f"{INNER}_ran", OUTER, f"{OUTER}_ran"))


# -- a worker ----------------------------------------------------------------------


@pytest.fixture
def under_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process counts as busy with short jobs."""
    monkeypatch.setattr(InFlight, "under_load", True)


@pytest.fixture
def flow(broker: SidekiqBroker) -> Any:
    """Members that set a value, and a step behind them that reads all of them."""
    seen: list[int] = []

    @dramatiq.actor(queue_name="python")
    def member(number: int) -> dict[str, int]:
        return {f"n{number}": number}

    @dramatiq.actor(queue_name="python")
    def behind() -> None:
        seen.append(len(seen))

    behind.seen = seen  # type: ignore[attr-defined]
    return member, behind


@pytest.mark.usefixtures("under_load")
@pytest.mark.parametrize("size", [1, 2, 33, 300])
def test_a_group_is_counted_to_its_end(broker: SidekiqBroker, client: redis.Redis, flow: Any, size: int) -> None:
    member, behind = flow
    workflow = Workflow(Chain(Group(*(member.message(number) for number in range(size))), behind.message()))
    with working(broker):
        run_id = workflow.run()
        eventually(lambda: behind.seen)
        broker.join("python", timeout=20_000)
    assert behind.seen == [0]
    assert client.hlen(f"swf:mem:{run_id}") == size
    assert not in_flight(client)
    assert not members(client, "dead")


@pytest.mark.usefixtures("under_load")
def test_the_step_behind_a_group_is_run(
    broker: SidekiqBroker, client: redis.Redis, flow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last member of a run may be settled after a step of another run: its own thread has gone on."""
    monkeypatch.setattr(ack_batch, "BATCH", 2)
    # Else the thread that fetches may settle both.
    monkeypatch.setattr(ack_batch.GroupCommit, "flush_nowait", lambda commit: None)
    member, behind = flow
    for number in range(2):
        Workflow(Chain(Group(member.message(number)), behind.message())).run()
    with working(broker, threads=1):
        eventually(lambda: len(behind.seen) == 2)
        broker.join("python", timeout=10_000)
    assert not in_flight(client)


@pytest.mark.usefixtures("under_load")
def test_members_share_their_round_trips(
    broker: SidekiqBroker, client: redis.Redis, flow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine one member takes longer than 5 ms.
    monkeypatch.setattr(ack_batch, "BATCH_TIME", 0.2)
    member, behind = flow
    workflow = Workflow(Chain(Group(*(member.message(number) for number in range(400))), behind.message()))
    workflow.run()
    client.config_resetstat()
    with working(broker):
        eventually(lambda: behind.seen)
    # One for 32 members, or for those of BATCH_TIME; and those of fetches, beats and the last member.
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] < 300


@pytest.mark.usefixtures("under_load")
@pytest.mark.parametrize("suffix", ["", "_ran"])
def test_members_whose_barrier_is_gone_are_dead_by_name(
    broker: SidekiqBroker, client: redis.Redis, flow: Any, suffix: str
) -> None:
    member, behind = flow
    Workflow(Chain(Group(*(member.message(number) for number in range(5))), behind.message())).run()
    stack = members(client, "python")[0]["workflow_completion_callbacks"]
    client.delete(stack[-1][0] + suffix)
    with working(broker):
        eventually(lambda: len(members(client, "dead")) == 5)
    assert {job["error_class"] for job in members(client, "dead")} == {"BarrierExpired"}
    assert not in_flight(client)
    assert not behind.seen


@pytest.mark.usefixtures("under_load")
def test_a_shutdown_sends_what_was_handed_over(broker: SidekiqBroker, client: redis.Redis, flow: Any) -> None:
    """With the last member, which pushes the step behind the group."""
    member, behind = flow
    Workflow(Chain(Group(*(member.message(number) for number in range(3))), behind.message())).run()
    consumer = broker.consume("python", prefetch=3)
    broker.process.commit._flush_now = False
    for _ in range(3):
        message: Any = next(consumer)
        message.output = {"n": 1}
        consumer.ack(message)
    assert len(broker.process.commit.waiting()) == 3
    assert client.hlen(f"swf:inflight:{consumer.in_flight.member}") == 3
    broker.process.hand_back()
    assert [job["class"] for job in members(client, "python")] == ["behind"]
    assert not in_flight(client)
    assert not broker.process.commit.waiting()


@pytest.mark.usefixtures("under_load")
def test_a_member_that_is_left_waits_for_redis(
    broker: SidekiqBroker, client: redis.Redis, flow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is away when the last member is to be advanced by itself: the next flush does it."""
    member, behind = flow
    Workflow(Chain(Group(member.message(1)), behind.message())).run()
    consumer = broker.consume("python", prefetch=1)
    consumer.ack(next(consumer))
    commit = broker.process.commit
    away = dramatiq.errors.ConnectionClosed(ConnectionResetError("away"))

    def run(operation: Any) -> Any:
        raise away

    with monkeypatch.context() as patch:
        patch.setattr(commit, "run", run)
        with pytest.raises(dramatiq.errors.ConnectionClosed):
            commit.flush()
    assert len(commit.waiting()) == 1
    assert not members(client, "python")
    commit.flush()
    assert not commit.waiting()
    assert [job["class"] for job in members(client, "python")] == ["behind"]


@pytest.mark.usefixtures("under_load")
def test_what_waits_is_not_taken_for_lost(broker: SidekiqBroker, client: redis.Redis, flow: Any) -> None:
    """The heartbeat requeues what a process holds without knowing it: not these."""
    member, behind = flow
    Workflow(Chain(Group(member.message(1), member.message(2)), behind.message())).run()
    consumer = broker.consume("python", prefetch=2)
    message: Any = next(consumer)
    consumer.ack(message)
    reconciliation = broker.process.heartbeat.reconciliation
    assert reconciliation is not None
    for _ in range(3):
        reconciliation.reconcile([message.member])
    assert client.hlen(f"swf:inflight:{message.member}") == 2
    assert not members(client, "python")


def test_one_thread_settles_at_a_time(connection: Connection, client: redis.Redis, broker: SidekiqBroker) -> None:
    """A step that is left while another one is settled is settled after it, by the same thread."""
    operations.barriers(client, INNER, OUTER)
    steps = ended(client, "a", "b")
    commit = broker.process.commit
    order: list[tuple[str, int]] = []

    def settle(name: str) -> None:
        order.append((name, threading.get_ident()))
        if name == "a":
            other = threading.Thread(target=commit.ack_step, args=(ME, steps[1], lambda: settle("b")))
            other.start()
            other.join()
            commit.flush_nowait()

    commit.ack_step(ME, steps[0], lambda: settle("a"))
    commit.flush()
    assert order == [("a", threading.get_ident()), ("b", threading.get_ident())]


def test_without_load_each_member_is_acknowledged_at_once(
    broker: SidekiqBroker, client: redis.Redis, flow: Any
) -> None:
    member, behind = flow
    Workflow(Chain(Group(member.message(1), member.message(2)), behind.message())).run()
    consumer = broker.consume("python", prefetch=2)
    consumer.ack(next(consumer))
    assert client.hlen(f"swf:inflight:{consumer.in_flight.member}") == 1
    assert not broker.process.commit.waiting()
