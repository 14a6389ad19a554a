"""What only Ruby's middleware honours in a payload is honoured here, or warned of."""

from __future__ import annotations

import json
import time
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware
from dramatiq_sidekiq_flow.broker import ruby_features
from dramatiq_sidekiq_flow.wire.payload_fields import expiry

from ..running import eventually, in_flight, members, working

UUID = "224a1be4-c469-4117-94af-8540a8358a95"


@pytest.fixture(autouse=True)
def _unwarned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ruby_features, "_warned", set())


def push(client: redis.Redis, *args: Any, **keys: Any) -> None:
    fields = {"class": "Offers::Send", "args": args, "jid": str(args[0]).rjust(24, "0"), "queue": "python"}
    client.lpush("queue:python", json.dumps({**fields, "retry": True, "created_at": time.time(), **keys}))


def declared(broker: SidekiqBroker) -> list[Any]:
    ran: list[Any] = []

    @dramatiq.actor(queue_name="python", actor_name="Offers::Send")
    def send(name: Any) -> None:
        ran.append(name)

    return ran


def test_an_expired_job_is_dropped_and_a_fresh_one_runs(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    ran = declared(broker)
    push(client, 1, expiry=time.time() - 5, expires_in=5.0)
    push(client, 2, expiry=time.time() + 3600)
    push(client, 3, expires_in=5.0)
    push(client, 4, expiry="never")
    with working(broker):
        eventually(lambda: len(ran) == 3)
        broker.join("python", timeout=10_000)
    assert ran == [2, 3, 4]
    assert not client.exists("dead", "retry")
    assert not in_flight(client)
    (said,) = [r.getMessage() for r in caplog.records if r.name == ruby_features.__name__]
    assert "000001 of Offers::Send expired at 20" in said


@pytest.mark.parametrize("stack", [[[UUID, None, True]], None])
def test_an_expired_step_is_dead_for_its_run_waits(broker: SidekiqBroker, client: redis.Redis, stack: Any) -> None:
    broker.add_middleware(WorkflowMiddleware())
    ran = declared(broker)
    push(client, 1, expiry=1_000_000_000, workflow_run_id=UUID, workflow_completion_callbacks=stack)
    with working(broker):
        eventually(lambda: client.zcard("dead"))
    (dead,) = members(client, "dead")
    assert dead["error_class"] == "JobExpired"
    assert "expired at 2001-09-09T01:46:40+00:00" in dead["error_message"]
    assert not ran
    assert not in_flight(client)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"bid": "Xk3GqUNx6A"}, "batch of Sidekiq Pro (bid 'Xk3GqUNx6A')"),
        ({"unique_for": 600, "unique_token": "abc"}, "lock of a unique job (unique_for)"),
        ({"lock": "until_executed", "lock_digest": "uniquejobs:1", "lock_ttl": None}, "lock of a unique job (lock)"),
        ({"unlock": "uniquejobs:1"}, "lock of a unique job (unlock)"),
    ],
)
def test_what_python_does_not_do_is_said_once(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture, keys: Any, named: str
) -> None:
    ran = declared(broker)
    for number in range(20):
        push(client, number, **keys)
    with working(broker):
        eventually(lambda: len(ran) == 20)
    (said,) = [r.getMessage() for r in caplog.records if r.name == ruby_features.__name__]
    assert said.startswith("Jobs of Offers::Send ")
    assert named in said


def test_a_feature_that_is_off_is_not_warned_of(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    ran = declared(broker)
    push(client, 1, unique_for=False, bid=None, lock=None, lock_ttl=None, expiry=None)
    with working(broker):
        eventually(lambda: ran)
    assert not [r for r in caplog.records if r.name == ruby_features.__name__]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (1_795_537_424.25, 1_795_537_424.25),
        (1_795_537_424, 1_795_537_424.0),
        (1_795_537_424_250, 1_795_537_424.25),
        (10**400, None),
        (1e300, None),
        (True, None),
        ({}, None),
        (None, None),
        (-5, -5.0),
    ],
)
def test_an_expiry_of_any_type(written: Any, read: float | None) -> None:
    assert expiry({"expiry": written}) == read
