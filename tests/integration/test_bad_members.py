"""Bad input never stops a worker, and nothing of it is lost."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import SidekiqBroker
from dramatiq_sidekiq_flow.store import sets

from ..running import eventually, in_flight, members, working

UUID = "224a1be4-c469-4117-94af-8540a8358a95"


def job(**changes: object) -> bytes:
    fields = {"class": "good", "args": [0], "jid": "b" * 24, "queue": "default", "retry": True, **changes}
    return json.dumps({k: v for k, v in fields.items() if v is not None}).encode()


def before(**changes: object) -> bytes:
    """A step before a job with these keys."""
    following = {"__type__": "job", "class": "good", "args": [0], **changes}
    return job(args=[-1], workflow_completion_callbacks=[[UUID, following, False]])


BAD = {
    "not JSON": (b"{not json", "MalformedPayload"),
    "empty": (b"", "MalformedPayload"),
    "not UTF-8": (b'{"class": "good", "args": ["\xff"]}', "MalformedPayload"),
    "a list": (b"[1, 2]", "MalformedPayload"),
    "nested 10,000 deep": (b'{"class":"good","args":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "MalformedPayload"),
    "no class": (job(**{"class": None}), "InvalidPayload"),
    "args a dict": (job(args={"a": 1}), "InvalidPayload"),
    "encrypted": (job(encrypt=True), "UnsupportedPayload"),
    "a stack that is none": (job(workflow_completion_callbacks={"a": 1}), "InvalidCallbacks"),
    "a stack entry of two": (job(workflow_completion_callbacks=[[UUID, None]]), "InvalidCallbacks"),
    "a barrier id of another form": (
        job(workflow_completion_callbacks=[["queues", None, True]]),
        "InvalidCallbacks",
    ),
    "a stack of 1,001": (job(workflow_completion_callbacks=[[UUID, None, True]] * 1001), "InvalidCallbacks"),
    "a class of 1 MB": (job(**{"class": "x" * 10**6}), "InvalidPayload"),
    "a next job whose queue is null": (before(queue=None), "InvalidNode"),
    "a next job whose queue is a dict": (before(queue={"a": 1}), "InvalidNode"),
    "a next job whose queue is a list": (before(queue=["a"]), "InvalidNode"),
    "a next job whose queue is a number": (before(queue=5), "InvalidNode"),
    "a next job whose queue is empty": (before(queue=""), "InvalidNode"),
    "a next job whose retry is text": (before(retry="often"), "InvalidNode"),
    "a next job whose args are text": (before(args="[]"), "InvalidNode"),
    "a next job whose at is text": (before(at="tomorrow"), "InvalidNode"),
    "a next job whose jid is a number": (before(jid=7), "InvalidNode"),
    "a next job whose tags are text": (before(tags="a"), "InvalidNode"),
    "an unknown type": (
        job(workflow_completion_callbacks=[[UUID, {"__type__": "chain", "children": [{"__type__": "loop"}]}, False]]),
        "InvalidNode",
    ),
}


def test_each_lands_in_dead_while_the_good_ones_are_done(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []

    @dramatiq.actor
    def good(n: int) -> None:
        done.append(n)

    payloads = [job(args=[n], jid=f"{n:024x}") for n in range(1000)]
    for place, (raw, _) in enumerate(BAD.values()):
        payloads.insert(place * 40, raw)
    client.lpush("queue:default", *payloads)
    with working(broker):
        broker.join("default", timeout=30_000)
    # Also: no step whose continuation is bad has run.
    assert sorted(done) == list(range(1000))
    assert max(len(record.getMessage()) for record in caplog.records) < 2000
    dead = members(client, "dead")
    assert Counter(d["error_class"] for d in dead) == Counter(name for _, name in BAD.values())
    assert all(d["error_message"] for d in dead)
    # Sidekiq's UI reads each, and can push it again: it has a class, args, a jid and a queue.
    assert all(type(d["class"]) is type(d["jid"]) is type(d["queue"]) is str and type(d["args"]) is list for d in dead)
    assert all(len(d["error_message"]) < 2000 for d in dead)
    raws = {base64.b64decode(d["raw"]) for d in dead if "raw" in d}
    assert raws == {raw for raw, name in BAD.values() if name in ("MalformedPayload", "InvalidPayload")} - {
        BAD["a class of 1 MB"][0]
    }
    assert not in_flight(client)


@pytest.mark.parametrize("name", ["schedule", "retry"])
def test_bad_members_of_sets_go_to_dead_too(broker: SidekiqBroker, client: redis.Redis, name: str) -> None:
    bad = [raw for raw, error in BAD.values() if error in ("MalformedPayload", "InvalidPayload") and len(raw) < 10**6]
    client.zadd(name, dict.fromkeys(bad, 1.0) | {job(): 2.0, job(queue=None): 3.0, job(queue="ruby"): 4.0})
    assert broker.poller.poll() == len(bad) + 3
    assert not client.exists(name)
    assert client.zcard("dead") == len(bad)
    assert (client.llen("queue:default"), client.llen("queue:ruby")) == (2, 1)
    assert client.smembers("queues") == {b"default", b"ruby"}


def test_a_member_whose_queue_is_no_list_goes_to_dead(broker: SidekiqBroker, client: redis.Redis) -> None:
    client.set("queue:odd", "text")
    client.zadd("schedule", {job(queue="odd"): 1.0, job(queue="default"): 2.0})
    broker.poller.poll()
    (dead,) = members(client, "dead")
    assert dead["error_class"] == "WrongType"
    assert client.llen("queue:default") == 1


def test_a_queue_that_is_no_list_does_not_stop_the_others(broker: SidekiqBroker, client: redis.Redis) -> None:
    done: list[int] = []
    client.set("queue:odd", "text")
    broker.declare_queue("odd")

    @dramatiq.actor
    def good(n: int) -> None:
        done.append(n)

    good.send(1)
    with working(broker):
        eventually(lambda: done)


def test_what_is_not_due_stays(broker: SidekiqBroker, client: redis.Redis) -> None:
    client.zadd("schedule", {job(): time.time() + 60})
    assert broker.poller.poll() == 0
    assert client.zcard("schedule") == 1


def test_two_pollers_promote_a_job_once(broker: SidekiqBroker, client: redis.Redis) -> None:
    client.zadd("schedule", {job(jid=f"{n:024x}"): 1.0 for n in range(50)})
    found = sets.due(broker.connection, 100, {})["schedule"]
    promotions = [sets.Promotion(member, "default", member) for member in found.members]
    assert sets.promote(broker.connection, "schedule", 1.0, promotions).moved == 50
    assert sets.promote(broker.connection, "schedule", 1.0, promotions).moved == 0
    assert client.llen("queue:default") == 50


def test_dead_of_another_type_loses_nothing(broker: SidekiqBroker, client: redis.Redis) -> None:
    """Where `dead` cannot take a job, it stays in flight until `dead` can."""
    client.set("dead", "text")
    client.lpush("queue:default", b"{not json")
    broker.declare_queue("default")
    consumer = broker.consume("default", prefetch=1, timeout=50)
    assert next(consumer) is None
    assert in_flight(client) == [b"{not json"]
    client.delete("dead")
    for task in broker.heartbeat.tasks:
        task()
    assert [job["error_class"] for job in members(client, "dead")] == ["MalformedPayload"]
    assert in_flight(client) == []
