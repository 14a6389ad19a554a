"""Each script of the store, called as the package calls it, with what it finds in Redis."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import attrs
import redis

from dramatiq_sidekiq_flow.store import (
    foreign_runs,
    group_steps,
    keys,
    processes,
    queues,
    replacements,
    run_cancel,
    run_keeping,
    run_pause,
    run_records,
    run_repeats,
    run_restart,
    run_signals,
    runs,
    scripts,
    sets,
    workers,
)
from dramatiq_sidekiq_flow.store.connection import Connection
from dramatiq_sidekiq_flow.store.group_steps import GroupStep, StepGroup
from dramatiq_sidekiq_flow.store.needs import Needs
from dramatiq_sidekiq_flow.store.outcomes import Operation as StoreOperation
from dramatiq_sidekiq_flow.store.run_restart import Restart
from dramatiq_sidekiq_flow.store.runs import LostBarrier, MemoryKey, Output, Walk
from dramatiq_sidekiq_flow.store.step_records import Death, RunRecord, StepRecord
from dramatiq_sidekiq_flow.wire.barrier import NewBarrier

ME, OTHER = "host:1:abc:python", "host:2:def:python"
MINE, ITS = f"swf:inflight:{ME}", f"swf:inflight:{OTHER}"
#: The barriers of a group inside a group inside a chain, and of what a plan makes.
INNER, OUTER, CHAIN, NEW = (f"{n * 8}-0000-0000-0000-000000000000" for n in "1234")
STACK = (Walk(INNER, "n"), Walk(OUTER, "n"), Walk(CHAIN, "f"))
DAY = 86_400
TTL = 21 * DAY


@attrs.frozen
class Operation:
    """One script, called as the package calls it.

    Attributes:
      prepare: Makes what it finds.
      call: Calls it; the reply.
      types: Key -> the type that it must have.
      repeated: The reply when it is sent again; the same as before unless given.
    """

    name: str
    prepare: Callable[[redis.Redis], Any]
    call: Callable[[Connection], Any]
    types: dict[str, str]
    repeated: Any = None


def barriers(client: redis.Redis, *names: str, value: int = 1) -> None:
    for name in names:
        client.set(name, value, ex=TTL)
        client.set(f"{name}_ran", -1, ex=TTL)


def stacked(*suffixes: str) -> dict[str, str]:
    """The keys of all three barriers, and their types."""
    kinds = {"": "string", "_ran": "string", ":u": "set", ":f": "string"}
    return {name + suffix: kinds[suffix] for name in (INNER, OUTER, CHAIN) for suffix in suffixes}


def walked(*suffixes: str) -> dict[str, str]:
    """Those that a walk reads: the barrier of a chain counts one unit, and has no set of units."""
    return {name: kind for name, kind in stacked("", "_ran", ":u", *suffixes).items() if name != f"{CHAIN}:u"}


def following(connection: Connection) -> runs.Writes:
    """What a continuation writes: a barrier, a job, and one for later."""
    return runs.writes(connection, [NewBarrier(NEW, 2, TTL)], {"next": [b"job"]}, [(2e9, b"later")])


PLANNED = {"queues": "set", "queue:next": "list", "schedule": "zset"}
OUTPUT = Output(MemoryKey("swf:mem:run", DAY), {"field": b"1"})


def needs_of(*barriers: str, ttl: int = TTL) -> Needs:
    """What a failed job needs that hangs on these barriers."""
    return Needs(tuple(key for barrier in barriers for key in keys.barrier(barrier)), ttl)


def reply_to(connection: Connection, operation: StoreOperation[Any]) -> Any:
    """What the server replies to an operation."""
    return connection.call(*operation.command)


def in_flight(client: redis.Redis) -> None:
    client.hset(MINE, mapping={"a:1": "job", "a:2": "another"})
    barriers(client, INNER, OUTER, CHAIN)


def advance(connection: Connection) -> Any:
    plan = following(connection)
    return reply_to(connection, runs.advance(ME, "a:1", "jid", STACK, ttl=TTL, planned=3, plan=plan, output=OUTPUT))


def advance_member(connection: Connection) -> Any:
    """A member of a group that still waits for others."""
    return reply_to(connection, runs.advance(ME, "a:1", "jid", STACK, ttl=TTL, output=OUTPUT))


def alone(connection: Connection) -> Any:
    """A step of a chain is followed by one job, for the queue of the same worker, which keeps it."""
    plan = runs.writes(connection, [NewBarrier(NEW, 2, TTL)], {"python": [b"next"]}, [])
    return reply_to(connection, runs.advance(ME, "a:1", "jid", STACK, ttl=TTL, planned=3, plan=plan, keep="b:1"))


def step(keep: str) -> Callable[[Connection], Any]:
    """A step of a chain, and the next one for the queue of its worker, which keeps it or pushes it."""

    def call(connection: Connection) -> Any:
        plan = runs.writes(connection, [NewBarrier(NEW, 1, TTL)], {"python": [b"next"]}, [])
        walk = [Walk(CHAIN, "f")]
        return reply_to(connection, runs.advance(ME, "a:1", "jid", walk, ttl=TTL, planned=1, plan=plan, keep=keep))

    return call


def listed(client: redis.Redis) -> None:
    in_flight(client)
    client.sadd("queues", "python")


def group(client: redis.Redis) -> None:
    client.hset(MINE, mapping={"a:1": "job", "a:2": "another"})
    barriers(client, INNER, OUTER, CHAIN, value=3)


def advance_group(connection: Connection) -> Any:
    """Two members of a group that still waits for a third."""
    members = StepGroup(STACK, TTL, OUTPUT.memory)
    steps = [GroupStep(members, "a:1", "jid", OUTPUT.fields), GroupStep(members, "a:2", "another", {})]
    return reply_to(connection, group_steps.advance(ME, steps))


def waiting(client: redis.Redis) -> None:
    client.hset(MINE, "a:1", "job")
    barriers(client, INNER, OUTER, CHAIN, value=2)


def start(connection: Connection) -> Any:
    return reply_to(connection, runs.start("run", following(connection), ttl=DAY, output=OUTPUT))


def release(connection: Connection) -> Any:
    plan = following(connection)
    return reply_to(connection, runs.release(ME, "a:1", released=INNER, ttl=DAY, plan=plan, output=OUTPUT))


def count(connection: Connection) -> Any:
    plan = following(connection)
    return reply_to(
        connection, foreign_runs.count("jid", STACK, ttl=TTL, planned=3, elsewhere=True, plan=plan, output=OUTPUT)
    )


def count_member(connection: Connection) -> Any:
    return reply_to(connection, foreign_runs.count("jid", STACK, ttl=TTL, output=OUTPUT))


def fail(action: Literal["retry", "dead", "discard"]) -> Callable[[Connection], Any]:
    def call(connection: Connection) -> Any:
        return reply_to(
            connection, sets.fail(ME, "a:1", action, now=time.time(), at=2e9, payload=b"it", needs=needs_of(INNER))
        )

    return call


def bury(connection: Connection) -> Any:
    return reply_to(connection, foreign_runs.bury(b"it", now=1e9, needs=needs_of(INNER)))


def queued(client: redis.Redis) -> None:
    client.lpush("queue:python", "a", "b", "c")
    client.zadd("swf:workers", {ME: time.time()})


def arrived(client: redis.Redis) -> None:
    queued(client)
    client.rpush("swf:arrived:python", "first")


def fetch(connection: Connection) -> Any:
    return queues.fetch(connection, ME, "python", "a", 2, free=1)


def fetched_ahead(client: redis.Redis) -> None:
    client.hset(MINE, "a:1?", "job")


def begin(connection: Connection) -> Any:
    return workers.begin(connection, ME, "a:1?")


def requeue(connection: Connection) -> Any:
    return queues.requeue(connection, ME, "python", ["a:1", "a:2"])


def died(client: redis.Redis) -> None:
    client.zadd("swf:workers", {OTHER: 1.0, ME: time.time()})
    client.hset(ITS, mapping={"a:1": "pill", "a:2?": "ahead", "a:3": "new", "a:4": "suspect"})
    client.set("swf:recovered:1", 2, ex=DAY)
    client.set("swf:recovered:4", 1, ex=DAY)


def recover(connection: Connection) -> Any:
    jobs = [workers.InFlightJob(b"a:%d%s" % (n, b"?" if n == 2 else b""), str(n), b"corpse") for n in (4, 3, 2, 1)]
    return workers.recover(connection, OTHER, jobs, timeout=60, now=time.time())


def suspected(client: redis.Redis) -> None:
    client.zadd("swf:workers", {OTHER: 1.0, ME: time.time()})
    client.hset(ITS, mapping={"a:1!": "one", "a:2!": "two"})


def trial(connection: Connection) -> Any:
    return workers.try_suspect(connection, OTHER, ME, "b", timeout=60)


def due(name: str) -> Callable[[redis.Redis], Any]:
    def prepare(client: redis.Redis) -> None:
        client.zadd(name, {"good": 1.0, "bad": 2.0})

    return prepare


def promote(name: str) -> Callable[[Connection], Any]:
    def call(connection: Connection) -> Any:
        promotions = [sets.Promotion(b"good", "next", b"job"), sets.Promotion(b"bad", None, b"corpse")]
        return sets.promote(connection, name, time.time(), promotions)

    return call


def push(connection: Connection) -> Any:
    return connection.call(*scripts.PUSH.command(("swf:push:me", "queues", "queue:next"), (1, "next", b"a", b"b")))


def schedule(connection: Connection) -> Any:
    return connection.call(*scripts.PUSH.command(("swf:push:me", "queues", "schedule"), (1, "", 2e9, b"later")))


def failed(client: redis.Redis) -> None:
    client.zadd("dead", {"step": time.time()})
    client.sadd(f"{INNER}:u", "jid")


def resume(connection: Connection) -> Any:
    stack = [LostBarrier(INNER, 2), LostBarrier(OUTER, 1), LostBarrier(CHAIN, 1)]
    resumed = runs.resume("dead", b"step", queue="next", payload=b"job", barriers=stack, ttl=TTL)
    return reply_to(connection, resumed)


def show(connection: Connection) -> Any:
    return processes.beat(connection, "host:1:abc", {"info": "{}"}, {"thread": b"{}"}, ttl=60)


RUN = "of-a-run"
RECORD = keys.record(RUN)


def running(client: redis.Redis) -> None:
    in_flight(client)
    client.hset(RECORD, mapping={"state": "running", "started": "1.000", "keep": DAY})
    client.zadd("swf:flows:running", {RUN: 1})


def cancelled(client: redis.Redis) -> None:
    """A run that is cancelled; its barriers wait."""
    in_flight(client)
    client.hset(RECORD, mapping={"state": "cancelled", "started": "1.000", "keep": DAY})
    client.hset(f"{RECORD}:times", "0", "")
    for key in (RECORD, f"{RECORD}:times"):
        client.expire(key, DAY)


PARKED = keys.parked(RUN)
DISARMED = keys.disarmed(RUN)


def paused(client: redis.Redis) -> None:
    """A run that is paused; its barriers wait, and one of them is disarmed."""
    cancelled(client)
    client.hset(RECORD, mapping={"state": "paused", "reason": "a fault"})
    client.set(f"{CHAIN}_ran", 0, ex=TTL)
    client.hset(DISARMED, CHAIN, b"python\0fires")
    client.expire(DISARMED, TTL)
    client.zadd("dead", {"corpse": 1})
    client.zadd("swf:fanouts", {"f": 1})
    client.rpush("swf:fanout:f", "qpython", "{}")
    many(client)
    two_scheduled(client)


def paused_numbered(client: redis.Redis) -> None:
    paused(client)
    client.hset(RECORD, "total", "9")


def paused_alone(client: redis.Redis) -> None:
    """The same, and what a step of a chain finds that goes on at once: an armed barrier, and an empty queue."""
    paused(client)
    client.set(f"{CHAIN}_ran", -1, ex=TTL)
    client.delete("queue:python")


def resumed(client: redis.Redis) -> None:
    """A run that was paused, with what was parked."""
    paused(client)
    client.hset(RECORD, "state", "running")
    client.rpush(PARKED, b"qnext\0one", b"s2e9\0later", b"r1e9\0again", b"qnext\0two")
    client.expire(PARKED, TTL)
    # The gem has released this one, and started nothing.
    client.set(INNER, 0, ex=TTL)
    client.set(f"{INNER}_ran", 1, ex=TTL)
    client.hset(DISARMED, INNER, b"next\0fires")


def pause(connection: Connection) -> Any:
    return reply_to(connection, run_pause.pause(RUN, "reason"))


def unpause(connection: Connection) -> Any:
    return reply_to(connection, run_pause.unpause(RUN))


def park(connection: Connection) -> Any:
    return reply_to(connection, run_pause.park(ME, "a:1", "python", RECORD, needs_of(INNER)))


def park_jobs(connection: Connection) -> Any:
    arguments = (1, 100, "mark", "qpython", b"b", b"d", b"none")
    return connection.call(*scripts.PARK_JOBS.command(("queue:python", RECORD), arguments))


def park_scheduled(connection: Connection) -> Any:
    return connection.call(*scripts.PARK_JOBS.command(("schedule", RECORD), (0, 0, "mark", "s", b"b", b"none")))


def park_fanout(connection: Connection) -> Any:
    return connection.call(*scripts.PARK_FANOUT.command(("swf:fanouts", "swf:fanout:f", RECORD), ("f",)))


def unpark(connection: Connection) -> Any:
    places = (RECORD, "queues", "schedule", "retry", "swf:fanouts")
    return connection.call(*scripts.UNPARK.command(places, (250, 1000)))


def hold_barriers(connection: Connection) -> Any:
    return run_pause.hold(connection, RUN, {INNER: b"python\0fires", CHAIN: b"python\0fires"})


def rearm(connection: Connection) -> Any:
    return connection.call(*scripts.REARM.command((RECORD, "queues", INNER, CHAIN), ()))


def retry_dead(connection: Connection) -> Any:
    return reply_to(connection, run_pause.retry(RUN, b"corpse", "next", b"job", 7))


def ended(client: redis.Redis) -> None:
    """A run that is done, and went on past a dead step."""
    running_with_dead(client)
    marks: dict[Any, Any] = {"state": "done", "finished": "2", "unique": "k", "caught": "1", "skipped": "1"}
    client.hset(RECORD, mapping=marks)
    client.hset(f"{RECORD}:times", mapping={"0": "", "6": "1 2 0 w", "7": "1 2 0 w", "8": "1 2 0 w"})
    client.hset(f"{RECORD}:failed", "7", "{}")
    client.hset(f"{RECORD}:added", "8", "{}")
    client.setrange(f"{RECORD}:done", 0, b"\xff" * 200)
    for part in (":times", ":failed", ":added", ":done"):
        client.expire(RECORD + part, DAY)
    client.hset("swf:mem:run", "a", "1")
    client.expire("swf:mem:run", 10)


def restart(connection: Connection) -> Any:
    forgotten = Restart([b"corpse"], [range(7, 9), range(1003, 1050)], [7], [8], 0, 2)
    memory = MemoryKey("swf:mem:run", DAY)
    return reply_to(connection, run_restart.restart(RUN, forgotten, following(connection), ttl=TTL, memory=memory))


def note_repeat(connection: Connection) -> Any:
    return reply_to(connection, run_repeats.note_repeat(RUN, "another"))


def cancel(connection: Connection) -> Any:
    return reply_to(connection, run_cancel.cancel(RUN, "reason"))


CALL = b'{"class":"Tell","args":[{"run_id":"of-a-run"\ncalls'
KEPT = Needs(keys.record_parts(RUN), TTL)
FAILURE = Death(RECORD, 7, b'{"jid":"j"}')


def calling(client: redis.Redis) -> None:
    """A run with callbacks, a unique key and a deadline."""
    running(client)
    fields: dict[Any, Any] = {"on_failure": CALL, "on_complete": CALL, "unique": "k", "deadline": "60"}
    client.hset(RECORD, mapping=fields)
    client.hset(f"{RECORD}:times", "0", "")
    for key in (RECORD, f"{RECORD}:times"):
        client.expire(key, DAY)
    client.set("swf:unique:k", RUN, ex=DAY)
    client.zadd("swf:deadlines", {RUN: 9e9, "other": 9e9})
    client.expire("swf:deadlines", DAY)
    client.zadd("dead", {"it": time.time()})


def calling_failed(client: redis.Redis) -> None:
    calling(client)
    client.hset(RECORD, "state", "failed")
    client.delete("swf:flows:running")
    client.zadd("swf:resting", {RUN: 1})
    client.expire("swf:resting", DAY)


def fail_calling(connection: Connection) -> Any:
    return reply_to(connection, sets.fail(ME, "a:1", "dead", now=time.time(), payload=b"it", needs=KEPT, death=FAILURE))


def bury_calling(connection: Connection) -> Any:
    return reply_to(connection, foreign_runs.bury(b"it", now=1e9, needs=KEPT, death=FAILURE))


def fail_adopting(connection: Connection) -> Any:
    """The first thing that is seen of a run that Ruby started."""
    death = Death(RECORD, "jid:j", b'{"jid":"j"}')
    needs = needs_of(INNER)
    return reply_to(connection, sets.fail(ME, "a:1", "dead", now=time.time(), payload=b"it", needs=needs, death=death))


def finish_calling(connection: Connection) -> Any:
    return reply_to(connection, runs.advance(ME, "a:1", "jid", [], ttl=TTL, record=LAST))


def note_death(connection: Connection) -> Any:
    return reply_to(connection, run_keeping.note_death(FAILURE, b"it"))


def keep(connection: Connection) -> Any:
    return sets.renew_keeping(connection, "host:1:abc", 30)


def call_back(connection: Connection) -> Any:
    run = run_keeping.RestingRun(RUN, "failed", frozenset(("on_complete",)), {})
    return reply_to(connection, run_keeping.call_back(run, "on_complete", b',"state":"failed"', again=False))


def start_unique(connection: Connection) -> Any:
    record = RunRecord(RECORD, "running", 1.0, DAY, 1, unique="k", deadline=60.0, needed=True)
    return reply_to(connection, runs.start(RUN, following(connection), ttl=DAY, record=record))


def lost(client: redis.Redis) -> None:
    """A run that is stuck."""
    running(client)
    client.expire(RECORD, DAY)
    client.expire("swf:flows:running", DAY)


def mark_dead(connection: Connection) -> Any:
    return reply_to(connection, run_records.mark_dead(RUN, 2, b"{}"))


LAST = StepRecord(RECORD, "7 1.000 2.000 0 me")


def advance_cancelled(connection: Connection) -> Any:
    plan = following(connection)
    return reply_to(
        connection, runs.advance(ME, "a:1", "jid", STACK, ttl=TTL, planned=3, plan=plan, output=OUTPUT, record=LAST)
    )


def step_cancelled(connection: Connection) -> Any:
    plan = runs.writes(connection, [NewBarrier(NEW, 1, TTL)], {"python": [b"next"]}, [])
    walk = [Walk(CHAIN, "f")]
    return reply_to(
        connection, runs.advance(ME, "a:1", "jid", walk, ttl=TTL, planned=1, plan=plan, keep="b:1", record=LAST)
    )


def group_cancelled(connection: Connection) -> Any:
    members = StepGroup(STACK, TTL, OUTPUT.memory)
    steps = [GroupStep(members, "a:1", "jid", OUTPUT.fields, LAST), GroupStep(members, "a:2", "another", {}, LAST)]
    return reply_to(connection, group_steps.advance(ME, steps))


def count_cancelled(connection: Connection) -> Any:
    plan = following(connection)
    return reply_to(
        connection,
        foreign_runs.count("jid", STACK, ttl=TTL, planned=3, elsewhere=True, plan=plan, output=OUTPUT, record=LAST),
    )


def release_cancelled(connection: Connection) -> Any:
    plan = following(connection)
    return reply_to(connection, runs.release(ME, "a:1", released=INNER, ttl=DAY, plan=plan, output=OUTPUT, record=LAST))


def fail_cancelled(connection: Connection) -> Any:
    death = Death(RECORD)
    return reply_to(connection, sets.fail(ME, "a:1", "retry", now=time.time(), at=2e9, payload=b"it", death=death))


#: Of a step whose place others take: two of its fallback run.
CAUGHT = Death(RECORD, 7, b"{}", ran=2)


def caught(client: redis.Redis) -> None:
    running(client)
    client.zadd("dead", {"step": 1e9})
    for key in (RECORD, f"{RECORD}:failed"):
        client.hset(key, "skipped", 2)
        client.expire(key, DAY)
    client.expire("swf:flows:running", DAY)


def fail_caught(action: Literal["dead", "discard"]) -> Callable[[Connection], Any]:
    def call(connection: Connection) -> Any:
        needs, plan = needs_of(INNER), following(connection)
        return reply_to(
            connection,
            sets.fail(ME, "a:1", action, now=time.time(), payload=b"it", needs=needs, death=CAUGHT, plan=plan),
        )

    return call


def bury_caught(connection: Connection) -> Any:
    needs, plan = needs_of(INNER), following(connection)
    return reply_to(connection, foreign_runs.bury(b"it", now=1e9, needs=needs, death=CAUGHT, plan=plan))


def replace_dead(connection: Connection) -> Any:
    needs, plan = needs_of(INNER), runs.writes(connection, [NewBarrier(NEW, 2, TTL)], {"next": [b"job"]}, [])
    return reply_to(connection, sets.replace_dead(b"step", b"it", needs=needs, death=CAUGHT, plan=plan))


def many(client: redis.Redis) -> None:
    client.rpush("queue:python", "a", "b", "c", "e", "d")


def drop_jobs(connection: Connection) -> Any:
    return connection.call(*scripts.DROP_JOBS.command(("queue:python",), (1, 100, "mark", b"b", b"d", b"none")))


def two_scheduled(client: redis.Redis) -> None:
    client.zadd("schedule", {"a": 1, "b": 2})


def drop_scheduled(connection: Connection) -> Any:
    return connection.call(*scripts.DROP_JOBS.command(("schedule",), (0, 0, "mark", b"b", b"none")))


def committed(client: redis.Redis) -> None:
    client.rpush("swf:fanout:f", "qpython", "{}")
    client.zadd("swf:fanouts", {"f": 1})


def drop_fanout(connection: Connection) -> Any:
    return connection.call(*scripts.DROP_FANOUT.command(("swf:fanouts", "swf:fanout:f"), ("f",)))


def disarm(connection: Connection) -> Any:
    return run_cancel.disarm(connection, [INNER, OUTER, NEW])


def replace(connection: Connection) -> Any:
    """A step of a group is replaced."""
    plan = following(connection)
    replaced = replacements.replace(ME, "a:1", "jid", STACK, ttl=TTL, plan=plan, output=OUTPUT)
    return reply_to(connection, replaced)


def replace_in_chain(connection: Connection) -> Any:
    """A step of a chain is replaced, in a run with a record."""
    plan = following(connection)
    numbers = replacements.Numbers("9", 11, 1, 7, b"{}")
    replaced = replacements.replace(
        ME, "a:1", "jid", STACK[2:], ttl=TTL, plan=plan, output=OUTPUT, record=LAST, numbers=numbers
    )
    return reply_to(connection, replaced)


def replace_first(connection: Connection) -> Any:
    """The only step of a run is replaced."""
    return reply_to(connection, replacements.replace(ME, "a:1", "jid", (), ttl=TTL, plan=following(connection)))


def numbered(client: redis.Redis) -> None:
    running(client)
    client.hset(RECORD, "total", "9")
    client.expire(RECORD, TTL)
    client.expire("swf:flows:running", TTL)
    client.hset(f"{RECORD}:times", "0", "")
    client.expire(f"{RECORD}:times", TTL)


SIGNALS, WAITING = keys.run_signals(RUN), keys.waiting(RUN)


def wait(connection: Connection) -> Any:
    waiting = run_signals.wait(
        *(ME, "a:1", RUN),
        name="approved",
        jid="jid",
        queue="next",
        until=2e9,
        payload=b"parked",
        is_over=False,
        needs=needs_of(INNER),
        record=RECORD,
    )
    return reply_to(connection, waiting)


def parked(client: redis.Redis) -> None:
    numbered(client)
    client.zadd("schedule", {"parked": 2e9})
    client.hset(WAITING, mapping={"approved\njid": "next\nparked", "approved\ngone": "next\ngone", "other\nx": "y\nz"})
    client.expire(WAITING, TTL)


def signal(connection: Connection) -> Any:
    return run_signals.signal(connection, RUN, "approved", b"{}")


CHAINED = f"swf:callbacks:{'c' * 64}"


def store_chain(connection: Connection) -> Any:
    return connection.call(*scripts.STORE_CALLBACKS.command((CHAINED,), (TTL, ":1", ":2")))


def own_chain(connection: Connection) -> Any:
    return connection.call(*scripts.OWN_CALLBACKS.command((CHAINED,), (TTL, INNER, 2)))


def owned(client: redis.Redis) -> None:
    client.hset(CHAINED, mapping={"barrier": INNER, "0": ":1"})
    client.expire(CHAINED, TTL)


def release_chain(connection: Connection) -> Any:
    return connection.call(*scripts.RELEASE_CALLBACKS.command((CHAINED,), (100,)))


def remember(connection: Connection) -> Any:
    return connection.call(*scripts.REMEMBER.command(("swf:mem:run",), (TTL, "field", "1")))


def releasing(client: redis.Redis) -> None:
    """The unit has released its barrier; what follows is enqueued elsewhere."""
    barriers(client, INNER)
    client.set(f"{INNER}:f", "jid", ex=TTL)


def fired(connection: Connection) -> Any:
    return reply_to(connection, foreign_runs.fired([Walk(INNER, "f")]))


def running_with_dead(client: redis.Redis) -> None:
    """A run that failed: its one dead step is number 7."""
    paused(client)
    client.hset(RECORD, "state", "failed")
    client.hset(f"{RECORD}:failed", "7", "{}")
    client.expire(f"{RECORD}:failed", TTL)


def group_of_paused(client: redis.Redis) -> None:
    """The barrier of the group waits for a third member, and is disarmed."""
    paused(client)
    barriers(client, INNER, OUTER, value=3)
    client.set(f"{INNER}_ran", 0, ex=TTL)
    client.hset(DISARMED, INNER, b"python\0fires")


#: The barrier of a group that needs all but one of its members.
NEEDING = "00000001-0000-8000-8000-000000000000"
NEED_STACK = (Walk(NEEDING, "n"), Walk(CHAIN, "f"))


def needing(client: redis.Redis) -> None:
    """A group that needs one more member, and of which another one is dead."""
    running(client)
    client.expire(RECORD, DAY)
    client.expire("swf:flows:running", DAY)
    barriers(client, NEEDING)
    client.sadd(f"{NEEDING}:u", "before")
    client.hset(f"{NEEDING}:d", mapping={"j3": "3", "u3": 1, "n": 1})
    client.hset(f"{RECORD}:failed", "3", "{}")
    client.zadd("dead", {"it": time.time()})
    client.hset(f"{RECORD}:times", "0", "")
    for key in (f"{NEEDING}:u", f"{NEEDING}:d", f"{RECORD}:failed", f"{RECORD}:times"):
        client.expire(key, DAY)


def met(client: redis.Redis) -> None:
    """A group that has all members that it needs."""
    needing(client)
    client.set(NEEDING, 0, ex=TTL)
    client.set(f"{NEEDING}_ran", 0, ex=TTL)


REVIVED = StepRecord(RECORD, "!3 1.000 2.000 1 me")


def advance_needed(connection: Connection) -> Any:
    plan = following(connection)
    return reply_to(
        connection,
        runs.advance(ME, "a:1", "jid", NEED_STACK, ttl=TTL, planned=2, plan=plan, output=OUTPUT, record=REVIVED),
    )


def advance_late(connection: Connection) -> Any:
    return reply_to(connection, runs.advance(ME, "a:1", "jid", NEED_STACK, ttl=TTL, output=OUTPUT, record=REVIVED))


def group_late(connection: Connection) -> Any:
    members = StepGroup(NEED_STACK, TTL, OUTPUT.memory)
    steps = [GroupStep(members, "a:1", "jid", OUTPUT.fields, REVIVED), GroupStep(members, "a:2", "another", {}, LAST)]
    return reply_to(connection, group_steps.advance(ME, steps))


def fail_needed(connection: Connection) -> Any:
    needs = needs_of(CHAIN, NEEDING)
    return reply_to(
        connection, sets.fail(ME, "a:1", "dead", now=time.time(), payload=b"it", needs=needs, death=FAILURE)
    )


def note_needed(connection: Connection) -> Any:
    return reply_to(connection, run_keeping.note_death(FAILURE, b"it", (NEEDING, CHAIN)))


OPERATIONS = [
    Operation(
        "advance_needed",
        needing,
        advance_needed,
        {
            MINE: "hash",
            "swf:mem:run": "hash",
            NEEDING: "string",
            f"{NEEDING}_ran": "string",
            f"{NEEDING}:u": "set",
            CHAIN: "string",
            **PLANNED,
        },
        [b"GONE"],
    ),
    Operation(
        "advance_late",
        met,
        advance_late,
        {MINE: "hash", "swf:mem:run": "hash", NEEDING: "string", f"{NEEDING}:u": "set"},
        [b"GONE"],
    ),
    Operation(
        "group_late",
        met,
        group_late,
        {MINE: "hash", "swf:mem:run": "hash", NEEDING: "string", f"{NEEDING}:u": "set"},
    ),
    Operation("fail_needed", needing, fail_needed, {MINE: "hash", "dead": "zset"}, [b"GONE"]),
    Operation("note_needed", met, note_needed, {}, [b"KNOWN"]),
    Operation(
        "advance",
        in_flight,
        advance,
        {MINE: "hash", "swf:mem:run": "hash", **walked(), **PLANNED},
        [b"GONE"],
    ),
    Operation(
        "advance_kept",
        in_flight,
        alone,
        {MINE: "hash", **walked(), "queue:python": "list"},
        [b"KEPT", b"next"],
    ),
    Operation(
        "chain_step",
        in_flight,
        step("b:1"),
        {MINE: "hash", CHAIN: "string", f"{CHAIN}_ran": "string", "queue:python": "list"},
        [b"KEPT", b"next"],
    ),
    Operation(
        "chain_step_pushed",
        listed,
        step(""),
        {MINE: "hash", CHAIN: "string", f"{CHAIN}_ran": "string", "queue:python": "list", "queues": "set"},
        [b"GONE"],
    ),
    Operation(
        "advance_group",
        group,
        advance_group,
        {MINE: "hash", "swf:mem:run": "hash", INNER: "string", f"{INNER}_ran": "string", f"{INNER}:u": "set"},
    ),
    Operation("advance_member", waiting, advance_member, {MINE: "hash", "swf:mem:run": "hash"}, [b"GONE"]),
    Operation("start", lambda client: None, start, {"swf:mem:run": "hash", **PLANNED}, [b"STARTED"]),
    Operation("release", in_flight, release, {MINE: "hash", "swf:mem:run": "hash", **PLANNED}, [b"GONE"]),
    Operation("count", in_flight, count, {"swf:mem:run": "hash", **walked(":f"), **PLANNED}),
    Operation("count_member", waiting, count_member, {"swf:mem:run": "hash"}),
    Operation("fail_retry", in_flight, fail("retry"), {MINE: "hash", "retry": "zset"}, [b"GONE"]),
    Operation("fail_dead", in_flight, fail("dead"), {MINE: "hash", "dead": "zset"}, [b"GONE"]),
    Operation("fail_discard", in_flight, fail("discard"), {MINE: "hash"}, [b"GONE"]),
    Operation("fail_caught", caught, fail_caught("dead"), {MINE: "hash", "dead": "zset", **PLANNED}, [b"GONE"]),
    Operation("discard_caught", caught, fail_caught("discard"), {MINE: "hash", **PLANNED}, [b"GONE"]),
    Operation("bury", in_flight, bury, {"dead": "zset"}),
    Operation("bury_caught", caught, bury_caught, {"dead": "zset", **PLANNED}),
    Operation("replace_dead", caught, replace_dead, {"dead": "zset", "queues": "set", "queue:next": "list"}, [b"GONE"]),
    Operation("fetch", queued, fetch, {"queue:python": "list", MINE: "hash", "swf:workers": "zset"}),
    Operation("fetch_arrived", arrived, fetch, {"queue:python": "list"}),
    Operation("begin", fetched_ahead, begin, {MINE: "hash"}),
    Operation("requeue", in_flight, requeue, {MINE: "hash", "queue:python": "list"}, 0),
    Operation("recover", died, recover, {ITS: "hash", "queue:python": "list"}, workers.RecoveryResult()),
    Operation("trial", suspected, trial, {"swf:workers": "zset", MINE: "hash", ITS: "hash"}),
    Operation("push", lambda client: None, push, {"queues": "set", "queue:next": "list"}, 0),
    Operation("schedule", lambda client: None, schedule, {"schedule": "zset"}, 0),
    Operation(
        "resume",
        failed,
        resume,
        {"dead": "zset", "queues": "set", "queue:next": "list", **stacked("", "_ran", ":u")},
        [b"GONE"],
    ),
    Operation(
        "show", lambda client: None, show, {"processes": "set", "host:1:abc": "hash", "host:1:abc-signals": "list"}
    ),
    Operation("store_chain", lambda client: None, store_chain, {}, 0),
    Operation("own_chain", lambda client: None, own_chain, {}, 1),
    Operation("release_chain", owned, release_chain, {}, 0),
    Operation("remember", lambda client: None, remember, {}),
    Operation("fired", releasing, fired, {}, 0),
    Operation("cancel", running, cancel, {RECORD: "hash", "swf:cancelled": "zset"}, [b"ENDED", b"cancelled"]),
    Operation("cancel_calling", calling, cancel, {RECORD: "hash", "swf:cancelled": "zset"}, [b"ENDED", b"cancelled"]),
    Operation("fail_calling", calling, fail_calling, {MINE: "hash", "dead": "zset"}, [b"GONE"]),
    Operation("fail_adopting", in_flight, fail_adopting, {MINE: "hash", "dead": "zset"}, [b"GONE"]),
    Operation("bury_calling", calling, bury_calling, {"dead": "zset"}),
    Operation("finish_calling", calling, finish_calling, {MINE: "hash"}, [b"GONE"]),
    Operation("note_death", calling, note_death, {}, [b"KNOWN"]),
    Operation("keep", calling_failed, keep, {}),
    Operation("call_back", calling_failed, call_back, {}),
    Operation(
        "start_unique",
        lambda client: None,
        start_unique,
        {RECORD: "hash", "swf:unique:k": "string", "swf:deadlines": "zset", **PLANNED},
        [b"STARTED"],
    ),
    Operation("mark_dead", lost, mark_dead, {}),
    Operation("advance_cancelled", cancelled, advance_cancelled, {MINE: "hash", "swf:mem:run": "hash"}, [b"GONE"]),
    Operation("step_cancelled", cancelled, step_cancelled, {MINE: "hash"}, [b"GONE"]),
    Operation("group_cancelled", cancelled, group_cancelled, {MINE: "hash", "swf:mem:run": "hash"}),
    Operation("count_cancelled", cancelled, count_cancelled, {"swf:mem:run": "hash"}),
    Operation("release_cancelled", cancelled, release_cancelled, {MINE: "hash", "swf:mem:run": "hash"}, [b"GONE"]),
    Operation("fail_cancelled", cancelled, fail_cancelled, {MINE: "hash"}, [b"GONE"]),
    Operation("drop_jobs", many, drop_jobs, {}, 0),
    Operation("drop_scheduled", two_scheduled, drop_scheduled, {}, 0),
    Operation("drop_fanout", committed, drop_fanout, {"swf:fanouts": "zset", "swf:fanout:f": "list"}, 0),
    Operation("disarm", in_flight, disarm, {}, 0),
    Operation("replace", in_flight, replace, {MINE: "hash", "swf:mem:run": "hash", **PLANNED}, [b"GONE"]),
    Operation(
        "replace_in_chain",
        numbered,
        replace_in_chain,
        {MINE: "hash", "swf:mem:run": "hash", CHAIN: "string", f"{CHAIN}_ran": "string", **PLANNED},
        [b"GONE"],
    ),
    Operation("replace_first", in_flight, replace_first, {MINE: "hash", **PLANNED}, [b"GONE"]),
    Operation("replace_cancelled", cancelled, replace_in_chain, {MINE: "hash", "swf:mem:run": "hash"}, [b"GONE"]),
    Operation(
        "replace_paused",
        paused_numbered,
        replace_in_chain,
        {MINE: "hash", "swf:mem:run": "hash", CHAIN: "string", f"{CHAIN}_ran": "string", PARKED: "list"},
        [b"GONE"],
    ),
    Operation("wait_paused", paused, wait, {MINE: "hash", SIGNALS: "hash", PARKED: "list"}, [b"GONE"]),
    Operation("wait", numbered, wait, {MINE: "hash", "schedule": "zset", SIGNALS: "hash", WAITING: "hash"}, [b"GONE"]),
    Operation(
        "signal",
        parked,
        signal,
        {SIGNALS: "hash", WAITING: "hash", "schedule": "zset", "queues": "set", "queue:next": "list"},
    ),
    Operation("pause", running, pause, {RECORD: "hash", "swf:cancelled": "zset"}, [b"ENDED", b"paused"]),
    Operation("unpause", paused, unpause, {RECORD: "hash"}, [b"ENDED", b"running"]),
    Operation("park", paused, park, {MINE: "hash", PARKED: "list"}, [b"GONE"]),
    Operation("park_jobs", paused, park_jobs, {PARKED: "list"}, 0),
    Operation("park_scheduled", paused, park_scheduled, {PARKED: "list"}, 0),
    Operation("park_fanout", paused, park_fanout, {"swf:fanouts": "zset", "swf:fanout:f": "list", PARKED: "list"}, 0),
    Operation(
        "unpark",
        resumed,
        unpark,
        {PARKED: "list", "queues": "set", "queue:next": "list", "schedule": "zset", "retry": "zset"},
    ),
    Operation("hold_barriers", paused, hold_barriers, {DISARMED: "hash"}, 0),
    Operation("rearm", resumed, rearm, {DISARMED: "hash", "queues": "set", "queue:next": "list"}),
    Operation(
        "retry_dead", running_with_dead, retry_dead, {"dead": "zset", "queues": "set", "queue:next": "list"}, [b"GONE"]
    ),
    Operation("retry_parked", paused, retry_dead, {"dead": "zset", PARKED: "list"}, [b"GONE"]),
    Operation(
        "restart", ended, restart, {"dead": "zset", RECORD: "hash", "swf:unique:k": "string", **PLANNED}, [b"GONE"]
    ),
    Operation("note_repeat", ended, note_repeat, {RECORD: "hash"}),
    Operation(
        "advance_paused",
        paused,
        advance_cancelled,
        {MINE: "hash", "swf:mem:run": "hash", PARKED: "list", **walked()},
        [b"GONE"],
    ),
    Operation("step_paused", paused_alone, step_cancelled, {MINE: "hash", PARKED: "list"}, [b"GONE"]),
    Operation("group_paused", group_of_paused, group_cancelled, {MINE: "hash", INNER: "string", f"{INNER}:u": "set"}),
    Operation("count_paused", paused, count_cancelled, {"swf:mem:run": "hash", PARKED: "list", **walked(":f")}),
    Operation("release_paused", paused, release_cancelled, {MINE: "hash", PARKED: "list"}, [b"GONE"]),
    Operation("promote_schedule", due("schedule"), promote("schedule"), {}, sets.Promoted(0, [], [])),
    Operation("promote_retry", due("retry"), promote("retry"), {}, sets.Promoted(0, [], [])),
]

NAMED = {operation.name: operation for operation in OPERATIONS}
