"""The order of the middleware: no order is wrong."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq import Middleware
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AgeLimit, CurrentMessage, Retries, TimeLimit, default_middleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    JobLogging,
    OpenTelemetry,
    Prometheus,
    RedisHashMemory,
    SidekiqBroker,
    Workflow,
    WorkflowMiddleware,
    find_current_run,
)
from dramatiq_sidekiq_flow.broker import Retries as SidekiqRetries

from ..redis_values import fields
from ..running import eventually, in_flight, members, working

OURS = ("workflow", "logging", "metrics", "traces")


def run_with(redis_url: str, client: redis.Redis, order: list[Middleware], caplog: Any) -> None:
    """A workflow with a step that fails once and one that is dead, and all that is told of it."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    for middleware in order:
        if isinstance(middleware, OpenTelemetry):
            middleware.tracer = provider.get_tracer("test")
    broker = SidekiqBroker(url=redis_url, middleware=order, poll_interval=50)
    failed: list[int] = []

    @dramatiq.actor(queue_name="python", broker=broker, min_backoff=10, max_backoff=10)
    def step(name: str) -> dict[str, bool]:
        if name == "b" and not failed:
            failed.append(1)
            raise ValueError
        return {name: find_current_run() is not None}

    @dramatiq.actor(queue_name="python", broker=broker, max_retries=0)
    def dead() -> None:
        raise ValueError

    caplog.clear()
    tree = Chain(step.message("a"), Group(step.message("b"), step.message("c")), step.message("d"), dead.message())
    run_id = Workflow(tree, broker=broker).run()
    with working(broker):
        eventually(lambda: members(client, "dead") and not in_flight(client))
    # With the worker stopped, all has been told.
    broker.close()
    assert "Unexpected failure" not in caplog.text
    assert not client.exists("retry", "schedule", "queue:python")
    assert [job["class"] for job in members(client, "dead")] == ["dead"]
    memory = {name: json.loads(value) for name, value in fields(client.hgetall(f"swf:mem:{run_id}")).items()}
    assert memory == {"a": True, "b": True, "c": True, "d": True}
    expected = {"done": 4, "retry": 1, "dead": 1}
    words = [r.getMessage().partition(":")[0] for r in caplog.records if r.name == "dramatiq_sidekiq_flow.job"]
    assert {word: words.count(word) for word in set(words)} == {**expected, "start": 6}
    tries = [dict(s.attributes or {}) for s in spans.get_finished_spans() if s.name != "create workflow"]
    outcomes = [attributes["messaging.sidekiq.outcome"] for attributes in tries]
    assert {outcome: outcomes.count(outcome) for outcome in set(outcomes)} == expected
    assert len({s.get_span_context().trace_id for s in spans.get_finished_spans()}) == 1  # type: ignore[union-attr]


def made(names: tuple[str, ...]) -> list[Middleware]:
    makers: dict[str, Any] = {
        "workflow": lambda: WorkflowMiddleware(memory=RedisHashMemory()),
        "logging": JobLogging,
        "metrics": lambda: Prometheus(host="127.0.0.1", port=0),
        "traces": OpenTelemetry,
    }
    return [makers[name]() for name in names]


@pytest.mark.parametrize("ours", list(itertools.permutations(OURS)), ids="-".join)
def test_ours_in_any_order_after_dramatiqs(
    redis_url: str, client: redis.Redis, caplog: pytest.LogCaptureFixture, ours: tuple[str, ...]
) -> None:
    caplog.set_level("INFO")
    run_with(redis_url, client, [*(m() for m in default_middleware), *made(ours)], caplog)


@pytest.mark.parametrize("seed", range(8))
def test_all_in_any_order(redis_url: str, client: redis.Redis, caplog: pytest.LogCaptureFixture, seed: int) -> None:
    caplog.set_level("INFO")
    order = [*(m() for m in default_middleware), CurrentMessage(), *made(OURS)]
    random.Random(seed).shuffle(order)
    run_with(redis_url, client, order, caplog)


def test_ours_run_in_this_order(redis_url: str) -> None:
    """As the documentation has it: Dramatiq's, with Retries in its place, then what was added."""
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware())
    broker.add_middleware(JobLogging())
    names = [type(middleware).__name__ for middleware in broker.middleware]
    assert names == [*(m.__name__ for m in default_middleware), "WorkflowMiddleware", "JobLogging"]
    (retries,) = (middleware for middleware in broker.middleware if isinstance(middleware, Retries))
    assert type(retries) is SidekiqRetries


class Named(Middleware):
    """Notes when it is called, around a job."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def before_process_message(self, broker: Any, message: Any) -> None:
        self.calls.append(f"before {type(self).__name__}")

    def after_process_message(self, broker: Any, message: Any, **outcome: Any) -> None:
        self.calls.append(f"after {type(self).__name__}")


class Outer(Named): ...


class Inner(Named): ...


def test_a_middleware_stands_where_it_was_asked_to(redis_url: str) -> None:
    broker = SidekiqBroker(url=redis_url)
    calls: list[str] = []
    broker.add_middleware(Inner(calls), after=Retries)
    broker.add_middleware(Outer(calls), before=AgeLimit)
    names = [type(middleware).__name__ for middleware in broker.middleware]
    assert names[:2] == ["Outer", "AgeLimit"]
    assert names[names.index("Retries") + 1] == "Inner"

    @dramatiq.actor(broker=broker)
    def step() -> None:
        calls.append("step")

    step.send()
    with working(broker):
        broker.join("default", timeout=10_000)
    broker.close()
    assert calls == ["before Outer", "before Inner", "step", "after Inner", "after Outer"]


def test_dramatiqs_retries_are_taken_over_where_they_were_put(redis_url: str) -> None:
    broker = SidekiqBroker(url=redis_url, middleware=[AgeLimit(), TimeLimit()])
    broker.add_middleware(Retries(), before=TimeLimit)
    assert [type(middleware) for middleware in broker.middleware] == [AgeLimit, SidekiqRetries, TimeLimit]


def test_telemetry_on_another_broker_is_refused_or_harmless(caplog: pytest.LogCaptureFixture) -> None:
    """Only SidekiqBroker tells a middleware where it stands; elsewhere the log works, and the rest is silent."""
    caplog.set_level("INFO")
    broker = StubBroker()
    for middleware in made(("logging", "metrics", "traces")):
        broker.add_middleware(middleware)
    ran: list[int] = []

    @dramatiq.actor(broker=broker)
    def step() -> None:
        ran.append(1)

    step.send()
    worker = dramatiq.Worker(broker, worker_timeout=100)
    worker.start()
    try:
        broker.join("default", timeout=20_000)
        worker.join()
    finally:
        worker.stop()
    assert ran == [1]
    said = [record.getMessage() for record in caplog.records]
    assert any(text.startswith("done: class=step") for text in said)
    for name in ("Prometheus", "OpenTelemetry"):
        assert any(text.startswith(name) and "Use a SidekiqBroker" in text for text in said), said
    assert "Unexpected failure" not in caplog.text
