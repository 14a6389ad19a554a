"""What the other language's classes are, read from Redis or a file."""

from __future__ import annotations

import json
import logging
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.stub import StubBroker

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    Job,
    RedisHashMemory,
    RubyJob,
    SidekiqBroker,
    Workflow,
    WorkflowMiddleware,
    current_run,
)
from dramatiq_sidekiq_flow.cli.main import main
from dramatiq_sidekiq_flow.errors import ConfigurationError
from dramatiq_sidekiq_flow.store import class_registry as registry_store
from dramatiq_sidekiq_flow.store.connection import connect
from dramatiq_sidekiq_flow.wire.dialect import SIDELINE

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


def test_a_registry_that_is_written_expires(redis_url: str, client: redis.Redis) -> None:
    """Both in one step: a process that ends in between would leave a registry that tells of it for ever."""
    connection = connect(redis_url)
    with client.monitor() as monitor:
        registry_store.publish(connection, "python", {f"A{n}": b"{}" for n in range(3000)})
        client.set("end", 1)
        sent = []
        for command in monitor.listen():
            if command["command"].startswith("SET end"):
                break
            if command["client_type"] != "lua" and not command["command"].startswith(("CLIENT", "HELLO")):
                sent.append(command["command"].split()[0])
    assert set(sent) <= {"EVALSHA", "SCRIPT"}
    assert client.hlen("swf:registry:python") == 3000
    assert 3 * 86_400 - 60 <= client.ttl("swf:registry:python") <= 3 * 86_400
    client.delete("swf:registry:python")
    client.lpush("swf:registry:python", "odd")
    with pytest.raises(Exception, match="WRONGTYPE"):
        registry_store.publish(connection, "python", {"A": b"{}"})
    connection.close()


def test_a_class_known_nowhere_is_warned_of_once(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run_onto_ruby(broker)
        Workflow(Chain(Job("Reg::Thumbnail", 8)), broker=broker).run()
    assert caplog.text.count("The class Reg::Thumbnail is unknown here") == 1
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


def test_what_is_said_comes_before_what_the_class_says(redis_url: str, client: redis.Redis) -> None:
    """Nearest first: the step, WorkflowMiddleware(classes=...), RubyJob, the registry; each for what it leaves open."""
    client.hset("swf:registry:ruby", "Reg::Nearest", json.dumps({**THUMBNAIL, "backtrace": 5}))
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(classes={"Reg::Nearest": {"retry": 1}}))
    RubyJob("Reg::Nearest", retry=2, tags=["job"])
    Workflow(Group(Job("Reg::Nearest"), Job("Reg::Nearest", queue="mine")), broker=broker).run()
    (job,) = members(client, "critical")
    assert (job["retry"], job["tags"], job["backtrace"]) == (1, ["job"], 5)
    (job,) = members(client, "mine")
    assert (job["retry"], job["tags"], job["backtrace"]) == (1, ["job"], 5)
    broker.close()


def test_a_ruby_job_of_a_broker_counts_on_that_broker_only(redis_url: str, client: redis.Redis) -> None:
    """Without a broker it counts on each, also where it was declared before; the broker's own comes first."""
    RubyJob("Reg::Everywhere", queue="everywhere")
    RubyJob("Reg::Own", queue="shared")
    first, second = SidekiqBroker(url=redis_url), SidekiqBroker(url=redis_url)
    RubyJob("Reg::Own", broker=first, queue="first")
    RubyJob("Reg::Mine", broker=second, queue="mine")
    for broker in (first, second):
        broker.add_middleware(WorkflowMiddleware())
        Workflow(Group(Job("Reg::Everywhere"), Job("Reg::Own"), Job("Reg::Mine")), broker=broker).run()
        broker.close()
    queues = {name: len(members(client, name)) for name in ("everywhere", "first", "shared", "mine", "default")}
    assert queues == {"everywhere": 2, "first": 1, "shared": 1, "mine": 1, "default": 1}


def test_a_ruby_job_refuses_a_broker_that_is_not_sidekiqs() -> None:
    with pytest.raises(ConfigurationError, match="StubBroker is not a SidekiqBroker"):
        RubyJob("Reg::Own", broker=StubBroker(), queue="first")  # type: ignore[arg-type]


def test_a_known_class_costs_no_round_trip(broker: SidekiqBroker, client: redis.Redis) -> None:
    client.hset("swf:registry:ruby", "Reg::Thumbnail", json.dumps(THUMBNAIL))

    @dramatiq.actor(queue_name="python", broker=broker)
    def step() -> None: ...

    for _ in range(2):
        Workflow(Chain(step.message(), Job("Reg::Thumbnail", 7)), broker=broker).run()
    consumer = broker.consume("python", prefetch=2)
    first, second = next(consumer), next(consumer)
    consumer.ack(first)  # the scripts are loaded, the registry is read
    before = client.info("stats")["total_reads_processed"]
    consumer.ack(second)
    # INFO itself, and the advance.
    assert client.info("stats")["total_reads_processed"] - before == 2
    assert len(members(client, "critical")) == 2


def test_a_named_class_is_not_guessed_while_redis_is_away(
    broker: SidekiqBroker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dramatiq.actor(queue_name="python", broker=broker)
    def step() -> None: ...

    Workflow(Chain(step.message(), Job("Reg::Thumbnail", 7)), broker=broker).run()
    client.hset("swf:registry:ruby", "Reg::Thumbnail", json.dumps(THUMBNAIL))
    lost: list[Any] = []
    read = registry_store.read

    def losing(*args: Any) -> Any:
        if len(lost) < 2:
            lost.append(1)
            raise redis.ConnectionError("gone")
        return read(*args)

    monkeypatch.setattr(registry_store, "read", losing)
    with working(broker):
        (job,) = eventually(lambda: members(client, "critical"))
    assert (job["retry"], len(lost)) == (3, 2)
    assert members(client, "default") == []


def test_the_file_takes_rubys_classes_from_redis(
    redis_url: str, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "registry_app.py").write_text(
        f"""
import dramatiq
from dramatiq_sidekiq_flow import SidekiqBroker
broker = SidekiqBroker(url={redis_url!r})
@dramatiq.actor(actor_name="Docs::Extract", queue_name="python", broker=broker)
def extract(doc_id): ...
""",
        "utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "registry_app", raising=False)
    # Two of them are Ruby's stubs, of an actor here and of one elsewhere.
    for name in ("Reg::Thumbnail", "Docs::Extract", "Docs::Index"):
        client.hset("swf:registry:ruby", name, json.dumps(THUMBNAIL))
    client.hset("swf:registry:python", "Docs::Index", json.dumps({"queue": "gpu"}))
    assert main(["registry", "registry_app:broker", "--output", "both.json"]) == 0
    written = json.loads((tmp_path / "both.json").read_text("utf-8"))
    assert written == {
        "python": {"Docs::Extract": {"queue": "python", "retry": True}},
        "ruby": {"Reg::Thumbnail": THUMBNAIL},
    }


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


def test_a_job_of_the_other_name_goes_on_under_it(broker: SidekiqBroker, client: redis.Redis) -> None:
    """A broker of one dialect, a job of the other: that run's keys and memory stay the other's."""
    seen: list[Any] = []

    @dramatiq.actor(queue_name="python", broker=broker)
    def step() -> dict[str, Any]:
        run = current_run()
        seen.append((run.run_id, run.memory.read()))
        return {"n": 1}

    barrier = str(uuid.uuid4())
    rest = {"__type__": "with_delay", "delay": 60_000, "task": {"__type__": "chain", "children": []}}
    fields = {
        "class": "step",
        "args": [],
        "jid": "a" * 24,
        "queue": "python",
        "retry": True,
        "sideline_run_id": "run",
        "sideline_completion_callbacks": [[barrier, {"__type__": "chain", "children": [rest]}, False]],
    }
    client.hset("sl:mem:run", "before", "7")
    client.set(barrier, 1)
    client.set(f"{barrier}_ran", -1)
    client.lpush("queue:python", json.dumps(fields))
    with working(broker):
        (job,) = eventually(lambda: members(client, "schedule"))
    assert seen == [("run", {"before": 7})]
    assert (job["class"], job["sideline_run_id"]) == ("Sidekiq::Sideline::NoopWorker", "run")
    assert not any(key.startswith("workflow_") for key in job)
    assert client.hget("sl:mem:run", "n") == b"1"
    assert not client.exists("swf:mem:run")


def test_a_prefix_that_was_given_is_kept_in_either_dialect(redis_url: str, client: redis.Redis) -> None:
    memory = RedisHashMemory(key_prefix="mine")
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(memory=memory, dialect="sideline"))
    assert memory.key("run") == memory.for_dialect(SIDELINE).key("run") == "mine:run"
    broker.close()
