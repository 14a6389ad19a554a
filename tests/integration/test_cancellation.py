"""Jobs that a person cancels, as Sidekiq's iterable jobs are cancelled."""

from __future__ import annotations

import threading
import time
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.middleware import AsyncIO

from dramatiq_sidekiq_flow import Chain, SidekiqBroker, Workflow, cancelled

from ..running import eventually, members, working


def ruby_cancels(client: redis.Redis, jid: str) -> None:
    """``Sidekiq::IterableJob#cancel!``"""
    client.hsetnx(f"it-{jid}", "cancelled", int(time.time()))
    client.expire(f"it-{jid}", 30 * 86_400)


def test_cancelled_before_it_begins(broker: SidekiqBroker, client: redis.Redis) -> None:
    log: list[str] = []

    @dramatiq.actor(queue_name="python", cancellable=True)
    def export(name: str) -> None:
        log.append(name)

    @dramatiq.actor(queue_name="python")
    def after() -> None:
        log.append("after")

    Workflow(Chain(export.message("first"), after.message())).run()
    (first,) = members(client, "python")
    ruby_cancels(client, first["jid"])
    with working(broker):
        eventually(lambda: log, what="the next step")
        broker.join("python", timeout=20_000)
    assert log == ["after"]
    assert not client.exists("retry", "dead")
    assert (client.get("stat:processed"), client.get("stat:failed")) == (b"2", b"0")


def test_cancelled_while_it_runs(broker: SidekiqBroker, client: redis.Redis) -> None:
    began, ended = threading.Event(), threading.Event()

    @dramatiq.actor(queue_name="python", cancellable=True)
    def export() -> None:
        began.set()
        eventually(lambda: cancelled(interval=10))
        ended.set()

    with working(broker):
        message = export.send()
        assert began.wait(20)
        ruby_cancels(client, message.message_id)
        assert ended.wait(20)


def test_an_async_actor_hears_it_too(broker: SidekiqBroker, client: redis.Redis) -> None:
    import asyncio

    broker.add_middleware(AsyncIO())
    began, ended = threading.Event(), threading.Event()

    @dramatiq.actor(queue_name="python", cancellable=True)
    async def export() -> None:
        began.set()
        while not cancelled(interval=10):
            await asyncio.sleep(0.01)
        ended.set()

    with working(broker):
        message = export.send()
        assert began.wait(20)
        broker.cancel(message.message_id)
        assert ended.wait(20)


def test_redis_is_not_asked_each_time(
    broker: SidekiqBroker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    answers: list[bool] = []

    def none_is(_: Any, jid: str) -> bool:
        asked.append(jid)
        return False

    monkeypatch.setattr("dramatiq_sidekiq_flow.store.processes.cancelled", none_is)

    @dramatiq.actor(queue_name="python", cancellable=True)
    def export() -> None:
        answers.extend(cancelled(interval=3_600_000) for _ in range(100))

    with working(broker):
        message = export.send()
        eventually(lambda: len(answers) == 100)
    assert not any(answers)
    assert asked == [message.message_id]


def test_other_actors_are_not_concerned(broker: SidekiqBroker, client: redis.Redis) -> None:
    heard: list[bool] = []

    @dramatiq.actor(queue_name="python")
    def export() -> None:
        heard.append(cancelled(interval=0))

    @dramatiq.actor(queue_name="python", cancellable=True)
    def other() -> None: ...

    message = export.send()
    ruby_cancels(client, message.message_id)
    with working(broker, threads=1):
        other.send()
        broker.join("python", timeout=20_000)
        export.send()
        broker.join("python", timeout=20_000)
    assert heard == [False, False]


def test_both_programs_write_the_same(broker: SidekiqBroker, client: redis.Redis) -> None:
    ruby_cancels(client, "ruby")
    broker.cancel("python")
    python, ruby = client.hgetall("it-python"), client.hgetall("it-ruby")
    assert python.keys() == ruby.keys() == {b"cancelled"}
    assert int(python[b"cancelled"]) == pytest.approx(int(ruby[b"cancelled"]), abs=60)
    assert client.ttl("it-python") == pytest.approx(client.ttl("it-ruby"), abs=60)


def test_outside_of_a_job_nothing_is_cancelled() -> None:
    assert cancelled() is False
