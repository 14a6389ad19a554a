"""Jobs of Rails' ActiveJob reach actors with their keywords and values."""

from __future__ import annotations

import json
import time
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import attrs
import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import SidekiqBroker, actor

from ..running import eventually, members, working
from ..unit.test_active_job import RECORDED, active_job


def push(client: redis.Redis, *arguments: Any, **changes: Any) -> bytes:
    raw = active_job(*arguments, queue="python", retry=True, created_at=time.time(), **changes)
    client.lpush("queue:python", raw)
    return raw


def test_keywords_and_values_reach_the_actor(broker: SidekiqBroker, client: redis.Redis) -> None:
    calls: list[Any] = []

    @dramatiq.actor(queue_name="python", actor_name="Docs::Extract")
    def extract(doc_id: int, *others: Any, language: str = "en", at: date | None = None) -> None:
        calls.append((doc_id, others, language, at))

    push(client, *RECORDED["keywords"])
    push(client, 1, {"language": "a hash", "_aj_symbol_keys": ["language"]})
    push(client, 2, RECORDED["decimal"][0], RECORDED["duration"][0])
    with working(broker):
        eventually(lambda: len(calls) == 3)
    assert calls[0] == (42, (), "de", date(2026, 11, 25))
    assert calls[1] == (1, ({"language": "a hash"},), "en", None)
    assert calls[2] == (2, (Decimal("1.5"), timedelta(hours=2, minutes=30)), "en", None)


def test_a_keyword_that_the_actor_does_not_take_fails_as_in_ruby(broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(queue_name="python", actor_name="Docs::Extract")
    def extract(doc_id: int) -> None:
        pass

    raw = push(client, *RECORDED["keywords"])
    with working(broker):
        eventually(lambda: client.zcard("retry"))
    (failed,) = members(client, "retry")
    assert failed["error_class"] == "TypeError"
    assert "language" in failed["error_message"]
    # Retried by whichever language, the arguments are what Rails wrote.
    assert failed["args"] == json.loads(raw)["args"]


@attrs.frozen
class Extract:
    doc_id: int
    since: datetime
    price: Decimal
    wait: timedelta
    kind: str = "plain"


def test_a_typed_actor_takes_keywords_as_its_fields(broker: SidekiqBroker, client: redis.Redis) -> None:
    calls: list[Extract] = []

    @actor(queue_name="python", actor_name="Docs::Extract")
    def extract(input: Extract) -> None:
        calls.append(input)

    keywords = {
        "doc_id": 42,
        "since": RECORDED["time"][1],
        "price": RECORDED["decimal"][0],
        "wait": RECORDED["duration"][0],
        "kind": RECORDED["symbol"][0],
    }
    push(client, {**keywords, "_aj_ruby2_keywords": list(keywords)})
    with working(broker):
        eventually(lambda: calls or client.zcard("dead"))
    (call,) = calls
    assert (call.doc_id, call.price, call.wait, call.kind) == (
        42,
        Decimal("1.5"),
        timedelta(hours=2, minutes=30),
        "fast",
    )
    assert call.since.utcoffset() == timedelta(hours=9)


def test_callbacks_of_a_failed_job_are_sent(broker: SidekiqBroker, client: redis.Redis) -> None:
    """They are sent the message, whose values are text there."""
    told: list[Any] = []

    @dramatiq.actor(queue_name="python")
    def told_of_failure(message: Any, error: Any) -> None:
        told.append(message)

    @dramatiq.actor(queue_name="python", actor_name="Docs::Extract", on_failure="told_of_failure")
    def extract(doc_id: int, language: str, at: date) -> None:
        raise ValueError("bad")

    push(client, *RECORDED["keywords"])
    with working(broker):
        eventually(lambda: told)
    assert told[0]["kwargs"] == {"language": "de", "at": "2026-11-25"}


@pytest.mark.parametrize("argument", [RECORDED["months"][0], {"_aj_serialized": "MoneySerializer", "cents": 1}])
def test_what_python_cannot_read_is_dead_by_name(broker: SidekiqBroker, client: redis.Redis, argument: Any) -> None:
    broker.declare_queue("python")
    raw = push(client, argument)
    with working(broker):
        eventually(lambda: client.zcard("dead"))
    (dead,) = members(client, "dead")
    assert dead["error_class"] == "UnsupportedPayload"
    assert dead["args"] == json.loads(raw)["args"]
