"""Dramatiq's own middleware works here as everywhere."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq import group, pipeline
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import (
    AsyncIO,
    CurrentMessage,
    GroupCallbacks,
    Middleware,
    Retries,
    Shutdown,
    ShutdownNotifications,
    SkipMessage,
    TimeLimit,
    TimeLimitExceeded,
)
from dramatiq.rate_limits.backends import RedisBackend as RateLimiterBackend
from dramatiq.results import ResultFailure, Results
from dramatiq.results.backends import RedisBackend as ResultBackend

from dramatiq_sidekiq_flow import Chain, Group, SidekiqBroker, Workflow, find_current_run

from ..running import eventually, in_flight, members, working


@pytest.fixture
def results(broker: SidekiqBroker, client: redis.Redis) -> ResultBackend:
    backend = ResultBackend(client=client)
    broker.add_middleware(Results(backend=backend))
    return backend


def test_results(broker: SidekiqBroker, results: ResultBackend) -> None:
    @dramatiq.actor(store_results=True)
    def add(x: int, y: int) -> int:
        return x + y

    @dramatiq.actor(store_results=True, max_retries=0)
    def boom() -> None:
        raise ValueError("broken")

    with working(broker):
        assert add.send(1, 2).get_result(backend=results, block=True, timeout=10_000) == 3
        with pytest.raises(ResultFailure, match="broken"):
            boom.send().get_result(backend=results, block=True, timeout=10_000)


def test_pipelines_and_groups(broker: SidekiqBroker, results: ResultBackend) -> None:
    @dramatiq.actor(store_results=True)
    def add(x: int, y: int) -> int:
        return x + y

    with working(broker):
        # What a message returns is the last argument of the next one.
        then: Any = add.message
        assert pipeline([add.message(1, 2), then(3), then(4)]).run().get_result(block=True, timeout=10_000) == 10
        assert sorted(group([add.message(1, 1), add.message(2, 2)]).run().get_results(block=True, timeout=10_000)) == [
            2,
            4,
        ]


def test_group_callbacks(broker: SidekiqBroker, client: redis.Redis) -> None:
    done: list[str] = []
    broker.add_middleware(GroupCallbacks(RateLimiterBackend(client=client)))

    @dramatiq.actor
    def step() -> None:
        done.append("step")

    @dramatiq.actor
    def after() -> None:
        done.append("after")

    with working(broker):
        together = group([step.message(), step.message(), step.message()])
        together.add_completion_callback(after.message())
        together.run()
        eventually(lambda: "after" in done)
    assert done == ["step", "step", "step", "after"]


def test_callbacks(broker: SidekiqBroker) -> None:
    told: list[Any] = []

    @dramatiq.actor
    def on_success(message: dict[str, Any], result: Any) -> None:
        told.append((message["actor_name"], result))

    @dramatiq.actor
    def on_failure(message: dict[str, Any], error: dict[str, str]) -> None:
        told.append((message["actor_name"], error["type"]))

    @dramatiq.actor
    def exhausted(message: dict[str, Any], counts: dict[str, int]) -> None:
        told.append((message["actor_name"], counts["retries"]))

    @dramatiq.actor
    def good() -> int:
        return 7

    @dramatiq.actor(max_retries=0, on_retry_exhausted="exhausted")
    def bad() -> None:
        raise ValueError

    with working(broker):
        good.send_with_options(on_success=on_success)
        bad.send_with_options(on_failure=on_failure)
        eventually(lambda: len(told) == 3)
    assert sorted(told, key=str) == [("bad", "ValueError"), ("bad", 0), ("good", 7)]


def test_age_limit_buries_what_is_too_old(broker: SidekiqBroker, client: redis.Redis) -> None:
    ran: list[int] = []

    @dramatiq.actor(max_age=50)
    def fresh() -> None:
        ran.append(1)

    fresh.send()
    eventually(lambda at=time.monotonic() + 0.1: time.monotonic() > at)
    with working(broker):
        (dead,) = eventually(lambda: members(client, "dead"))
    assert dead["error_message"] == "Message age limit exceeded"
    assert ran == []


def test_time_limit_is_a_failure(broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(time_limit=200, max_retries=0)
    def endless() -> None:
        while True:
            time.sleep(0.01)

    endless.send()
    broker.emit_after("process_boot")  # starts the timer, as the command does
    with working(broker):
        (dead,) = eventually(lambda: members(client, "dead"))
    assert dead["error_class"] == TimeLimitExceeded.__name__


def test_time_limits_are_set_without_the_lock_that_all_threads_take(broker: SidekiqBroker) -> None:
    ran: list[int] = []

    @dramatiq.actor
    def step(number: int) -> None:
        ran.append(number)

    (limits,) = (each for each in broker.middleware if isinstance(each, TimeLimit))
    manager: Any = limits.manager
    with working(broker, threads=1):
        # A new thread takes the lock once.
        step.send(0)
        eventually(lambda: ran == [0] and manager.deadlines and set(manager.deadlines.values()) == {None})
        with manager.mu:
            step.send(1)
            step.send(2)
            eventually(lambda: ran == [0, 1, 2])


@pytest.mark.parametrize("options", [{"max_retries": 0}, {"max_retries": 3}, {"retry": False}, None], ids=str)
def test_a_shutdown_puts_a_job_back_uncounted(
    redis_url: str, client: redis.Redis, options: dict[str, Any] | None
) -> None:
    """Also where there are no options, and no Retries."""
    broker = SidekiqBroker(url=redis_url, middleware=[ShutdownNotifications()])
    if options is not None:
        broker.add_middleware(Retries())
        options = {**options, "on_retry_exhausted": "exhausted"}
    exhausted: list[Any] = []
    started = threading.Event()

    @dramatiq.actor(broker=broker, actor_name="exhausted")
    def on_exhausted(*args: Any) -> None:
        exhausted.append(args)

    @dramatiq.actor(broker=broker, queue_name="python", notify_shutdown=True, **(options or {}))
    def long() -> None:
        started.set()
        while True:
            time.sleep(0.01)

    before = long.send()
    with working(broker, threads=1):
        assert started.wait(10)
    broker.close()
    (job,) = members(client, "python")
    assert job["jid"] == before.message_id
    assert not {"retry_count", "failed_at", "error_class"} & job.keys()
    assert in_flight(client) == []
    assert not client.exists("retry", "dead", "queue:default")


def test_what_an_actor_makes_of_a_shutdown_is_its_failure(broker: SidekiqBroker, client: redis.Redis) -> None:
    started = threading.Event()

    @dramatiq.actor(notify_shutdown=True)
    def long() -> None:
        started.set()
        try:
            while True:
                time.sleep(0.01)
        except Shutdown:
            raise ValueError("half done") from None

    long.send()
    with working(broker):
        assert started.wait(10)
    (job,) = members(client, "retry")
    assert (job["error_class"], job["retry_count"]) == ("ValueError", 0)


def test_a_shutdown_that_is_not_the_workers_is_a_failure(broker: SidekiqBroker, client: redis.Redis) -> None:
    """Else the job would be back at once, for ever."""

    @dramatiq.actor
    def raises() -> None:
        raise Shutdown

    raises.send()
    with working(broker):
        (job,) = eventually(lambda: members(client, "retry"))
    assert job["error_class"] == "Shutdown"


def test_current_message(broker: SidekiqBroker) -> None:
    seen: list[Any] = []
    broker.add_middleware(CurrentMessage())

    @dramatiq.actor(queue_name="python", min_backoff=10, max_backoff=10)
    def look() -> None:
        message = CurrentMessage.get_current_message()
        assert message is not None
        seen.append((message.message_id, message.options.get("retries"), message.options.get("requeue_timestamp")))
        if len(seen) < 3:
            raise ValueError

    before = int(time.time() * 1000)
    jid = look.send().message_id
    with working(broker):
        eventually(lambda: len(seen) == 3)
    assert [entry[:2] for entry in seen] == [(jid, None), (jid, 1), (jid, 2)]
    stamps = [entry[2] for entry in seen]
    assert stamps[0] is None
    assert before <= stamps[1] <= stamps[2] <= time.time() * 1000


def test_async_actors_are_steps(broker: SidekiqBroker) -> None:
    log: list[Any] = []
    broker.add_middleware(AsyncIO())

    @dramatiq.actor(queue_name="python")
    async def step(name: str) -> dict[str, str]:
        await asyncio.sleep(0.001)
        log.append(name)
        return {name: name}

    run_id = Workflow(Chain(step.message("a"), step.message("b"))).run()
    with working(broker):
        eventually(lambda: log == ["a", "b"])
        broker.join("python", timeout=10_000)
    memory = broker.completion.engine.memory  # type: ignore[union-attr]
    assert memory.read(run_id) == {"a": "a", "b": "b"}


def test_a_skipped_step_is_dead_by_name_and_goes_on_when_it_is_retried(
    broker: SidekiqBroker, client: redis.Redis
) -> None:
    log: list[Any] = []
    skipped: list[str] = []

    class Skip(Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            if not skipped:
                skipped.append(message.message_id)
                raise SkipMessage

    broker.add_middleware(Skip())

    @dramatiq.actor(queue_name="python")
    def step(name: str) -> None:
        log.append((name, find_current_run() is not None))

    Workflow(Chain(step.message("a"), step.message("b"))).run()
    with working(broker):
        (dead,) = eventually(lambda: members(client, "dead"))
        assert (dead["error_class"], [dead["jid"]], log) == ("StepSkipped", skipped, [])
        client.delete("dead")
        client.lpush("queue:python", json.dumps(dead))
        eventually(lambda: len(log) == 2)
    assert log == [("a", True), ("b", True)]


def test_a_skipped_job_of_no_workflow_is_done(broker: SidekiqBroker, client: redis.Redis) -> None:
    class Skip(Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            raise SkipMessage

    broker.add_middleware(Skip())

    @dramatiq.actor(queue_name="python")
    def step() -> None: ...

    step.send()
    with working(broker):
        broker.join("python", timeout=20_000)
    assert not client.exists("dead", "retry")


def test_priorities_are_kept_among_what_was_fetched(broker: SidekiqBroker, client: redis.Redis) -> None:
    log: list[str] = []
    releases = [threading.Event(), threading.Event()]

    @dramatiq.actor(queue_name="python")
    def blocker(n: int) -> None:
        releases[n].wait(10)

    @dramatiq.actor(queue_name="python", priority=10)
    def low() -> None:
        log.append("low")

    @dramatiq.actor(queue_name="python", priority=0)
    def high() -> None:
        log.append("high")

    for n in range(2):
        blocker.send(n)
    with working(broker, threads=2) as worker:
        eventually(lambda: len(in_flight(client)) == 2 and not worker.work_queue.qsize())
        # Both at once, so that one fetch takes both.
        Workflow(Group(low.message(), high.message())).run()
        eventually(lambda: worker.work_queue.qsize() == 2)
        # One thread after the other: two at once would race.
        releases[0].set()
        eventually(lambda: len(log) == 2)
        releases[1].set()
        broker.join("python", timeout=10_000)
    assert log == ["high", "low"]


def test_the_middleware_says_which_broker_it_needs() -> None:
    from dramatiq_sidekiq_flow import WorkflowMiddleware

    with pytest.raises(Exception, match="SidekiqBroker"):
        WorkflowMiddleware().attach(StubBroker())
