"""Rules of single scripts that no scenario shows: who is counted once, what lives on, who is kept back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from dramatiq_sidekiq_flow.errors import WrongType
from dramatiq_sidekiq_flow.store import foreign_runs, queues, runs, scripts, sets, workers
from dramatiq_sidekiq_flow.store.connection import Connection
from dramatiq_sidekiq_flow.store.outcomes import Operation
from dramatiq_sidekiq_flow.store.runs import MemoryKey, Output, Walk
from dramatiq_sidekiq_flow.wire.barrier import NewBarrier

from .. import operations
from ..operations import CHAIN, DAY, INNER, ITS, ME, MINE, NEW, OTHER, OUTER, TTL, reply_to

#: A slow machine may need that long between a write and a look, in seconds.
SLACK = 120


@pytest.fixture(autouse=True)
def _job(client: redis.Redis) -> None:
    client.hset(MINE, "a:1", "job")


def advance(unit: str, walk: list[Walk], **options: Any) -> Operation[Any]:
    """A step is done here."""
    return runs.advance(ME, "a:1", unit, walk, ttl=TTL, **options)


def count(unit: str, walk: list[Walk], **options: Any) -> Operation[Any]:
    """A step is done on another broker."""
    return foreign_runs.count(unit, walk, ttl=TTL, **options)


def fail(unit: str, walk: list[Walk]) -> Operation[Any]:
    """A step has failed here."""
    barriers = [entry.barrier for entry in walk]
    return sets.fail(ME, "a:1", "dead", now=time.time(), payload=b"it", needs=operations.needs_of(*barriers))


def bury(unit: str, walk: list[Walk]) -> Operation[Any]:
    """A step has failed on another broker."""
    return foreign_runs.bury(b"it", now=time.time(), needs=operations.needs_of(*(entry.barrier for entry in walk)))


Done = Callable[..., Operation[Any]]
both = pytest.mark.parametrize("done", [advance, count], ids=lambda done: done.__name__)


def about(ttl: int, expected: int) -> bool:
    return expected - SLACK <= ttl <= expected


# -- counting ------------------------------------------------------------------


@both
def test_a_finished_inner_group_is_counted_once(connection: Connection, client: redis.Redis, done: Done) -> None:
    """Its barrier expired and was made anew for a member that came late: the outer one has counted it."""
    operations.barriers(client, INNER)
    operations.barriers(client, OUTER, value=2)
    assert reply_to(connection, done("late", [Walk(INNER, "n"), Walk(OUTER, "n")])) == [b"DONE"]
    assert client.smembers(f"{OUTER}:u") == {INNER.encode()}
    client.delete(INNER, f"{INNER}_ran")
    operations.barriers(client, INNER)
    client.hset(MINE, "a:1", "job")
    assert reply_to(connection, done("later", [Walk(INNER, "n"), Walk(OUTER, "n")])) == [b"DONE"]
    assert client.get(OUTER) == b"1"


@both
def test_a_chains_step_that_comes_again_starts_nothing(connection: Connection, client: redis.Redis, done: Done) -> None:
    """The barrier of a chain counts one unit: its marker refuses that, and it has no set of units."""
    operations.barriers(client, CHAIN)
    client.sadd("queues", "next")
    client.config_resetstat()
    plan = runs.writes(connection, [], {"next": [b"next"]}, [])
    replies = []
    for _ in range(2):
        client.hset(MINE, "a:1", "job")
        replies.append(reply_to(connection, done("jid", [Walk(CHAIN, "f")], planned=1, plan=plan)))
    assert replies == [[b"DONE"], [b"DONE"]]
    assert client.lrange("queue:next", 0, -1) == [b"next"]
    # `queues` is asked for the queue of the one plan that is written, and nothing else.
    assert client.info("commandstats")["cmdstat_sismember"]["calls"] == 1
    assert not client.exists(f"{CHAIN}:u", MINE if done is advance else "none")


@both
def test_the_last_but_one_of_a_group_that_comes_again_releases_nothing(
    connection: Connection, client: redis.Redis, done: Done
) -> None:
    operations.barriers(client, INNER, value=2)
    operations.barriers(client, CHAIN)
    for _ in range(2):
        client.hset(MINE, "a:1", "job")
        assert reply_to(connection, done("first", [Walk(INNER, "n"), Walk(CHAIN, "f")])) == [b"DONE"]
    assert client.get(INNER) == client.get(CHAIN) == b"1"
    client.hset(MINE, "a:1", "job")
    assert reply_to(connection, done("second", [Walk(INNER, "n"), Walk(CHAIN, "f")])) == [b"PLAN", 2]


@both
def test_units_live_as_long_as_their_barrier(connection: Connection, client: redis.Redis, done: Done) -> None:
    """A barrier may wait for a child with a delay: a duplicate of this one then still counts once."""
    operations.barriers(client, INNER, value=2)
    client.expire(INNER, TTL + 100 * DAY)
    assert reply_to(connection, done("jid", [Walk(INNER, "f")])) == [b"DONE"]
    assert about(client.ttl(f"{INNER}:u"), TTL + 100 * DAY)


@both
@pytest.mark.parametrize("value", [0, -3])
def test_a_barrier_below_one_releases(connection: Connection, client: redis.Redis, done: Done, value: int) -> None:
    """Plain Ruby counts a member that comes twice twice."""
    operations.barriers(client, INNER, value=value)
    assert reply_to(connection, done("jid", [Walk(INNER, "f")])) == [b"PLAN", 1]


@both
@pytest.mark.parametrize("times", [1, 2])
def test_what_does_not_propagate_stops_there(
    connection: Connection, client: redis.Redis, done: Done, times: int
) -> None:
    operations.barriers(client, INNER, OUTER)
    for _ in range(times):
        client.hset(MINE, "a:1", "job")
        assert reply_to(connection, done("jid", [Walk(INNER, "s"), Walk(OUTER, "n")])) == [b"DONE"]
    assert (client.get(INNER), client.get(OUTER)) == (b"0", b"1")


def test_a_unit_that_released_on_another_broker_is_known_again(connection: Connection, client: redis.Redis) -> None:
    """Asked again, it walks the way that it went before, and stops where it stopped."""
    for name, unit in ((INNER, "jid"), (OUTER, INNER)):
        operations.barriers(client, name)
        client.set(f"{name}:f", unit, ex=TTL)
    assert reply_to(connection, count("jid", [Walk(INNER, "s"), Walk(OUTER, "f")])) == [b"DONE"]
    assert reply_to(connection, count("jid", [Walk(INNER, "n"), Walk(OUTER, "f")])) == [b"PLAN", 2]
    assert reply_to(connection, count("another", [Walk(INNER, "n"), Walk(OUTER, "f")])) == [b"DONE"]


def test_a_unit_is_counted_once_on_another_broker(connection: Connection, client: redis.Redis) -> None:
    """The releaser is told to enqueue until it says that it did; others never are."""
    operations.barriers(client, INNER, value=2)
    plan = operations.following(connection)

    def step(unit: str, value: bytes, planned: int = 1) -> Any:
        output = Output(MemoryKey("swf:mem:run", DAY), {"field": value})
        done = count(unit, [Walk(INNER, "f")], planned=planned, elsewhere=True, plan=plan, output=output)
        return reply_to(connection, done)

    assert step("a", b"a") == [b"DONE"]
    assert step("b", b"b", planned=0) == [b"PLAN", 1]
    assert step("b", b"b") == [b"FIRE"]
    assert (client.get(INNER), client.get(NEW), client.llen("queue:next")) == (b"0", b"2", 1)
    assert step("b", b"again") == [b"FIRE"]
    assert step("a", b"again") == [b"DONE"]
    assert reply_to(connection, foreign_runs.fired([Walk(INNER, "f")])) == 1
    assert [step(unit, b"late") for unit in "ab"] == [[b"DONE"], [b"DONE"]]
    assert client.llen("queue:next") == 1
    assert client.hget("swf:mem:run", "field") == b"b"
    client.delete(f"{INNER}:f")
    assert step("c", b"late") == [b"DONE"]
    assert client.hget("swf:mem:run", "field") == b"b"


@pytest.mark.parametrize("suffix", ["", "_ran"])
def test_a_missing_barrier_is_not_counted_on_another_broker(
    connection: Connection, client: redis.Redis, suffix: str
) -> None:
    operations.barriers(client, INNER)
    client.delete(INNER + suffix)
    assert reply_to(connection, count("jid", [Walk(INNER, "s")])) == [b"EXPIRED", INNER.encode()]
    assert not client.exists(INNER + suffix, f"{INNER}:u")


def test_a_marker_that_is_not_a_number_on_another_broker(connection: Connection, client: redis.Redis) -> None:
    operations.barriers(client, INNER)
    client.set(f"{INNER}_ran", "text")
    assert reply_to(connection, count("jid", [Walk(INNER, "s")])) == [b"TYPE", f"{INNER}_ran".encode()]
    assert client.get(INNER) == b"1"


def test_a_barrier_that_is_gone_is_not_marked(connection: Connection, client: redis.Redis) -> None:
    assert reply_to(connection, foreign_runs.fired([Walk(INNER, "f")])) == 0
    assert not client.exists(f"{INNER}:f")


def test_a_refused_step_that_is_gone_needs_nothing(connection: Connection, client: redis.Redis) -> None:
    """Sent twice, it may meet a barrier that is gone, or one that fires another callback."""
    client.delete(MINE)
    assert reply_to(connection, advance("jid", [Walk(INNER, "f")])) == [b"GONE"]
    operations.barriers(client, INNER)
    assert reply_to(connection, advance("jid", [Walk(INNER, "f")])) == [b"GONE"]


# -- what lives how long ---------------------------------------------------------


@both
def test_a_released_barrier_is_kept_for_a_day(connection: Connection, client: redis.Redis, done: Done) -> None:
    operations.barriers(client, INNER)
    client.sadd(f"{INNER}:u", "sibling")
    reply_to(connection, done("jid", [Walk(INNER, "n")]))
    assert all(about(client.ttl(key), DAY) for key in (INNER, f"{INNER}_ran"))
    assert client.get(f"{INNER}_ran") == b"0"
    # The marker says enough: no member needs to be known by its name any more.
    assert not client.exists(f"{INNER}:u")


def test_what_is_still_to_be_enqueued_lives_as_long_as_what_waits(connection: Connection, client: redis.Redis) -> None:
    operations.barriers(client, INNER)
    assert reply_to(connection, count("jid", [Walk(INNER, "f")], planned=1, elsewhere=True)) == [b"FIRE"]
    assert all(about(client.ttl(key), TTL) for key in (INNER, f"{INNER}_ran", f"{INNER}:f"))
    reply_to(connection, foreign_runs.fired([Walk(INNER, "f")]))
    assert all(about(client.ttl(key), DAY) for key in (INNER, f"{INNER}_ran", f"{INNER}:f"))


def waiting(client: redis.Redis, ttl: int) -> list[str]:
    """Barriers that wait for two, and have counted one; their keys."""
    operations.barriers(client, INNER, OUTER, CHAIN, value=2)
    names = [name + suffix for name in (INNER, OUTER, CHAIN) for suffix in ("", "_ran", ":u")]
    for name in names[2::3]:
        client.sadd(name, "another")
    for name in names:
        client.expire(name, ttl)
    return names


WALK = [Walk(INNER, "n"), Walk(OUTER, "n"), Walk(CHAIN, "f")]


@pytest.mark.parametrize("done", [advance, count, fail, bury], ids=lambda done: done.__name__)
def test_waiting_barriers_live_on(connection: Connection, client: redis.Redis, done: Done) -> None:
    names = waiting(client, 100)
    assert reply_to(connection, done("jid", WALK)) == [b"DONE"]
    assert {name: client.ttl(name) for name in names if not about(client.ttl(name), TTL)} == {}


@pytest.mark.parametrize("done", [advance, count, fail, bury], ids=lambda done: done.__name__)
def test_barriers_are_never_shortened(connection: Connection, client: redis.Redis, done: Done) -> None:
    names = waiting(client, 2 * TTL)
    assert reply_to(connection, done("jid", WALK)) == [b"DONE"]
    assert {name: client.ttl(name) for name in names if not about(client.ttl(name), 2 * TTL)} == {}


def test_a_failure_trims_nothing_but_dead(connection: Connection, client: redis.Redis) -> None:
    client.zadd("retry", {"due long ago": 1.0, "due": 2.0})
    reply_to(connection, sets.fail(ME, "a:1", "retry", now=time.time(), at=3.0, payload=b"it"))
    assert client.zcard("retry") == 3


@pytest.mark.parametrize("done", [fail, bury], ids=lambda done: done.__name__)
def test_old_jobs_leave_dead(connection: Connection, client: redis.Redis, done: Done) -> None:
    client.zadd("dead", {"old": time.time() - 181 * DAY, "new": time.time() - 179 * DAY})
    reply_to(connection, done("jid", []))
    assert client.zrange("dead", 0, -1) == [b"new", b"it"]


# -- who may fetch, and what is recovered -----------------------------------------


def test_a_worker_that_is_not_registered_fetches_nothing(connection: Connection, client: redis.Redis) -> None:
    client.lpush("queue:python", "job")
    assert queues.fetch(connection, ME, "python", "b", 1) is None
    assert client.llen("queue:python") == 1


def test_the_last_fetches_are_of_another_type(connection: Connection, client: redis.Redis) -> None:
    member = "host:1:abc:python"
    workers.beat(connection, {member: None}, 60)
    client.lpush("queue:python", "{}")
    client.set(f"swf:fetched:{member}", "text")
    with pytest.raises(WrongType, match="swf:fetched"):
        queues.fetch(connection, member, "python", "1", 1)
    assert client.llen("queue:python") == 1


def test_a_paused_queue_is_not_fetched_from(connection: Connection, client: redis.Redis) -> None:
    operations.queued(client)
    queues.pause(connection, "python")
    assert queues.fetch(connection, ME, "python", "b", 1) == queues.PAUSED
    assert client.llen("queue:python") == 3


def in_flight_job(receipt: str, jid: int) -> workers.InFlightJob:
    return workers.InFlightJob(receipt.encode(), str(jid), b"corpse")


def recover(connection: Connection, *jobs: workers.InFlightJob) -> workers.RecoveryResult | None:
    return workers.recover(connection, OTHER, jobs, timeout=60, now=time.time())


def test_a_suspect_stays_for_its_trial(connection: Connection, client: redis.Redis) -> None:
    operations.suspected(client)
    assert recover(connection, in_flight_job("a:1!", 1)) == workers.RecoveryResult()
    assert client.hkeys(ITS) == [b"a:1!", b"a:2!"]
    assert client.zscore("swf:workers", OTHER)


def test_what_perhaps_began_is_not_buried(connection: Connection, client: redis.Redis) -> None:
    client.zadd("swf:workers", {OTHER: 1.0})
    client.hset(ITS, "a:1~", "job")
    client.set("swf:recovered:1", 7)
    assert recover(connection, in_flight_job("a:1~", 1)) == workers.RecoveryResult(waiting=1)
    assert client.hgetall(ITS) == {b"a:1!": b"job"}
    assert client.get("swf:recovered:1") == b"7"


def test_a_trial_that_runs_keeps_others_back(connection: Connection, client: redis.Redis) -> None:
    operations.suspected(client)
    assert operations.trial(connection) == b"one"

    def take() -> Any:
        return workers.try_suspect(connection, OTHER, ME, "c", timeout=60)

    assert take() == "wait"
    assert workers.begin(connection, ME, "b:1?")
    assert take() == "wait"
    client.hdel(MINE, "b:1")
    assert take() == b"two"


def test_a_trial_from_the_future_keeps_none_back(connection: Connection, client: Any) -> None:
    """The clock of Redis was set back since."""
    operations.suspected(client)
    assert operations.trial(connection) == b"one"
    began, rest = client.get("swf:trial:python").decode().split(" ", 1)
    client.set("swf:trial:python", f"{float(began) + DAY} {rest}")
    assert workers.try_suspect(connection, OTHER, ME, "c", timeout=60) == b"two"


#: What moves a job that Redis has accepted: it takes nothing more than it gives back.
MOVES = [
    "chain_step",
    "chain_step_pushed",
    *(
        "advance",
        "advance_member",
        "advance_kept",
        "advance_group",
        "release",
        "fail_retry",
        "fail_dead",
        "fail_caught",
        "replace_dead",
        "fetch",
        "fetch_arrived",
        "begin",
        "requeue",
        "recover",
        "trial",
    ),
    *("promote_schedule", "promote_retry", "resume"),
]


@pytest.mark.parametrize("name", MOVES)
def test_a_full_redis_lets_jobs_move(connection: Connection, client: redis.Redis, name: str) -> None:
    """Each such script begins with a write that a full Redis takes, and after it the rest passes, too."""
    client.delete(MINE)
    operation = operations.NAMED[name]
    operation.prepare(client)
    client.config_set("maxmemory", "1mb")
    try:
        first = operation.call(connection)
    finally:
        client.config_set("maxmemory", "0")
    client.flushdb()
    operation.prepare(client)
    assert first == operation.call(connection)


def test_a_full_redis_takes_beats(connection: Connection, client: redis.Redis) -> None:
    """Else every worker would look dead, and all that runs would run again."""
    client.zadd("swf:workers", {ME: 1.0})
    client.config_set("maxmemory", "1mb")
    try:
        assert workers.beat(connection, {ME: None}, 60).dead == []
    finally:
        client.config_set("maxmemory", "0")
    assert client.zscore("swf:workers", ME) == pytest.approx(time.time(), abs=SLACK)


# -- plans, fan-outs and sets -------------------------------------------------------


def test_a_plan_is_written_whole(connection: Connection, client: redis.Redis) -> None:
    assert operations.start(connection) == [b"DONE"]
    assert client.lrange("queue:next", 0, -1) == [b"job"]
    assert client.smembers("queues") == {b"next"}
    assert client.zrange("schedule", 0, -1, withscores=True) == [(b"later", 2e9)]
    assert client.mget(NEW, f"{NEW}_ran") == [b"2", b"-1"]


def test_a_barrier_without_units_is_made_released(connection: Connection, client: redis.Redis) -> None:
    """Such as that of a group whose members have nothing to run."""
    made = runs.writes(connection, [NewBarrier(NEW, 0, DAY), NewBarrier(CHAIN, 1, TTL)], {}, [])
    assert reply_to(connection, runs.start("run", made, ttl=TTL)) == [b"DONE"]
    assert client.mget(NEW, f"{NEW}_ran", CHAIN, f"{CHAIN}_ran") == [b"0", b"0", b"1", b"-1"]


@pytest.mark.parametrize("key", ["list", "swf:fanouts", "queues", "queue:next", "schedule"])
def test_a_fan_out_is_not_committed_where_a_key_is_of_another_type(
    connection: Connection, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(runs, "MAX_INLINE", 0)
    plan = operations.following(connection)
    key = plan.keys[0] if key == "list" else key
    client.delete(key)
    client.set(key, "text")
    before = set(client.keys())
    assert reply_to(connection, runs.start("run", plan, ttl=DAY)) == [b"TYPE", key.encode()]
    assert set(client.keys()) == before


def test_a_barrier_made_anew_has_counted_nobody(connection: Connection, client: redis.Redis) -> None:
    operations.failed(client)
    assert operations.resume(connection) == [b"DONE", 3]
    assert not client.exists(f"{INNER}:u")


def test_a_stored_chain_is_prolonged_when_it_is_stored_again(connection: Connection, client: redis.Redis) -> None:
    operations.store_chain(connection)
    client.expire(operations.CHAINED, 100)
    operations.store_chain(connection)
    assert about(client.ttl(operations.CHAINED), TTL)


def test_the_chain_of_a_run_is_prolonged_and_not_shortened(connection: Connection, client: redis.Redis) -> None:
    for before, after in ((100, TTL), (2 * TTL, 2 * TTL)):
        operations.own_chain(connection)
        client.expire(operations.CHAINED, before)
        operations.own_chain(connection)
        assert about(client.ttl(operations.CHAINED), after)


def test_a_chain_that_is_released_expires_where_it_belongs_to_one_run(
    connection: Connection, client: redis.Redis
) -> None:
    operations.owned(client)
    assert operations.release_chain(connection) == 1
    assert about(client.ttl(operations.CHAINED), 100)
    client.expire(operations.CHAINED, 50)
    assert operations.release_chain(connection) == 0
    assert about(client.ttl(operations.CHAINED), 50)
    client.delete(operations.CHAINED)
    operations.store_chain(connection)
    assert operations.release_chain(connection) == 0
    assert about(client.ttl(operations.CHAINED), TTL)
    client.set(operations.CHAINED, "text")
    assert operations.release_chain(connection) == 0


def test_a_push_that_comes_after_a_later_one_is_not_made_again(connection: Connection, client: redis.Redis) -> None:
    for number in (1, 2, 1):
        connection.call(*scripts.PUSH.command(("swf:push:me", "queues", "queue:next"), (number, "next", number)))
    assert client.lrange("queue:next", 0, -1) == [b"2", b"1"]


def push(connection: Connection, number: int, payload: str = "job") -> Any:
    return connection.call(*scripts.PUSH.command(("swf:push:me", "queues", "queue:next"), (number, "next", payload)))


def test_a_push_needs_the_one_before_it(connection: Connection, client: redis.Redis) -> None:
    """Of several in one write, those after a failed one are not made; nor is one whose producer was forgotten."""
    assert push(connection, 2) == -1
    assert push(connection, 1) == 1
    assert push(connection, 3) == -1
    assert client.get("swf:push:me") == b"1"
    assert client.llen("queue:next") == 1
    client.delete("swf:push:me")
    assert push(connection, 2) == -1


def test_a_push_lists_its_queue_again(connection: Connection, client: redis.Redis) -> None:
    for number in (1, 2):
        assert push(connection, number) == 1
        assert client.smembers("queues") == {b"next"}
        client.delete("queues")


def test_a_full_redis_takes_no_push(connection: Connection, client: redis.Redis) -> None:
    """Its first write is refused, so nothing is half done, and the same push may be made later."""
    client.set("filling", "x" * 100_000)
    before = set(client.keys())
    client.config_set("maxmemory", "1")
    try:
        for name in ("push", "schedule"):
            with pytest.raises(redis.ConnectionError, match="OOM"):
                operations.NAMED[name].call(connection)
    finally:
        client.config_set("maxmemory", "0")
    assert set(client.keys()) == before
    assert push(connection, 1) == 1


def test_a_set_that_became_another_type_is_not_promoted_from(connection: Connection, client: redis.Redis) -> None:
    client.set("schedule", "text")
    assert operations.promote("schedule")(connection) == sets.Promoted(0, [], [0, 1])


def test_a_bad_member_stays_while_dead_cannot_take_it(connection: Connection, client: redis.Redis) -> None:
    operations.due("retry")(client)
    client.set("dead", "text")
    assert operations.promote("retry")(connection) == sets.Promoted(1, [], [1])
    assert client.zrange("retry", 0, -1) == [b"bad"]


def test_a_promoted_job_makes_its_queue_known(connection: Connection, client: redis.Redis) -> None:
    operations.due("retry")(client)
    assert operations.promote("retry")(connection) == sets.Promoted(2, [], [])
    assert client.smembers("queues") == {b"next"}
    assert client.zrange("dead", 0, -1) == [b"corpse"]


# -- slices ---------------------------------------------------------------------------


def test_many_values_are_written_in_slices(connection: Connection, client: redis.Redis) -> None:
    """Each once and in order; a call of Lua takes some thousands at most."""
    many = range(20_000)
    connection.call(*scripts.PUSH.command(("swf:push:me", "queues", "queue:next"), (1, "next", *many)))
    assert [int(payload) for payload in client.lrange("queue:next", 0, -1)] == list(reversed(many))
    fields = [part for n in many for part in (f"field{n}", n)]
    connection.call(*scripts.REMEMBER.command(("swf:mem:run",), (DAY, *fields)))
    assert client.hlen("swf:mem:run") == len(many)
