"""Strict and weighted order of one process's queues, and queues that are paused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import SidekiqBroker

from ..running import eventually, in_flight, members, working


class Site:
    """Actors on three queues which note that they ran; ``gate`` holds the only thread until it is opened."""

    def __init__(self, url: str, order: Any) -> None:
        self.broker = SidekiqBroker(url=url, poll_interval=50, queue_order=order)
        self.log: list[str] = []
        self.opened = threading.Event()
        self.actors = {name: self._actor(name) for name in ("high", "low", "other")}

        @dramatiq.actor(actor_name="gate", queue_name="gate", broker=self.broker)
        def gate() -> None:
            assert self.opened.wait(60)

        self.gate = gate

    def _actor(self, name: str) -> Any:
        def note() -> None:
            self.log.append(name)

        return dramatiq.actor(actor_name=name, queue_name=name, broker=self.broker)(note)

    def send(self, name: str, count: int) -> None:
        for _ in range(count):
            self.actors[name].send()

    def held(self, client: redis.Redis) -> int:
        """How many jobs are in this process."""
        return len(in_flight(client))


@pytest.fixture
def strict(redis_url: str) -> Iterator[Site]:
    site = Site(redis_url, ["gate", "high", "low"])
    yield site
    site.broker.close()


def test_strict_order(strict: Site, client: redis.Redis) -> None:
    strict.gate.send()
    for name in ("other", "low", "high"):
        strict.send(name, 40)
    with working(strict.broker, threads=1):
        eventually(lambda: strict.broker.process.execution_stats.running())
        strict.opened.set()
        eventually(lambda: len(strict.log) == 120)
    assert strict.log == ["high"] * 40 + ["low"] * 40 + ["other"] * 40


def test_a_lower_queue_is_not_fetched_from_while_a_higher_one_has_jobs(strict: Site, client: redis.Redis) -> None:
    """So that other processes can have its jobs."""
    strict.gate.send()
    strict.send("high", 40)
    strict.send("low", 40)
    with working(strict.broker, threads=1) as worker:
        eventually(lambda: strict.broker.process.execution_stats.running() and worker.work_queue.qsize())
        assert not strict.broker.process.may_fetch("low")
        assert strict.broker.process.may_fetch("high")
        assert len(members(client, "low")) == 40
        strict.opened.set()
        eventually(lambda: strict.log.count("low") == 40)
    assert strict.log == ["high"] * 40 + ["low"] * 40


def test_a_job_that_comes_later_goes_first(strict: Site, client: redis.Redis) -> None:
    strict.gate.send()
    with working(strict.broker, threads=1):
        eventually(lambda: strict.broker.process.execution_stats.running())
        strict.send("low", 2)
        eventually(lambda: strict.held(client) == 3)
        strict.send("high", 2)
        eventually(lambda: strict.held(client) == 5)
        strict.opened.set()
        eventually(lambda: len(strict.log) == 4)
    assert strict.log == ["high", "high", "low", "low"]


def test_a_higher_queue_that_cannot_be_read_holds_nothing_up(strict: Site, client: redis.Redis) -> None:
    client.set("queue:high", "of another type")
    strict.send("low", 3)
    with working(strict.broker):
        eventually(lambda: len(strict.log) == 3)


def test_a_higher_queue_that_is_paused_holds_nothing_up(strict: Site, client: redis.Redis) -> None:
    strict.broker.pause_queue("high")
    strict.send("high", 3)
    strict.send("low", 3)
    with working(strict.broker):
        eventually(lambda: strict.log == ["low"] * 3)
        strict.broker.unpause_queue("high")
        eventually(lambda: strict.log == ["low"] * 3 + ["high"] * 3)


def test_weighted_order(redis_url: str, client: redis.Redis) -> None:
    """While both have jobs waiting in the process, the shares are those of the weights."""
    site = Site(redis_url, {"high": 3, "low": 1})
    site.gate.send()
    with working(site.broker, threads=1) as worker:
        eventually(lambda: site.broker.process.execution_stats.running())
        # As many as are fetched before any has run: the prefetch of one thread.
        for name in ("low", "high"):
            site.send(name, 2)
        eventually(lambda: site.held(client) == 5 and worker.work_queue.qsize() == 4)
        site.opened.set()
        eventually(lambda: len(site.log) == 4)
    # One turn each, then the heavier one's second comes long before the lighter one's.
    assert sorted(site.log[:2]) == ["high", "low"]
    assert site.log[2:] == ["high", "low"]
    site.broker.close()


def test_all_queues_are_served_without_an_order(redis_url: str) -> None:
    site = Site(redis_url, None)
    for name in ("low", "high", "other"):
        site.send(name, 5)
    with working(site.broker):
        eventually(lambda: len(site.log) == 15)
    site.broker.close()


def test_a_paused_queue_is_left_alone(strict: Site, client: redis.Redis) -> None:
    """As Sidekiq Pro's Queue#pause! does it, by hand."""
    client.sadd("paused", "high")
    strict.send("high", 3)
    with working(strict.broker):
        strict.send("low", 1)
        eventually(lambda: strict.log == ["low"])
        assert len(members(client, "high")) == 3
        client.srem("paused", "high")
        eventually(lambda: strict.log.count("high") == 3)


def test_a_queue_paused_while_its_consumer_waits(strict: Site, client: redis.Redis) -> None:
    with working(strict.broker):
        strict.send("high", 1)
        eventually(lambda: strict.log == ["high"])
        client.sadd("paused", "high")
        strict.send("high", 1)
        strict.send("low", 1)
        eventually(lambda: "low" in strict.log)
        assert len(members(client, "high")) == 1
        client.srem("paused", "high")
        eventually(lambda: strict.log.count("high") == 2)


def test_a_key_of_another_type_pauses_nothing(strict: Site, client: redis.Redis) -> None:
    client.set("paused", "high")
    strict.send("high", 1)
    with working(strict.broker):
        eventually(lambda: strict.log == ["high"])
