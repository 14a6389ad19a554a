"""What a person does in Sidekiq's Web UI: to Redis exactly what ``api.rb`` does."""

from __future__ import annotations

import json
import time
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Group, SidekiqBroker, Workflow

from ..redis_values import raws, scored
from ..running import eventually, in_flight, members, working

WRAPPER = "ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper"


class Ui:
    """``SortedEntry`` and ``Client#push``."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def _remove(self, name: str, jid: str) -> dict[str, Any]:
        """``remove_job``: by score, then the others with it back."""
        (found,) = [
            (member, score)
            for member, score in scored(self.client.zrange(name, 0, -1, withscores=True))
            if json.loads(member)["jid"] == jid
        ]
        member, score = found
        removed = raws(self.client.zrange(name, score, score, byscore=True))
        self.client.zremrangebyscore(name, score, score)
        for other in removed:
            if other != member:
                self.client.zadd(name, {other: score})
        job: dict[str, Any] = json.loads(member)
        return job

    def retry(self, name: str, jid: str) -> None:
        job = self._remove(name, jid)
        if "retry_count" in job:
            job["retry_count"] -= 1
        job = {"retry": True, "queue": "default", **job, "enqueued_at": time.time()}
        self.client.sadd("queues", job["queue"])
        self.client.lpush(f"queue:{job['queue']}", json.dumps(job))

    def kill(self, jid: str) -> None:
        job = self._remove("retry", jid)
        self.client.zadd("dead", {json.dumps(job): time.time()})

    def delete(self, name: str, jid: str) -> None:
        self._remove(name, jid)


@pytest.fixture
def ui(client: redis.Redis) -> Ui:
    return Ui(client)


class Steps:
    """An actor that fails as often as it is told, and the order in which steps were done."""

    def __init__(self) -> None:
        self.failing: dict[str, int] = {}
        self.done: list[str] = []
        self.counts: list[tuple[str, Any]] = []

        @dramatiq.actor(actor_name="Step", queue_name="python", max_retries=3)
        def step(name: str) -> None:
            if self.failing.get(name, 0):
                self.failing[name] -= 1
                raise ValueError(f"{name} is not to be done yet")
            self.done.append(name)

        self.step = step

    def __call__(self, name: str, failing: int = 0, **options: Any) -> Any:
        self.failing[name] = failing
        return self.step.message_with_options(args=(name,), **options)


@pytest.fixture
def steps(broker: SidekiqBroker) -> Steps:
    return Steps()


def one(client: redis.Redis, name: str) -> dict[str, Any]:
    """The only job of a set, once it is there."""
    eventually(lambda: client.zcard(name) == 1, what=f"a job in {name}")
    (job,) = members(client, name)
    return job


def test_retry_now(client: redis.Redis, steps: Steps, ui: Ui, broker: SidekiqBroker) -> None:
    Workflow(Chain(Group(steps("a", failing=2), steps("b")), steps("c"))).run()
    with working(broker):
        first = one(client, "retry")
        assert first["retry_count"] == 0
        ui.retry("retry", first["jid"])
        # Now -1, a failure makes it 0 again, and no longer the first one.
        eventually(lambda: steps.failing["a"] == 0 and client.zcard("retry") == 1)
        second = one(client, "retry")
        assert second["jid"] == first["jid"]
        assert second["retry_count"] == 0
        assert second["failed_at"] == first["failed_at"]
        assert "retried_at" in second
        ui.retry("retry", second["jid"])
        eventually(lambda: "c" in steps.done)
        broker.join("python", timeout=20_000)
    assert sorted(steps.done[:2]) == ["a", "b"]
    assert steps.done[2:] == ["c"]


def test_kill_then_retry_from_dead(client: redis.Redis, steps: Steps, ui: Ui, broker: SidekiqBroker) -> None:
    Workflow(Chain(steps("a"), steps("b", failing=1), steps("c"))).run()
    with working(broker):
        job = one(client, "retry")
        ui.kill(job["jid"])
        dead = one(client, "dead")
        assert dead == job
        assert steps.done == ["a"]
        ui.retry("dead", dead["jid"])
        eventually(lambda: "c" in steps.done)
        broker.join("python", timeout=20_000)
    assert steps.done == ["a", "b", "c"]
    assert not client.exists("dead", "retry")


def test_retry_from_dead_of_a_job_without_retries(
    client: redis.Redis, steps: Steps, ui: Ui, broker: SidekiqBroker
) -> None:
    Workflow(Chain(steps("a", failing=2, retry=0), steps("b"))).run()
    with working(broker):
        for _ in range(2):
            dead = one(client, "dead")
            assert dead["retry_count"] == 0
            ui.retry("dead", dead["jid"])
            # It comes back dead, as Ruby's does: retrying it is one try, not more.
            eventually(lambda: not in_flight(client) and not members(client, "python"))
        eventually(lambda: steps.done == ["a", "b"])
    assert not client.exists("dead", "retry")


def test_delete(client: redis.Redis, steps: Steps, ui: Ui, broker: SidekiqBroker) -> None:
    """Its run waits for ever; nothing else happens."""
    Workflow(Chain(Group(steps("a", failing=1), steps("b")), steps("c"))).run()
    with working(broker):
        job = one(client, "retry")
        eventually(lambda: steps.done == ["b"])
        ui.delete("retry", job["jid"])
        broker.join("python", timeout=20_000)
    assert steps.done == ["b"]
    assert not client.exists("dead", "retry")


def test_retry_twice_by_two_people_advances_once(
    client: redis.Redis, steps: Steps, ui: Ui, broker: SidekiqBroker
) -> None:
    """The second press finds the same job twice in the queue."""
    Workflow(Chain(Group(steps("a", failing=1), steps("b")), steps("c"))).run()
    with working(broker):
        job = one(client, "retry")
        member = json.dumps({**job, "retry_count": -1})
        ui.delete("retry", job["jid"])
        client.lpush("queue:python", member, member)
        eventually(lambda: "c" in steps.done)
        broker.join("python", timeout=20_000)
    assert steps.done.count("c") == 1


def test_add_to_queue_from_scheduled(client: redis.Redis, steps: Steps, ui: Ui, broker: SidekiqBroker) -> None:
    message = broker.enqueue(steps("a"), delay=3_600_000)
    with working(broker):
        ui.retry("schedule", message.message_id)  # without retry_count, it is what add_to_queue does
        eventually(lambda: steps.done == ["a"])
    assert not client.exists("schedule")


def test_delete_from_a_queue(client: redis.Redis, steps: Steps, broker: SidekiqBroker) -> None:
    """``JobRecord#delete`` is an LREM of the job as it stands in the queue."""
    for name in ("a", "b"):
        broker.enqueue(steps(name))
    first: Any
    (first,) = [raw for raw in raws(client.lrange("queue:python", 0, -1)) if b'"a"' in raw]
    assert client.lrem("queue:python", 1, first) == 1
    with working(broker):
        eventually(lambda: steps.done == ["b"])


def test_what_a_person_sees_of_a_job_is_kept(client: redis.Redis, steps: Steps, broker: SidekiqBroker) -> None:
    """Tags, the name to show, and keys of other programs (``profile`` of Sidekiq 8) through a failure."""
    seen = {"tags": ["etl", "nightly"], "display_class": "Nightly import", "profile": "mike"}
    job = {"class": "Step", "args": ["a"], "jid": "0" * 24, "queue": "python", "retry": 3, "created_at": 1.5, **seen}
    steps.failing["a"] = 1
    client.lpush("queue:python", json.dumps(job))
    with working(broker):
        failed = one(client, "retry")
    assert {key: failed[key] for key in seen} == seen


def test_an_active_job_is_counted_and_shown_by_its_own_class(client: redis.Redis, broker: SidekiqBroker) -> None:
    @dramatiq.actor(actor_name="ImportJob", queue_name="python", max_retries=2)
    def run(number: int) -> None:
        raise ValueError(f"not {number}")

    inner = {"job_class": "ImportJob", "job_id": "1", "arguments": [7], "queue_name": "python", "locale": "en"}
    job = {"class": WRAPPER, "wrapped": "ImportJob", "args": [inner], "jid": "1" * 24, "queue": "python", "retry": 2}
    client.lpush("queue:python", json.dumps(job))
    with working(broker):
        failed = one(client, "retry")
    assert (failed["class"], failed["wrapped"], failed["args"]) == (WRAPPER, "ImportJob", [inner])
    assert failed["error_message"] == "not 7"
    assert any(client.hget(key, "ImportJob|f") == b"1" for key in client.keys("j|*"))


def test_a_carriers_name_is_its_actors(client: redis.Redis, broker: SidekiqBroker) -> None:
    @dramatiq.actor(actor_name="docs.extract", queue_name="python", max_retries=0)
    def extract() -> None:
        raise ValueError("no")

    names = {"class": "Sidekiq::Workflow::NoopWorker", "wrapped": "docs.extract", "display_class": "docs.extract"}
    job = {**names, "args": [], "jid": "2" * 24, "queue": "python", "retry": 0, "tags": ["etl"]}
    client.lpush("queue:python", json.dumps(job))
    with working(broker):
        dead = one(client, "dead")
    assert (dead["wrapped"], dead["display_class"], dead["tags"]) == ("docs.extract", "docs.extract", ["etl"])
    assert any(client.hget(key, "docs.extract|f") == b"1" for key in client.keys("j|*"))
