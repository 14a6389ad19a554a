"""What the other language's classes are, read from Redis or a file."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Job, RedisHashMemory, SidekiqBroker, Workflow, WorkflowMiddleware

from ..running import eventually, members, working

THUMBNAIL = {"queue": "critical", "retry": 3, "tags": ["images"]}


def run_onto_ruby(broker: SidekiqBroker) -> None:
    """Python finishes a step, and advances onto a class of Ruby's that the step does not describe."""

    @dramatiq.actor(actor_name="Py::Step", queue_name="python", broker=broker)
    def step() -> None: ...

    Workflow(Chain(step.message(), Job("Reg::Thumbnail", 7)), broker=broker).run()
    with working(broker):
        broker.join("python", timeout=10_000)


def test_a_class_in_the_registry_keeps_its_queue_and_retries(broker: SidekiqBroker, client: redis.Redis) -> None:
    client.hset("swf:registry:ruby", "Reg::Thumbnail", json.dumps(THUMBNAIL))
    run_onto_ruby(broker)
    (job,) = members(client, "critical")
    assert {key: job[key] for key in THUMBNAIL} == THUMBNAIL


def test_a_worker_publishes_its_actors_with_an_expiry(broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(actor_name="Docs::Extract", queue_name="python", max_retries=5)
    def extract() -> None: ...

    with working(broker):
        raw = eventually(lambda: client.hget("swf:registry:python", "Docs::Extract"))
    assert json.loads(raw) == {"queue": "python", "retry": 5}
    assert 0 < client.ttl("swf:registry:python") <= 3 * 86_400


def test_a_class_known_nowhere_is_warned_of_once(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run_onto_ruby(broker)
        Workflow(Chain(Job("Reg::Thumbnail", 8)), broker=broker).run()
    assert caplog.text.count("Nothing is known of Reg::Thumbnail") == 1
    assert len(members(client, "default")) == 2


@pytest.fixture
def with_file(redis_url: str, tmp_path: Path) -> Iterator[SidekiqBroker]:
    (tmp_path / "classes.json").write_text(json.dumps({"ruby": {"Reg::Thumbnail": THUMBNAIL}}), "utf-8")
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(registry=tmp_path / "classes.json"))
    yield broker
    broker.close()


def test_a_file_comes_before_redis(with_file: SidekiqBroker, client: redis.Redis) -> None:
    client.hset("swf:registry:ruby", "Reg::Thumbnail", json.dumps({"queue": "other"}))
    run_onto_ruby(with_file)
    assert len(members(client, "critical")) == 1


def test_an_entry_that_cannot_be_read_is_passed_over(broker: SidekiqBroker, client: redis.Redis) -> None:
    client.hset("swf:registry:ruby", mapping={"Reg::Thumbnail": b"\xff", "Other": json.dumps(THUMBNAIL)})
    run_onto_ruby(broker)
    assert len(members(client, "default")) == 1


def test_a_run_goes_on_in_the_dialect_that_it_began_in(redis_url: str, client: redis.Redis) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(), dialect="sideline"))

    @dramatiq.actor(queue_name="python", broker=broker)
    def step(n: int) -> dict[str, Any]:
        return {"n": n}

    run_id = Workflow(Chain(step.message(1), Job("Ruby::Step", queue="ruby")), broker=broker).run()
    (job,) = members(client, "python")
    assert (job["sideline_run_id"], job["class"]) == (run_id, "Sidekiq::Sideline::NoopWorker")
    with working(broker):
        broker.join("python", timeout=10_000)
    (job,) = members(client, "ruby")
    assert job["sideline_run_id"] == run_id
    assert not any(key.startswith("workflow_") for key in job)
    assert client.hgetall(f"sl:mem:{run_id}") == {b"n": b"1"}
    broker.close()
