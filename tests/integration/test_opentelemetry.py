"""One span a step; a run is one trace, through both languages."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import threading
import time
import uuid
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.middleware import AsyncIO
from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from dramatiq_sidekiq_flow import Chain, Group, Job, JobLogging, OpenTelemetry, SidekiqBroker, Workflow

from ..redis_values import as_bytes
from ..running import eventually, members, working

#: As Ruby's instrumentation writes them, beside `class` and `args`.
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
FROM_RUBY = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1", "baggage": "tenant=acme"}


class Spans:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def all(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def wait(self, count: int) -> list[ReadableSpan]:
        eventually(lambda: len(self.all()) >= count, what=f"{count} spans")
        assert len(self.all()) == count, [span.name for span in self.all()]
        return self.all()


@pytest.fixture
def spans(broker: SidekiqBroker) -> Spans:
    spans = Spans()
    broker.add_middleware(OpenTelemetry(tracer_provider=spans.provider))
    return spans


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def id_of(span: ReadableSpan) -> int:
    return span.get_span_context().span_id  # type: ignore[union-attr]


def traces(spans: list[ReadableSpan]) -> set[int]:
    return {span.get_span_context().trace_id for span in spans}  # type: ignore[union-attr]


def test_a_run_is_one_trace_in_the_order_of_its_steps(broker: SidekiqBroker, spans: Spans) -> None:
    both = threading.Barrier(2)

    @dramatiq.actor(queue_name="python", actor_name="step")
    def step(name: str) -> None:
        if name in "bc":
            both.wait(20)

    run_id = Workflow(Chain(step.message("a"), Group(step.message("b"), step.message("c")), step.message("d"))).run()
    with working(broker):
        found = spans.wait(5)
    assert len(traces(found)) == 1
    start, a, *children, d = sorted(found, key=lambda span: span.start_time or 0)
    assert (start.name, start.kind, start.parent) == ("create workflow", SpanKind.PRODUCER, None)
    assert parent_of(a) == id_of(start)
    assert [parent_of(child) for child in children] == [id_of(a)] * 2
    assert parent_of(d) in [id_of(child) for child in children]
    for span in (a, *children, d):
        assert (span.name, span.kind) == ("process step", SpanKind.CONSUMER)
        attributes = dict(span.attributes or {})
        assert uuid.UUID(attributes.pop("messaging.message.id"))  # type: ignore[arg-type]
        assert attributes == {
            "messaging.system": "sidekiq",
            "messaging.destination.name": "python",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.message.conversation_id": run_id,
            "messaging.sidekiq.job_class": "step",
            "messaging.sidekiq.retry_count": 0,
            "messaging.sidekiq.outcome": "done",
        }


def test_from_ruby_through_python_to_ruby(broker: SidekiqBroker, client: redis.Redis, spans: Spans) -> None:
    carried: list[Any] = []

    @dramatiq.actor(queue_name="python")
    def step() -> None:
        carried.append(baggage.get_baggage("tenant"))

    Workflow(Chain(step.message(), Job("Docs::Load", queue="ruby", retry=3))).run()
    (start,) = spans.wait(1)
    # The first step as a Ruby worker would have pushed it.
    payload = json.loads(as_bytes(client.rpop("queue:python")))
    assert payload["traceparent"].split("-")[1:3] == [
        format(start.get_span_context().trace_id, "032x"),  # type: ignore[union-attr]
        format(id_of(start), "016x"),
    ]
    client.lpush("queue:python", json.dumps({**payload, **FROM_RUBY}))
    with working(broker):
        span = spans.wait(2)[-1]
        (follows,) = eventually(lambda: members(client, "ruby"))
    assert (traces([span]), parent_of(span)) == ({int(TRACE, 16)}, int(SPAN, 16))
    assert carried == ["acme"]
    assert follows["traceparent"].startswith(f"00-{TRACE}-{id_of(span):016x}-")
    assert (follows["tracestate"], follows["baggage"]) == ("vendor=1", "tenant=acme")


def test_each_try_is_a_span_of_the_same_parent(broker: SidekiqBroker, spans: Spans) -> None:
    tries: list[int] = []

    @dramatiq.actor(queue_name="python", min_backoff=10, max_backoff=10)
    def flaky() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("not yet")

    flaky.send()
    with working(broker):
        sent, *found = sorted(spans.wait(4), key=lambda span: span.start_time or 0)
    assert sent.name == "create flaky"
    assert [parent_of(span) for span in found] == [id_of(sent)] * 3
    assert [dict(span.attributes or {})["messaging.sidekiq.outcome"] for span in found] == ["retry", "retry", "done"]
    assert [dict(span.attributes or {})["messaging.sidekiq.retry_count"] for span in found] == [0, 1, 2]
    assert [span.status.status_code for span in found] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    assert dict(found[0].attributes or {})["error.type"] == "ValueError"
    assert found[0].events[0].name == "exception"
    assert dict(found[0].events[0].attributes or {})["exception.message"] == "not yet"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_an_actor_sends_is_in_its_trace(broker: SidekiqBroker, spans: Spans, kind: str) -> None:
    broker.add_middleware(AsyncIO())
    tracer = spans.provider.get_tracer("application")

    @dramatiq.actor(queue_name="python")
    def sent() -> None: ...

    if kind == "sync":

        @dramatiq.actor(queue_name="python")
        def sender() -> None:
            with tracer.start_as_current_span("inner"):
                sent.send_with_options(delay=10)
    else:

        @dramatiq.actor(queue_name="python")
        async def sender() -> None:
            await asyncio.sleep(0)
            with tracer.start_as_current_span("inner"):
                sent.send_with_options(delay=10)

    with tracer.start_as_current_span("request"):
        sender.send()
    with working(broker):
        found = {span.name: span for span in spans.wait(6)}
    assert len(traces(list(found.values()))) == 1
    line = ["request", "create sender", "process sender", "inner", "create sent", "process sent"]
    assert set(found) == set(line)
    for before, after in itertools.pairwise(line):
        assert parent_of(found[after]) == id_of(found[before]), after


def test_a_job_without_a_context_begins_a_trace_whatever_ran_before(
    broker: SidekiqBroker, client: redis.Redis, spans: Spans
) -> None:
    @dramatiq.actor(queue_name="python")
    def step(number: int) -> None: ...

    junk: list[dict[str, Any]] = [
        {},
        {"traceparent": 5},
        {"traceparent": ["x"]},
        {"traceparent": "00-zz"},
        {"baggage": {"a": 1}},
    ]
    for number, keys in enumerate(junk):
        client.lpush("queue:python", json.dumps({"class": "step", "args": [number], "jid": f"{number:024}", **keys}))
    with working(broker, threads=1):
        found = spans.wait(5)
    assert [span.parent for span in found] == [None] * 5
    assert len(traces(found)) == 5
    assert not client.exists("retry", "dead")


def test_a_run_that_cannot_go_on_is_an_error(broker: SidekiqBroker, client: redis.Redis, spans: Spans) -> None:
    @dramatiq.actor(queue_name="python")
    def step() -> None: ...

    Workflow(Chain(step.message(), step.message())).run()
    client.delete(*client.keys("*_ran"))
    with working(broker):
        span = spans.wait(2)[-1]
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {})["error.type"] == "BarrierExpired"
    assert dict(span.attributes or {})["messaging.sidekiq.outcome"] == "dead"


def test_what_a_shutdown_interrupted_is_not_an_error(broker: SidekiqBroker, spans: Spans) -> None:
    begun = threading.Event()

    @dramatiq.actor(queue_name="python", notify_shutdown=True)
    def long() -> None:
        begun.set()
        while True:
            time.sleep(0.01)

    long.send()
    with working(broker):
        assert begun.wait(20)
    (span,) = [span for span in spans.all() if span.name == "process long"]
    assert (span.attributes or {})["messaging.sidekiq.outcome"] == "requeue"
    assert span.status.status_code is StatusCode.UNSET
    assert not span.events


def test_without_an_sdk_contexts_are_handed_on_as_they_came(broker: SidekiqBroker, client: redis.Redis) -> None:
    broker.add_middleware(OpenTelemetry(tracer_provider=trace.NoOpTracerProvider()))

    @dramatiq.actor(queue_name="python")
    def step() -> None: ...

    Workflow(Chain(step.message(), Job("Docs::Load", queue="ruby"))).run()
    payload = json.loads(as_bytes(client.rpop("queue:python")))
    assert "traceparent" not in payload
    client.lpush("queue:python", json.dumps({**payload, **FROM_RUBY}))
    with working(broker):
        (follows,) = eventually(lambda: members(client, "ruby"))
    assert {key: follows[key] for key in FROM_RUBY} == FROM_RUBY


def test_a_stamp_that_fails_stops_no_job(broker: SidekiqBroker, client: redis.Redis) -> None:
    def broken(fields: dict[str, Any], why: str) -> None:
        raise RuntimeError("no context today")

    broker.stamps.append(broken)

    @dramatiq.actor(queue_name="python")
    def step() -> None: ...

    Workflow(Chain(step.message(), step.message())).run()
    step.send()
    with working(broker):
        broker.join("python", timeout=10_000)
    assert not client.exists("retry", "dead")


def test_log_lines_of_a_job_are_inside_its_span(broker: SidekiqBroker, spans: Spans) -> None:
    current: list[tuple[str, int]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            current.append((record.msg % record.args, trace.get_current_span().get_span_context().span_id))

    logger = logging.Logger("test", logging.INFO)
    logger.addHandler(Handler())
    broker.add_middleware(JobLogging(logger=logger))

    @dramatiq.actor(queue_name="python")
    def step() -> None: ...

    step.send()
    with working(broker):
        _, span = spans.wait(2)
    assert [text.partition(":")[0] for text, _ in current] == ["start", "done"]
    assert [found for _, found in current] == [id_of(span)] * 2
