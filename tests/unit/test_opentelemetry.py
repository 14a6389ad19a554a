"""Whose context a job has, and which one goes along: the hooks, called by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dramatiq_sidekiq_flow import OpenTelemetry
from dramatiq_sidekiq_flow.broker.message import SidekiqMessage
from dramatiq_sidekiq_flow.wire.payload import Payload


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(spans: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider


def message() -> Any:
    payload = Payload.decode(json.dumps({"class": "step", "args": [], "jid": "a" * 24}).encode())
    return SidekiqMessage(payload, "python", "member", "1:1")


def test_what_the_thread_did_before_has_no_part_in_a_job(spans: InMemorySpanExporter, provider: TracerProvider) -> None:
    middleware = OpenTelemetry(tracer_provider=provider)
    job = message()
    with provider.get_tracer("test").start_as_current_span("before") as before:
        middleware.before_process_message(None, job)
        assert trace.get_current_span() is not before
        middleware.after_process_message(None, job)
        # Until here, so that what follows the job has it as its parent.
        middleware.after_ack(None, job)
        assert trace.get_current_span() is before
    step, _ = spans.get_finished_spans()
    assert (step.name, step.parent) == ("process step", None)


def test_a_new_context_replaces_the_old_one_whole(provider: TracerProvider) -> None:
    middleware = OpenTelemetry(tracer_provider=provider)
    fields = {"traceparent": "old", "tracestate": "old=1", "baggage": "old=1", "cattr": {"tenant": 1}}
    middleware.stamp(fields, "advance")
    assert len(fields) == 4, "outside of any span there is nothing to replace it with"
    with provider.get_tracer("test").start_as_current_span("step") as span:
        middleware.stamp(fields, "advance")
    context = span.get_span_context()
    assert set(fields) == {"traceparent", "cattr"}
    assert str(fields["traceparent"]).startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")
