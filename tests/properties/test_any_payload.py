"""Whatever stands in a payload, it is read, fails and is buried under a named error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow.broker.message import SidekiqMessage
from dramatiq_sidekiq_flow.broker.retries import Retries, decide, killed
from dramatiq_sidekiq_flow.errors import InvalidCallbacks, InvalidNode, PayloadError
from dramatiq_sidekiq_flow.wire import codec
from dramatiq_sidekiq_flow.wire.callbacks import delay_ahead
from dramatiq_sidekiq_flow.wire.lifetimes import barrier_ttl
from dramatiq_sidekiq_flow.wire.payload import Payload, buried, failed
from dramatiq_sidekiq_flow.wire.payload_fields import expiry, seconds
from dramatiq_sidekiq_flow.workflow.plan import plan

from ..example_counts import examples
from ..unit.test_plan import source

NUMBERS = (
    st.sampled_from([0, -1, 1, 25, 10**6, 10**15, -(10**15), 10**400, -(10**400), 0.5, -0.5, 1e300, -1e300, 1e15])
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.sampled_from(
    ["", "1.e999", "-1.e999", ".nan", "9" * 401, "9" * 5000, "1_0", "x", "x" * 300, "1795537424.25"]
)
ODD = (
    st.none()
    | st.booleans()
    | NUMBERS
    | TEXTS
    | st.lists(NUMBERS, max_size=2)
    | st.dictionaries(TEXTS, NUMBERS, max_size=2)
)

KEYS = [
    *("jid", "queue", "retry", "retry_count", "retry_for", "retry_queue", "created_at", "enqueued_at", "failed_at"),
    *("retried_at", "at", "backtrace", "tags", "dead", "wrapped", "cattr", "dramatiq", "memory_namespace", "expiry"),
    *("workflow_run_id", "workflow_completion_callbacks", "error_backtrace", "raw", "bid", "encrypt", "_f"),
]
CLASSES = st.sampled_from(
    [
        *("A", "Docs::Extract", "x" * 300, "MalformedPayload", "Sidekiq::Workflow::NoopWorker"),
        *("Sidekiq::ActiveJob::Wrapper", "ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper"),
    ]
)
ARGS = st.lists(ODD | st.fixed_dictionaries({"job_class": TEXTS, "arguments": st.lists(ODD, max_size=2)}), max_size=2)
JOBS = st.fixed_dictionaries({"class": CLASSES, "args": ARGS}, optional=dict.fromkeys(KEYS, ODD))


def job(**keys: Any) -> dict[str, Any]:
    return {"class": "A", "args": [], **keys}


@settings(max_examples=examples(500))
@given(JOBS)
@example(job(retry_count=10**400))
@example(job(retry_count=24, retry_for=10**400, failed_at=1.0))
@example(job(retry=10**401, retry_count=10**400))
@example(job(created_at=10**400))
@example(job(created_at="1.e999"))
@example(job(failed_at="9" * 401, retry_for=5))
@example(job(backtrace=10**400))
@example(job(retry_queue={"a": 1}))
def test_any_job_is_read_fails_and_is_buried(fields: dict[str, Any]) -> None:
    raw = json.dumps(fields).encode()
    try:
        payload = Payload.decode(raw)
    except PayloadError as e:
        refused = e
    else:
        check_failures(payload)
        return
    assert len(str(refused)) < 1500
    dead = codec.decode(buried(raw, refused, now=1.5e9, queue="q"))
    assert dead["error_class"] == type(refused).__name__
    assert type(dead["queue"]) is str


def check_failures(payload: Payload) -> None:
    message = SidekiqMessage(payload, "q", "m", "r")
    assert type(message.message_timestamp) is int
    error = ValueError("bad")
    for failure in (decide(payload, "q", error, None, Retries()), killed(payload, "q", error)):
        if failure.action != "discard":
            again = Payload.decode(failure.payload)
            assert again.retries >= 0
            assert type(again.fields["queue"]) is str
            assert again.fields["queue"]
        assert abs(failure.at) < 1e30
    codec.encode(failed(payload.fields, error, now=1.5e9, queue="q", backtrace=["a:1:in 'f'"]))
    assert expiry(payload.fields) is None or abs(expiry(payload.fields) or 0) < 1e12
    assert barrier_ttl(None, payload.stack, 1.5e9) < 1e11


@given(ODD)
def test_any_stamp_is_a_time_or_none(stamp: Any) -> None:
    read = seconds(stamp)
    assert read is None or 0 <= read < 1e12


UUID = "224a1be4-c469-4117-94af-8540a8358a95"
JOB_KEYS = ["queue", "retry", "args", "class", "at", "jid", "tags", "retry_for", "retry_queue", "wrapped", "delay"]
ANY_JOB = st.fixed_dictionaries({"__type__": st.just("job")}, optional=dict.fromkeys(JOB_KEYS, ODD))
GOOD_JOB = st.builds(
    lambda keys: job(__type__="job", **keys), st.dictionaries(st.sampled_from(JOB_KEYS), ODD, max_size=2)
)


def trees(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    kinds = TEXTS | st.sampled_from(["chain", "group"])
    several = st.fixed_dictionaries({"__type__": kinds, "children": st.lists(inner, max_size=3)})
    later = st.fixed_dictionaries({"__type__": st.just("with_delay"), "delay": ODD, "task": inner})
    return several | later


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@settings(max_examples=examples(500))
@given(st.recursive(ANY_JOB | GOOD_JOB, trees, max_leaves=5))
@example(job(__type__="job", queue=None))
@example({"__type__": "with_delay", "delay": -(10**400), "task": job(__type__="job")})
@example(job(__type__="job", at=10**400))
@example(job(__type__="job", tags=None))
def test_any_continuation_is_refused_or_can_be_pushed(node: Any) -> None:
    raw = json.dumps(job(workflow_completion_callbacks=[[UUID, node, False]])).encode()
    try:
        payload = Payload.decode(raw)
    except (InvalidCallbacks, InvalidNode):
        return
    remaining = payload.stack[0].remaining
    assert remaining is not None
    assert 0 <= delay_ahead(payload.stack, 1000.0) < 1e20
    planned = plan(remaining, (), source(tags=("wf:run",)), barrier_ttl(remaining, (), 1000.0))
    assert all(1000.0 < at < 1e16 for at, _ in planned.scheduled)
    assert all(type(queue) is str and queue for queue in planned.pushes)
    pushed = [raw for raws in planned.pushes.values() for raw in raws] + [raw for _, raw in planned.scheduled]
    for raw in pushed:
        fields = codec.decode(raw)
        assert type(fields["queue"]) is type(fields["class"]) is type(fields["jid"]) is str
        assert type(fields["args"]) is list


@pytest.mark.parametrize("depth", [100, 300, 450, 480, 900])
@pytest.mark.parametrize("kind", ["chain", "with_delay"])
def test_a_tree_too_deep_to_walk_is_refused(depth: int, kind: str) -> None:
    inner = job(__type__="job")
    text = json.dumps(inner)
    for _ in range(depth):
        text = (
            f'{{"__type__":"chain","children":[{text}]}}'
            if kind == "chain"
            else f'{{"__type__":"with_delay","delay":1,"task":{text}}}'
        )
    raw = f'{{"class":"A","args":[],"workflow_completion_callbacks":[["{UUID}",{text},false]]}}'.encode()
    with pytest.raises(PayloadError) as refused:
        Payload.decode(raw)
    dead = codec.decode(buried(raw, refused.value, now=1.0, queue="q"))
    assert dead["error_class"] in ("InvalidNode", "MalformedPayload")
