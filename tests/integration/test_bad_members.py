"""Bad input never stops a worker, and nothing of it is lost."""

from __future__ import annotations

import json
import time

import dramatiq
import redis

from dramatiq_sidekiq_flow import SidekiqBroker
from dramatiq_sidekiq_flow.store import sets

from ..running import eventually, in_flight, members, working


def job(**changes: object) -> bytes:
    fields = {"class": "good", "args": [0], "jid": "b" * 24, "queue": "default", "retry": True, **changes}
    return json.dumps({k: v for k, v in fields.items() if v is not None}).encode()


def test_a_member_whose_queue_is_no_list_goes_to_dead(broker: SidekiqBroker, client: redis.Redis) -> None:
    client.set("queue:odd", "text")
    client.zadd("schedule", {job(queue="odd"): 1.0, job(queue="default"): 2.0})
    broker.process.poller.poll()
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
    assert broker.process.poller.poll() == 0
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
    for task in broker.process.heartbeat.tasks:
        task()
    assert [job["error_class"] for job in members(client, "dead")] == ["MalformedPayload"]
    assert in_flight(client) == []
