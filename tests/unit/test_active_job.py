"""ActiveJob's arguments in Python, from what Rails 7.2 wrote (``interop/ruby/active_job.rb``)."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dramatiq_sidekiq_flow.broker.message import SidekiqMessage
from dramatiq_sidekiq_flow.errors import InvalidPayload, UnsupportedPayload
from dramatiq_sidekiq_flow.foreign.foreign_messages import from_foreign, to_foreign
from dramatiq_sidekiq_flow.wire import active_job as decoder
from dramatiq_sidekiq_flow.wire import codec
from dramatiq_sidekiq_flow.wire.active_job import Range, decode_context
from dramatiq_sidekiq_flow.wire.payload import Payload, failed

from ..recordings import RECORDINGS

RECORDED = json.loads((RECORDINGS / "activejob-7.2.4.json").read_text("utf-8"))

MOMENT = datetime(2026, 11, 24, 16, 23, 44, 123457, timezone.utc)


def active_job(*arguments: Any, **changes: Any) -> bytes:
    job = {"job_class": "Docs::Extract", "arguments": list(arguments), "locale": "de", "timezone": "UTC"}
    fields = {"class": "Sidekiq::ActiveJob::Wrapper", "wrapped": "Docs::Extract", "args": [job], "jid": "a" * 24}
    return json.dumps({**fields, **changes}).encode()


def serialized(name: str, **keys: Any) -> dict[str, Any]:
    return {"_aj_serialized": f"ActiveJob::Serializers::{name}Serializer", **keys}


@pytest.mark.parametrize(
    ("case", "args", "kwargs"),
    [
        ("plain", [1, "a", None, True, 1.5, [1, [2]]], {}),
        ("symbol", ["fast"], {}),
        ("symbols", [{"plain": "hash", "s": "x"}], {}),
        ("indifferent", [{"a": 1}], {}),
        ("keywords", [42], {"language": "de", "at": date(2026, 11, 25)}),
        ("date", [date(2026, 11, 25)], {}),
        ("time", [MOMENT, MOMENT.astimezone(timezone(timedelta(hours=9)))], {}),
        ("datetime", [datetime(2026, 11, 25, 10, 0, 0, 500_000, timezone(timedelta(hours=2)))], {}),
        ("twz", [MOMENT, datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))], {}),
        (
            "duration",
            [
                timedelta(hours=2, minutes=30),
                timedelta(days=1.5),
                timedelta(weeks=1),
                timedelta(0),
                timedelta(seconds=90),
            ],
            {},
        ),
        ("decimal", [Decimal("1.50"), Decimal("-0.000012345678901234567890"), Decimal("1e30")], {}),
        (
            "range",
            [
                Range(1, 5),
                Range(1, 5, exclude_end=True),
                Range(1, None),
                Range(date(2026, 1, 1), date(2026, 1, 31)),
                Range("a", "f"),
                Range(MOMENT, MOMENT + timedelta(seconds=1)),
            ],
            {},
        ),
        ("module", ["Person", "Comparable"], {}),
        ("globalid", ["gid://app/Person/1", {"who": "gid://app/Person/2"}], {}),
    ],
)
def test_what_rails_wrote(case: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    job = Payload.decode(active_job(*RECORDED[case]))
    assert job.args == args
    assert dict(job.kwargs) == kwargs
    for read, expected in zip(job.args, args):
        assert type(read) is type(expected)


def test_a_time_with_zone_keeps_its_zone() -> None:
    new_york, berlin = Payload.decode(active_job(*RECORDED["twz"])).args
    assert (new_york.tzinfo.key, berlin.tzinfo.key) == ("America/New_York", "Europe/Berlin")
    assert new_york.utcoffset() == timedelta(hours=-5)
    # Summer to winter: an offset would not know.
    assert (berlin + timedelta(days=180)).utcoffset() == timedelta(hours=1)


def test_a_zone_that_is_not_installed_leaves_the_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise KeyError(name)

    monkeypatch.setattr(decoder, "ZoneInfo", missing)
    new_york, _ = Payload.decode(active_job(*RECORDED["twz"])).args
    assert new_york == MOMENT
    assert new_york.utcoffset() == timedelta(hours=-5)


@pytest.mark.parametrize("zone", ["../../etc/passwd", "x" * 10_000, "", "/", 7])
def test_a_zone_of_any_text(zone: Any) -> None:
    (moment,) = Payload.decode(
        active_job(serialized("TimeWithZone", value="2026-01-01T00:00:00Z", time_zone=zone))
    ).args
    assert moment == datetime(2026, 1, 1, tzinfo=timezone.utc)


def test_months_and_years_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedPayload, match=r"arguments\[0\] is a Duration with 'months', whose length depends"):
        Payload.decode(active_job(*RECORDED["months"]))


@pytest.mark.parametrize(
    "wrapper", ["Sidekiq::ActiveJob::Wrapper", "ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper"]
)
def test_an_active_job_is_the_actor_of_its_class(wrapper: str) -> None:
    arguments = [1, "two", {"three": [3], "_aj_symbol_keys": ["three"]}]
    job = Payload.decode(active_job(*arguments, **{"class": wrapper}))
    assert (job.actor_name, job.args) == ("Docs::Extract", [1, "two", {"three": [3]}])
    assert job.fields["class"] == wrapper


@pytest.mark.parametrize("name", ["MoneySerializer", "x" * 10_000, 7, None, ["a"]])
def test_an_object_of_another_serializer_is_refused_by_its_name(name: Any) -> None:
    with pytest.raises(UnsupportedPayload, match=r"arguments\[0\].a\[0\] is an object of") as refused:
        Payload.decode(active_job({"a": [{"_aj_serialized": name, "value": 1}]}))
    assert repr(name)[:20] in str(refused.value)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    "damaged",
    [
        serialized("Symbol"),
        serialized("Symbol", value=7),
        serialized("Date", value="yesterday"),
        serialized("Date", value=None),
        serialized("Time", value="2026-11-25T10:00:00"),
        serialized("Time", value="99999-01-01T00:00:00Z"),
        serialized("TimeWithZone", value=5, time_zone="UTC"),
        serialized("Duration", value=5),
        serialized("Duration", value=5, parts=7),
        serialized("Duration", value=5, parts=[["seconds"]]),
        serialized("Duration", value=5, parts=[[[], 1]]),
        serialized("Duration", value=5, parts={"seconds": "5"}),
        serialized("Duration", value=5, parts={"seconds": 10**400}),
        serialized("Duration", value=5, parts={"days": 10**15}),
        serialized("BigDecimal", value="many"),
        serialized("BigDecimal", value=1.5),
        serialized("Range", begin=1, end=2),
        serialized("Range", begin=1, end=2, exclude_end="no"),
    ],
)
def test_a_damaged_object_is_refused(damaged: Any) -> None:
    with pytest.raises(InvalidPayload, match=r"arguments\[0\] is not in the format of ActiveJob::Serializers::"):
        Payload.decode(active_job(damaged))


@pytest.mark.parametrize("changes", [{"args": [1]}, {"args": [{}]}, {"args": []}, {"wrapped": 7}])
def test_what_is_no_active_job_is_refused(changes: Any) -> None:
    with pytest.raises(InvalidPayload):
        Payload.decode(active_job(**changes))


def test_arguments_too_deep_to_walk_are_refused() -> None:
    raw = active_job("HERE").replace(b'"HERE"', b"[" * 400 + b"]" * 400)
    with pytest.raises(InvalidPayload, match="nested deeper"):
        Payload.decode(raw)


@pytest.mark.parametrize(
    ("arguments", "args", "kwargs"),
    [
        ([{"a": 1, "_aj_ruby2_keywords": ["a"]}], [], {"a": 1}),
        ([{"_aj_ruby2_keywords": []}], [], {}),
        # Only the hash at the end holds keywords.
        ([{"a": 1, "_aj_ruby2_keywords": ["a"]}, 2], [{"a": 1}, 2], {}),
        ([[{"a": 1, "_aj_ruby2_keywords": ["a"]}]], [[{"a": 1}]], {}),
        ([{"a": 1, "_aj_hash_with_indifferent_access": True}], [{"a": 1}], {}),
        (
            [[{"b": {"c": 2, "_aj_symbol_keys": ["c"]}, "_aj_symbol_keys": []}]],
            [[{"b": {"c": 2}}]],
            {},
        ),
        ([{"_aj_globalid": "gid://a/B/1", "x": 1}], [{"_aj_globalid": "gid://a/B/1", "x": 1}], {}),
        ([12345678901234567890123], [12345678901234567890123], {}),
    ],
)
def test_notes_of_active_job_are_left_out_at_any_depth(arguments: Any, args: Any, kwargs: Any) -> None:
    job = Payload.decode(active_job(*arguments))
    assert (job.args, dict(job.kwargs)) == (args, kwargs)


@pytest.mark.parametrize(
    ("span", "inside", "outside"),
    [
        (Range(1, 5), (1, 5, 2.5), (0, 6)),
        (Range(1, 5, exclude_end=True), (1, 4.9), (5,)),
        (Range(1, None), (1, 10**9), (0,)),
        (Range(None, 5), (-(10**9), 5), (6,)),
        (Range(date(2026, 1, 1), date(2026, 1, 31)), (date(2026, 1, 31),), (date(2026, 2, 1),)),
    ],
)
def test_what_lies_in_a_range(span: Range, inside: tuple[Any, ...], outside: tuple[Any, ...]) -> None:
    assert all(value in span for value in inside)
    assert not any(value in span for value in outside)


@pytest.mark.parametrize("case", RECORDED)
def test_a_failure_leaves_what_rails_wrote(case: str) -> None:
    raw = active_job(*RECORDED[case])
    if case in ("months", "attributes"):
        return  # refused
    before = Payload.decode(raw).fields["args"]
    after = failed(Payload.decode(raw).fields, ValueError(), now=1.0, queue="q")["args"]
    assert after == before == [json.loads(raw)["args"][0]]


def test_callbacks_and_other_brokers_get_json() -> None:
    """What on_failure is sent, and a message on RabbitMQ, is JSON; a later step in Ruby gets what Rails wrote."""
    raw = active_job(*RECORDED["keywords"], RECORDED["decimal"][0], *RECORDED["keywords"][1:])
    payload = Payload.decode(raw)
    sent = SidekiqMessage(payload, "q", "m", "r").asdict()
    codec.check(sent)
    assert list(sent["args"]) == [42, {"language": "de", "at": "2026-11-25"}, "1.5"]
    assert sent["kwargs"] == {"language": "de", "at": "2026-11-25"}
    local = to_foreign(payload, "q")
    codec.check(local.asdict())
    assert (local.args, local.kwargs) == (tuple(sent["args"]), sent["kwargs"])
    assert from_foreign(local, {"retry": True}).fields["args"] == json.loads(raw)["args"]


def test_current_attributes_are_decoded_for_an_actor() -> None:
    expected = {
        "user_id": 42,
        "tenant": "acme",
        "at": date(2026, 11, 25),
        "person": "gid://app/Person/3",
        # What Python has no value for stays as it is.
        "since": RECORDED["attributes"][-1][1],
    }
    context = {
        "cattr": RECORDED["attributes"],  # Sidekiq 8
        "cattr_1": {"user_id": 1, "tags": ["a"]},  # Sidekiq 7
        "cattr_2": "odd",
        "cattr_3": [[1, 2, 3]],
        "cattr_4": [[["x"], 1]],
        "locale": "de",
        "baggage": ["untouched"],
    }
    assert decode_context(context) == {**context, "cattr": expected}
