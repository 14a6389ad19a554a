"""Everything is bad but twenty good jobs: they are done, nothing is lost, and the log can be read."""

from __future__ import annotations

import time
from collections.abc import Iterator

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, RedisHashMemory, SidekiqBroker, Workflow, WorkflowMiddleware

from ..corpus import loader
from ..running import eventually, working
from .log_lines import Lines, logged

GOOD = 20

#: Lines in the log, in any one second.
MAX_LINES = 50

#: The corpus without its largest members.
MEMBERS = [member.raw for member in loader.members() if len(member.raw) < 10_000]


@pytest.fixture
def lines() -> Iterator[Lines]:
    with logged() as lines:
        yield lines


class Site:
    """A broker with one good actor."""

    def __init__(self, url: str, client: redis.Redis) -> None:
        self.client = client
        self.broker = SidekiqBroker(url=url, poll_interval=100, heartbeat_timeout=1_000)
        self.broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
        dramatiq.set_broker(self.broker)
        self.done: list[int] = []

        @dramatiq.actor(queue_name="default", actor_name="good")
        def good(number: int) -> None:
            self.done.append(number)

        self.good = good

    def send_good(self) -> None:
        for number in range(GOOD // 2):
            self.good.send(number)
        for number in range(GOOD // 2, GOOD):
            self.good.send_with_options(args=(number,), delay=50)

    @property
    def all_done(self) -> bool:
        return set(self.done) >= set(range(GOOD))


@pytest.fixture
def site(redis_url: str, client: redis.Redis) -> Iterator[Site]:
    site = Site(redis_url, client)
    yield site
    site.broker.process.heartbeat.stop()
    site.broker.close()


def test_bad_members_of_dead_and_of_the_registries(site: Site, client: redis.Redis, lines: Lines) -> None:
    members = [*{*MEMBERS}]
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
        beats = site.broker.process.heartbeat.interval
        assert beats < 1
        time.sleep(3 * beats)  # some heartbeats look at all of it
        # Steps whose class only a bad entry knows.
        Workflow(Chain(site.good.message(100), site.good.message(101))).run()
        eventually(lambda: 101 in site.done)
    assert client.zcard("dead") == len(members)
    assert lines.most < MAX_LINES, lines.texts[-100:]
