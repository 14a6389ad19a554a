"""The short way of ``advance.lua`` past a step of a chain does the same as the long one, in all that may be there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from dramatiq_sidekiq_flow.store import runs, scripts
from dramatiq_sidekiq_flow.store.connection import Connection
from dramatiq_sidekiq_flow.store.runs import MemoryKey, Output, Walk
from dramatiq_sidekiq_flow.store.step_records import NO_STEP, StepRecord
from dramatiq_sidekiq_flow.wire.barrier import NewBarrier

from ..operations import CHAIN, DAY, INNER, ME, MINE, NEW, TTL
from .test_scripts import everything

MEMORY = "swf:mem:run"
RECORD = "swf:flow:run"
Change = Callable[[Any], Any]


def nothing(client: Any) -> None:
    """All is as usual."""


#: Changes of what is as usual in Redis: each list holds those of one key.
STATES: list[list[Change]] = [
    [
        nothing,
        lambda client: client.delete(CHAIN),
        lambda client: client.set(CHAIN, 0, ex=TTL),
        lambda client: client.set(CHAIN, 2, ex=TTL),
        lambda client: client.set(CHAIN, "x", ex=TTL),
        lambda client: (client.delete(CHAIN), client.sadd(CHAIN, "x")),
    ],
    [
        nothing,
        lambda client: client.delete(f"{CHAIN}_ran"),
        lambda client: client.set(f"{CHAIN}_ran", 0, ex=TTL),
    ],
    [
        nothing,
        lambda client: client.lpush("queue:python", "other"),
        lambda client: client.set("queue:python", "text"),
    ],
    [nothing, lambda client: client.sadd("paused", "python"), lambda client: client.set("paused", "text")],
    [
        nothing,
        lambda client: client.delete("queues"),
        lambda client: (client.delete("queues"), client.set("queues", "text")),
    ],
    [
        nothing,
        lambda client: client.delete(MEMORY),
        lambda client: client.persist(MEMORY),
        lambda client: client.expire(MEMORY, 100),
        lambda client: client.expire(MEMORY, TTL - 4000),
        lambda client: (client.expire(MEMORY, 100), client.set(f"swf:keep:{MEMORY}", 1, ex=2 * TTL)),
        lambda client: client.set(MEMORY, "text", ex=TTL),
        lambda client: client.set(MEMORY, "text"),
    ],
    [
        nothing,
        lambda client: client.delete(RECORD),
        lambda client: client.hset(RECORD, "state", "failed"),
        lambda client: client.set(RECORD, "text"),
        lambda client: (client.delete(f"{RECORD}:times"), client.set(f"{RECORD}:times", "text")),
        lambda client: (client.delete(f"{RECORD}:failed"), client.set(f"{RECORD}:failed", "text")),
    ],
    [
        nothing,
        lambda client: client.hdel(MINE, "a:1"),
        lambda client: (client.hdel(MINE, "a:1"), client.hset(MINE, "b:1", "kept before")),
        lambda client: client.delete(MINE),
        lambda client: client.set(MINE, "text"),
    ],
]


def options(**changes: Any) -> dict[str, Any]:
    """What a call is given; the usual unless changed."""
    usual = {
        "walk": [Walk(CHAIN, "f")],
        "fields": 0,
        "memory": MemoryKey(MEMORY, DAY),
        "barriers": [NewBarrier(NEW, 1, TTL)],
        "pushes": {"python": [b"next"]},
        "scheduled": [],
        "planned": 1,
        "keep": "b:1",
        "record": NO_STEP,
    }
    return {**usual, **changes}


CALLS = {
    "usual": options(),
    "pushed": options(keep=""),
    "last": options(barriers=[]),
    "recorded": options(record=StepRecord(RECORD, "7 1.5 2.5 0 host:1:abc")),
    "recorded-bit": options(record=StepRecord(RECORD, "1234")),
    "recorded-without-a-number": options(record=StepRecord(RECORD)),
    "recorded-after-a-failure": options(record=StepRecord(RECORD, "!7 1.5 2.5 1 host:1:abc")),
    "recorded-bit-after-a-failure": options(record=StepRecord(RECORD, "!1234")),
    "recorded-and-prolonged": options(record=StepRecord(RECORD, "50 1.5 2.5 0 host:1:abc")),
    "output": options(fields=2),
    "many-outputs": options(fields=5000),
    "without-memory": options(memory=MemoryKey()),
    "memory-for-long": options(memory=MemoryKey(MEMORY, 2 * TTL)),
    "released-barrier": options(barriers=[NewBarrier(NEW, 0, DAY)]),
    "group": options(barriers=[NewBarrier(NEW, 2, TTL)], pushes={"python": [b"1", b"2"]}, keep=""),
    "two-barriers": options(barriers=[NewBarrier(NEW, 1, TTL), NewBarrier(INNER, 1, TTL)]),
    "two-queues": options(pushes={"python": [b"1"], "other": [b"2"]}, keep=""),
    "delayed": options(pushes={}, scheduled=[(2e9, b"later")], keep=""),
    "also-delayed": options(scheduled=[(2e9, b"later")], keep=""),
    "no-plan": options(planned=0, barriers=[], pushes={}, keep=""),
    "another-plan": options(planned=2),
    "of-a-group": options(walk=[Walk(CHAIN, "n")], planned=0, barriers=[], pushes={}, keep=""),
    "of-a-group-with-a-plan": options(walk=[Walk(CHAIN, "n")]),
    "in-a-group": options(walk=[Walk(CHAIN, "f"), Walk(INNER, "n")]),
}


def prepare(client: Any) -> None:
    client.hset(MINE, "a:1", "job")
    for barrier in (CHAIN, INNER):
        client.set(barrier, 1, ex=TTL)
        client.set(f"{barrier}_ran", -1, ex=TTL)
    client.sadd("queues", "python")
    client.hset(MEMORY, "before", "1")
    client.expire(MEMORY, TTL)
    client.hset(RECORD, mapping={"state": "running", "started": "1.5"})
    client.hset(f"{RECORD}:times", "0", "")
    client.hset(f"{RECORD}:failed", mapping={"7": "{}"})
    for part in ("", ":times", ":failed"):
        client.expire(f"{RECORD}{part}", TTL - 5000)


def command(connection: Connection, call: dict[str, Any]) -> scripts.Command:
    output = Output(call["memory"], {f"field {n}": b"%d" % n for n in range(call["fields"])})
    plan = runs.writes(connection, call["barriers"], call["pushes"], call["scheduled"])
    operation = runs.advance(
        ME,
        "a:1",
        "jid",
        call["walk"],
        ttl=TTL,
        output=output,
        planned=call["planned"],
        plan=plan,
        keep=call["keep"],
        record=call["record"],
    )
    return operation.command


def only_long(name: str) -> str:
    """A file of Lua; the short way is left out."""
    return "local function chain_step() end\n" if name == "_chain_step" else scripts.read_file(name)


LONG = scripts.resolve("advance", only_long)


def states() -> Iterator[list[Change]]:
    """Each state that differs from the usual one in two keys at most."""
    yield []
    for changes in STATES:
        yield from ([change] for change in changes[1:])
    for one, other in itertools.combinations(STATES, 2):
        yield from (list(pair) for pair in itertools.product(one[1:], other[1:]))


def forget_times(client: Any) -> None:
    """Remove the time at which a record was made."""
    if client.type(RECORD) == b"hash" and client.hexists(RECORD, "adopted"):
        client.hdel(RECORD, "started")
        client.zadd("swf:flows:running", {"run": 0})


@pytest.mark.parametrize("name", CALLS)
def test_it_does_what_the_long_way_does(connection: Connection, client: Any, name: str) -> None:
    call = CALLS[name]
    short = command(connection, call)
    long = ("EVAL", LONG, *short[2:])
    few = name not in ("usual", "pushed", "output", "recorded")
    for changes in states():
        if few and len(changes) > 1:
            continue
        found = []
        for way in (short, long):
            client.flushdb()
            prepare(client)
            for change in changes:
                change(client)
            replies = []
            for _ in range(2):
                try:
                    replies.append(connection.call(*way))
                except redis.ResponseError as e:
                    replies.append(str(e).partition(" script")[0])
            forget_times(client)
            found.append((replies, everything(client)))
        assert found[0] == found[1], changes


@pytest.mark.parametrize(
    "name", ["usual", "pushed", "last", "output", "without-memory", "recorded", "recorded-without-a-number"]
)
def test_it_is_taken(connection: Connection, client: Any, name: str) -> None:
    prepare(client)
    kept = CALLS[name]["keep"] != ""
    begins = "local function read_barrier"
    broken = scripts.ADVANCE.source.replace(begins, f"error('the long way')\n{begins}")
    reply = connection.call("EVAL", broken, *command(connection, CALLS[name])[2:])
    assert reply == [b"KEPT" if kept else b"DONE"]
