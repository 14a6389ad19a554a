"""Everything is bad but twenty good jobs: they are done, nothing is lost, and the log can be read."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, RedisHashMemory, SidekiqBroker, Workflow, WorkflowMiddleware

from ..running import eventually, working

GOOD = 20

#: Lines in the log, in any one second.
MAX_LINES = 50

UUID = "224a1be4-c469-4117-94af-8540a8358a95"
NODE = {"__type__": "job", "class": "good", "args": [-1]}

VALUES: list[Any] = [
    None,
    True,
    -1,
    10**400,
    1.5e300,
    "",
    "\ud800",
    "x" * 2000,
    [],
    [[]],
    {},
    {"a": {"b": None}},
]
FIELDS = (
    *("class", "args", "jid", "queue", "retry", "created_at", "enqueued_at", "failed_at", "retry_count", "retry_for"),
    *("retry_queue", "tags", "backtrace", "wrapped", "dramatiq", "at", "workflow_run_id"),
    "workflow_completion_callbacks",
)


def raw(**changes: Any) -> bytes:
    job = {"class": "bad", "args": [0], "jid": "b" * 24, "queue": "default", "retry": 0, **changes}
    return json.dumps(job).encode()


def bad_members() -> list[bytes]:
    """More than 150, each another one."""
    found = [raw(**{field: value, "n": f"{field} {n}"}) for field in FIELDS for n, value in enumerate(VALUES)]
    found += [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"text"', b"1e999", b"[" * 20_000, b'{"class": "bad"}', b"{}"]
    found += [raw(workflow_completion_callbacks=[[UUID, {**NODE, "queue": value}, False]]) for value in ([], 5, {}, "")]
    assert len({*found}) == len(found) >= 150
    return found


class Lines(logging.Handler):
    """Counts lines by the second in which they were logged."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: Counter[int] = Counter()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seconds[int(record.created)] += 1
        self.texts.append(record.getMessage())

    @property
    def most(self) -> int:
        return max(self.seconds.values(), default=0)


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines = Lines()
    logging.getLogger().addHandler(lines)
    yield lines
    logging.getLogger().removeHandler(lines)


class Site:
    """A broker with one good actor, and one that runs what is bad in form only."""

    def __init__(self, url: str, client: redis.Redis) -> None:
        self.client = client
        self.broker = SidekiqBroker(url=url, poll_interval=100, heartbeat_timeout=1_000)
        self.broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
        dramatiq.set_broker(self.broker)
        self.done: list[int] = []
        self.ran: list[Any] = []

        @dramatiq.actor(queue_name="default", actor_name="good")
        def good(number: int) -> None:
            self.done.append(number)

        @dramatiq.actor(queue_name="default", actor_name="bad", max_retries=0)
        def bad(*args: Any) -> None:
            self.ran.append(args)

        self.good = good

    def send_good(self) -> None:
        for number in range(GOOD // 2):
            self.good.send(number)
        for number in range(GOOD // 2, GOOD):
            self.good.send_with_options(args=(number,), delay=50)

    @property
    def all_done(self) -> bool:
        return set(self.done) >= set(range(GOOD))

    def settled(self) -> int:
        """How many of the bad ones have ended: run, or in ``dead`` or ``retry`` under a named error."""
        ended = len(self.ran)
        for name in ("dead", "retry"):
            for member in self.client.zrange(name, 0, -1):
                ended += b'"error_class"' in member
        return ended


@pytest.fixture
def site(redis_url: str, client: redis.Redis) -> Iterator[Site]:
    site = Site(redis_url, client)
    yield site
    site.broker.heartbeat.stop()
    site.broker.close()


def in_queue(client: redis.Redis, members: list[bytes]) -> None:
    client.lpush("queue:default", *members)


def in_schedule(client: redis.Redis, members: list[bytes]) -> None:
    client.zadd("schedule", dict.fromkeys(members, 1.0))


def in_retry(client: redis.Redis, members: list[bytes]) -> None:
    client.zadd("retry", dict.fromkeys(members, 1.0))


def in_flight_of_the_dead(client: redis.Redis, members: list[bytes]) -> None:
    client.zadd("swf:workers", {"gone:1:abc:default": 1.0})
    client.hset("swf:inflight:gone:1:abc:default", mapping={f"{n:x}:1?": raw for n, raw in enumerate(members)})


@pytest.mark.parametrize("put", [in_queue, in_schedule, in_retry, in_flight_of_the_dead], ids=lambda put: put.__name__)
def test_bad_members(
    site: Site, client: redis.Redis, lines: Lines, put: Callable[[redis.Redis, list[bytes]], None]
) -> None:
    members = bad_members()
    put(client, members)
    site.send_good()
    with working(site.broker, threads=4):
        eventually(lambda: site.all_done, what="the good jobs")
        # What says another queue is there, for whoever consumes it.
        others = [key for key in client.keys("queue:*") if key != b"queue:default"]
        eventually(
            lambda: site.settled() + sum(client.llen(key) for key in others) >= len(members),
            what="the end of each bad one",
        )
    assert lines.most < MAX_LINES, lines.texts[-100:]
    assert not any("found a bug" in text for text in lines.texts)


def test_bad_members_of_dead_and_of_the_registries(site: Site, client: redis.Redis, lines: Lines) -> None:
    members = bad_members()
    now = time.time()
    client.zadd("dead", {raw: now - n for n, raw in enumerate(members)})
    client.zadd("swf:workers", dict.fromkeys(members, 1.0))
    client.hset("swf:registry:ruby", mapping={f"Docs::Bad{n}": raw for n, raw in enumerate(members)})
    client.hset("swf:registry:python", mapping={raw[:200]: raw for raw in members})
    client.sadd("processes", *members)
    client.sadd("paused", *members)
    site.send_good()
    with working(site.broker, threads=4):
        eventually(lambda: site.all_done, what="the good jobs")
        beats = site.broker.heartbeat.interval
        assert beats < 1
        time.sleep(3 * beats)  # some heartbeats look at all of it
        # Steps whose class only a bad entry knows.
        Workflow(Chain(site.good.message(100), site.good.message(101))).run()
        eventually(lambda: 101 in site.done)
    assert client.zcard("dead") == len(members)
    assert lines.most < MAX_LINES, lines.texts[-100:]


KEYS = (
    *("queue:default", "queue:other", "queues", "schedule", "retry", "dead", "processes", "paused", "process_cleanup"),
    *("swf:workers", "swf:registry:ruby", "swf:registry:python", "stat:processed", "stat:failed", "swf:inflight:OWN"),
    *("swf:inflight:gone:1:abc:default", "OWN", "OWN:work", "OWN-signals", "swf:flushed:OWN"),
)
TYPES: dict[str, Callable[[redis.Redis, str], Any]] = {
    "string": lambda client, key: client.set(key, "text"),
    "hash": lambda client, key: client.hset(key, "a", "b"),
    "list": lambda client, key: client.lpush(key, "a"),
    "set": lambda client, key: client.sadd(key, "a"),
    "zset": lambda client, key: client.zadd(key, {"a": 1.0}),
}
#: Without these nothing good can be done: the jobs' own queue, and the worker's own record in Redis.
NEEDED = {"queue:default", "queues", "schedule", "swf:workers", "swf:inflight:OWN"}
RIGHT = {
    "queue:default": "list", "queue:other": "list", "queues": "set", "schedule": "zset", "retry": "zset",
    "dead": "zset", "processes": "set", "paused": "set", "process_cleanup": "string", "swf:workers": "zset",
    "swf:registry:ruby": "hash", "swf:registry:python": "hash", "stat:processed": "string", "stat:failed": "string",
    "swf:inflight:OWN": "hash", "swf:inflight:gone:1:abc:default": "hash", "OWN": "hash", "OWN:work": "hash",
    "OWN-signals": "list", "swf:flushed:OWN": "string",
}  # fmt: skip
WRONG = [(key, kind) for key in KEYS for kind in ("string", "hash") if kind != RIGHT[key]]


def test_there_are_enough_wrong_keys() -> None:
    assert len(WRONG) >= 30


@pytest.mark.parametrize(("key", "kind"), WRONG, ids=[f"{key} as {kind}" for key, kind in WRONG])
def test_a_shared_key_of_another_type(site: Site, client: redis.Redis, lines: Lines, key: str, kind: str) -> None:
    name = key.replace("OWN", site.broker.heartbeat.identity)
    if key == "swf:inflight:OWN":
        name += ":default"
    if key == "swf:inflight:gone:1:abc:default":
        client.zadd("swf:workers", {"gone:1:abc:default": 1.0})
    if key not in NEEDED:
        site.send_good()
    TYPES[kind](client, name)
    with working(site.broker, threads=4):
        if key in NEEDED:
            time.sleep(0.5)  # it meets the key, again and again
            assert client.type(name) == kind.encode()
            client.delete(name)
            site.send_good()
        eventually(lambda: site.all_done, what="the good jobs")
    assert lines.most < MAX_LINES, lines.texts[-100:]
    assert not any("found a bug" in text for text in lines.texts)
