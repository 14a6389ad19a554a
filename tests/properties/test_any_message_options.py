"""Whatever a payload says under ``dramatiq``, Dramatiq's own middleware can use what is left of it."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import (
    AgeLimit,
    Callbacks,
    GroupCallbacks,
    Pipelines,
    ShutdownNotifications,
    SkipMessage,
    TimeLimit,
)
from dramatiq.rate_limits.backends import StubBackend as RateLimiterStub
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow.broker import message_options
from dramatiq_sidekiq_flow.broker.message import SidekiqMessage
from dramatiq_sidekiq_flow.foreign.foreign_messages import to_foreign
from dramatiq_sidekiq_flow.wire.payload import Payload

from ..example_counts import examples

DERIVED = {"throws", "eta", "retries", "traceback", "requeue_timestamp", "retry_when", "max_retries"}
KNOWN = sorted(
    DERIVED
    | {"on_success", "on_failure", "on_retry_exhausted", "pipe_ignore", "pipe_target", "delay", "time_limit"}
    | {"max_age", "min_backoff", "max_backoff", "notify_shutdown", "store_results", "result_ttl"}
    | {"group_completion_uuid", "group_completion_callbacks", "broker_priority"}
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 1, 10**6, 10**15 + 1, 10**400, -(10**400), 1.5, -1.5, 1e300])
    | st.sampled_from(["", "step", "nobody", "x" * 300, "ValueError"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*KNOWN, "other"]), inner, max_size=2),
    max_leaves=6,
)


def message(**changes: Any) -> dict[str, Any]:
    good = {"queue_name": "q", "actor_name": "step", "args": [1], "kwargs": {}, "options": {}}
    return {**good, "message_id": "i", "message_timestamp": 1, **changes}


MESSAGES = st.builds(
    lambda changes: message(**changes),
    st.dictionaries(st.sampled_from([*message(), "other"]), JSON, max_size=1),
)
OPTIONS = st.dictionaries(
    st.sampled_from([*KNOWN, "other"]), JSON | MESSAGES | st.lists(MESSAGES, max_size=2), max_size=4
)


class Recorder(StubBroker):
    """Takes what middleware sends on, and looks at it as a broker must."""

    def enqueue(self, message: Any, *, delay: Any = None) -> Any:
        self.get_actor(message.actor_name)
        assert delay is None or 0 <= delay <= 10**15
        message.encode()
        return message


def hooks(options: Any) -> None:
    """What a worker does with a message, with nothing swallowed."""
    broker = Recorder(middleware=[])
    broker.declare_actor(
        dramatiq.Actor(lambda *_: None, broker=broker, actor_name="step", queue_name="q", priority=0, options={})
    )
    raw = json.dumps({"class": "step", "args": [], "created_at": time.time(), "dramatiq": options}).encode()
    payload = Payload.decode(raw)
    read = SidekiqMessage(payload, "q", "m", "r")
    assert not read.options.keys() & DERIVED
    to_foreign(payload, "q").encode()
    limits = TimeLimit()
    limits.manager.start = lambda: None  # type: ignore[method-assign]
    middleware = [
        AgeLimit(),
        limits,
        ShutdownNotifications(),
        Callbacks(),
        Pipelines(),
        Results(backend=StubBackend()),
        GroupCallbacks(RateLimiterStub()),
    ]
    try:
        for one in middleware:
            one.before_process_message(broker, read)
    except SkipMessage:
        return
    for exception in (None, ValueError("bad")):
        for one in middleware:
            with contextlib.suppress(dramatiq.ActorNotFound):  # Dramatiq logs it
                one.after_process_message(broker, read, result=None if exception else 1, exception=exception)


@settings(max_examples=examples(300), deadline=None)
@given(OPTIONS | JSON)
@example({"throws": "ValueError"})
@example({"eta": 1})
@example({"pipe_target": message(options={"delay": "soon"})})
@example({"pipe_target": {"queue_name": "q"}})
@example({"time_limit": 10**400})
@example({"max_age": "old"})
@example({"group_completion_uuid": "a", "group_completion_callbacks": [7]})
@example({"store_results": True, "result_ttl": "long"})
def test_any_options_can_be_used(options: Any) -> None:
    hooks(options)


def test_options_of_other_middleware_travel_as_they_are() -> None:
    own = {
        "_sentry_trace_headers": {"sentry-trace": "1-2", "baggage": ""},
        "scheduled_at": "2026-11-25T00:00:00+00:00",
        "trace_ctx": {"traceparent": "00-x"},
        "abort_ttl": 5,
        "priority": [1, {"a": None}],
    }
    assert message_options.read(own) == own


def test_what_dramatiq_wrote_is_read_back() -> None:
    own = {
        "on_success": "step",
        "on_failure": "step",
        "pipe_ignore": True,
        "pipe_target": message(options={"pipe_target": message(), "delay": 5}),
        "time_limit": 5000,
        "max_age": 1.5,
        "notify_shutdown": False,
        "store_results": True,
        "result_ttl": 60_000,
        "group_completion_uuid": "uuid",
        "group_completion_callbacks": [message(), message(options={"on_success": "step"})],
    }
    assert message_options.read(own) == own


def test_a_message_inside_is_checked_as_well() -> None:
    read = message_options.read({"pipe_target": message(options={"eta": 1, "throws": "x", "time_limit": 5})})
    assert read == {"pipe_target": message(options={"time_limit": 5})}


def test_each_option_is_warned_of_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_options, "_warned", set())
    for number in range(50):
        message_options.read(
            {"eta": number, "time_limit": "long", "pipe_target": 5, "on_success": None, f"n{number}": 1}
        )
        message_options.read([number])
    assert [record.args[0] for record in caplog.records] == ["eta", "time_limit", "pipe_target", "dramatiq"]  # type: ignore[index]


def test_a_job_that_says_nothing_of_its_age_is_new() -> None:
    """AgeLimit would drop it, as if it were of 1970."""
    payload = Payload.decode(b'{"class": "step", "args": [], "created_at": "1.e999"}')
    assert abs(SidekiqMessage(payload, "q", "m", "r").message_timestamp / 1000 - time.time()) < 60
