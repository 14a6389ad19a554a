"""Payloads of any Sidekiq version, and what a failure adds to them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from dramatiq_sidekiq_flow.errors import InvalidPayload, MalformedPayload, PayloadError, UnsupportedPayload
from dramatiq_sidekiq_flow.wire import codec
from dramatiq_sidekiq_flow.wire.payload import Payload, buried, failed, fingerprint
from dramatiq_sidekiq_flow.wire.payload_fields import seconds

from ..recordings import VERSIONS, expand_backtrace, live


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_members_are_read(version: str) -> None:
    recorded = live(version)
    seen = 0
    for name in ("retry", "schedule", "dead"):
        for member, _ in recorded[name]["value"]:
            if member == "{not json":
                with pytest.raises(MalformedPayload):
                    Payload.decode(member.encode())
                continue
            job = Payload.decode(member.encode())
            fields = json.loads(member)
            assert job.fields == fields
            assert job.retries == (fields["retry_count"] + 1 if "retry_count" in fields else 0)
            assert 1795537000 < (seconds(fields["created_at"]) or 0) < 1795538000
            seen += 1
    assert seen == 5


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        (1795537424.25, 1795537424.25),
        (1795537424250, 1795537424.25),
        ("1795537424.25", 1795537424.25),
        ("1795537424250", 1795537424.25),
        (None, None),
        ("yesterday", None),
        ([], None),
    ],
)
def test_stamps_of_all_versions(stamp: Any, expected: float | None) -> None:
    assert seconds(stamp) == expected


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b'{"args": []}', InvalidPayload),
        (b'{"class": 7, "args": []}', InvalidPayload),
        (b'{"class": "A", "args": {}}', InvalidPayload),
        (b'{"class": "A"}', InvalidPayload),
        (b'{"class": "A", "args": [], "encrypt": true}', UnsupportedPayload),
        (b'{"class": "A", "args": [], "_f": "v9"}', UnsupportedPayload),
    ],
)
def test_no_job(raw: bytes, error: type[Exception]) -> None:
    with pytest.raises(error) as raised:
        Payload.decode(raw)
    assert raised.value.value == raw  # type: ignore[attr-defined]


def test_the_same_bytes_are_the_same_job() -> None:
    raw = b'{"class": "A", "args": []}'
    assert Payload.decode(raw).jid == Payload.decode(raw).jid
    assert Payload.decode(raw).jid != Payload.decode(raw + b" ").jid


@pytest.mark.parametrize("version", VERSIONS)
def test_a_failure_has_sidekiqs_keys(version: str) -> None:
    """Our payload after the same failures has the recorded keys, of the recorded types."""
    members = [json.loads(m) for m, _ in live(version)["retry"]["value"]]
    recorded = next(m for m in members if m["class"] == "Boom")
    kept = ("class", "args", "jid", "queue", "retry", "backtrace", "created_at", "enqueued_at")
    fields = {key: recorded[key] for key in kept}
    once = failed(fields, ValueError("bad ✓ 1"), now=1.5, queue="default", backtrace=["a:1:in 'f'"] * 9)
    assert once["retry_count"] == 0
    assert "retried_at" not in once
    twice = failed(once, ValueError("bad ✓ 1"), now=2.5, queue="default", backtrace=["a:1:in 'f'"] * 9)
    # (The recorded job was retried by hand, which lowers retry_count first: it shows 0.)
    assert twice.keys() == recorded.keys()
    assert (twice["failed_at"], twice["retried_at"], twice["retry_count"]) == (1.5, 2.5, 1)
    assert twice["error_message"] == recorded["error_message"]
    for key, value in recorded.items():
        if not key.endswith("_at"):
            assert type(twice[key]) is type(value), key
    # `backtrace: 5` keeps five lines, in the same wrapping.
    assert len(expand_backtrace(recorded["error_backtrace"])) <= 5
    assert expand_backtrace(twice["error_backtrace"]) == ["a:1:in 'f'"] * 5


def test_backtrace_true_keeps_all_and_none_keeps_none() -> None:
    every = failed({"backtrace": True}, ValueError(), now=0, queue="q", backtrace=["x"] * 40)
    assert len(expand_backtrace(every["error_backtrace"])) == 40
    assert "error_backtrace" not in failed({}, ValueError(), now=0, queue="q", backtrace=["x"])


def test_messages_are_cut_and_made_readable() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert len(failed({}, ValueError("x" * 20_000), now=0, queue="q")["error_message"]) == 10_000
    assert failed({}, ValueError("\ud800"), now=0, queue="q")["error_message"] == "?"
    assert "THREW AN ERROR" in failed({}, Mute(), now=0, queue="q")["error_message"]


def test_retry_queue_is_where_it_goes_next() -> None:
    assert failed({"retry_queue": "low"}, ValueError(), now=0, queue="q")["queue"] == "low"


def test_bytes_that_are_no_json_are_buried_whole() -> None:
    dead = json.loads(buried(b"\xff{not json", MalformedPayload("no JSON", b""), now=1.0, queue="q"))
    assert base64.b64decode(dead["raw"]) == b"\xff{not json"
    assert dead["error_class"] == "MalformedPayload"
    assert dead["queue"] == "q"
    assert len(dead["jid"]) == 24


def test_an_object_is_buried_with_every_key_it_has() -> None:
    raw = b'{"class": "A", "args": [1], "encrypt": true, "x": {"y": [2]}}'
    dead = json.loads(buried(raw, UnsupportedPayload("encrypted", b""), now=1.0, queue="q"))
    assert dead["x"] == {"y": [2]}
    assert (dead["class"], dead["args"]) == ("A", [1])
    assert dead["error_class"] == "UnsupportedPayload"


@pytest.mark.parametrize(
    "raw", [b"{}", b'{"args": [], "tags": ["a"]}', b'{"class": "A", "args": {}}', b'{"class": 7, "args": []}', b"no {"]
)
def test_what_sidekiq_could_not_push_again_is_wrapped(raw: bytes) -> None:
    """Its Retry takes a dead job away before it finds that it cannot push it."""
    with pytest.raises(PayloadError) as first:
        Payload.decode(raw)
    dead = json.loads(buried(raw, first.value, now=1.0, queue="q"))
    assert type(dead["class"]) is str
    assert type(dead["args"]) is list
    assert base64.b64decode(dead["raw"]) == raw
    assert dead.get("tags") == (["a"] if b"tags" in raw else None)
    # Retried, it is what it was.
    again = codec.encode({**dead, "retry_count": -1})
    with pytest.raises(type(first.value)) as second:
        Payload.decode(again)
    assert str(second.value) == str(first.value)
    twice = json.loads(buried(again, second.value, now=2.0, queue="q"))
    changed = {"failed_at", "retried_at", "retry_count"}
    assert {k: v for k, v in twice.items() if k not in changed} == {k: v for k, v in dead.items() if k not in changed}


def test_a_wrapper_of_nothing_is_no_job() -> None:
    for odd in (None, 7, "&&&"):
        with pytest.raises(InvalidPayload, match="no bytes"):
            Payload.decode(codec.encode({"class": "MalformedPayload", "args": [], "raw": odd}))


@pytest.mark.parametrize("jid", [None, "", 7, ["x"]])
def test_a_job_without_an_id_gets_one_that_stays(jid: Any) -> None:
    """Sidekiq's buttons know a failed job by its jid."""
    raw = codec.encode({"class": "A", "args": [], "jid": jid})
    job = Payload.decode(raw)
    assert job.fields["jid"] == job.jid == fingerprint(raw)
    assert failed(job.fields, ValueError(), now=0, queue="q")["jid"] == job.jid
    dead = json.loads(buried(raw, InvalidPayload("no", b""), now=1.0, queue="q"))
    assert dead["jid"] == job.jid
