"""One queue, one language; and what is known of classes and queues, said before a run starts."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Group, Job, RubyJob, SidekiqBroker, WithDelay, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.errors import ConfigurationError, QueueShared
from dramatiq_sidekiq_flow.process.fleet import Fleet, FleetView
from dramatiq_sidekiq_flow.store.connection import connect

from ..running import eventually, members, working

NOOP = "Sidekiq::Workflow::NoopWorker"


@pytest.fixture
def broker(redis_url: str) -> Iterator[SidekiqBroker]:
    broker = SidekiqBroker(url=redis_url, poll_interval=50)
    broker.add_middleware(WorkflowMiddleware())
    yield broker
    broker.close()


def actor(broker: SidekiqBroker, queue: str, name: str = "step") -> Any:
    return dramatiq.actor(actor_name=name, queue_name=queue, broker=broker)(lambda: None)


def process(client: redis.Redis, identity: str, *queues: str, form: str = "weights", **info: Any) -> None:
    """A record as a Sidekiq process writes it."""
    capsule = {"weights": dict.fromkeys(queues, 0)} if form == "weights" else {"queues": list(queues)}
    value = {"queues": list(queues)} if form == "7" else {"capsules": {"default": capsule}}
    client.sadd("processes", identity)
    client.hset(identity, "info", json.dumps({"hostname": "app-1", "pid": 1, "tag": "shop", **value, **info}))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    # Consumers of other tests, which have not ended yet, speak up now and then.
    records = [record for record in caplog.records if not record.name.endswith("Consumer")]
    return [record.getMessage() for record in records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("form", ["weights", "queues", "7"])
def test_a_carrier_on_a_queue_of_ruby_is_refused(broker: SidekiqBroker, client: redis.Redis, form: str) -> None:
    process(client, "app-1:1:abc", "default", form=form)
    step = actor(broker, "default")
    # Among themselves actors travel by their names, which Ruby refuses loudly.
    Workflow(Chain(step.message(), step.message()), broker).run()
    with pytest.raises(QueueShared) as raised:
        Workflow(Chain(Job("R", queue="ruby"), step.message()), broker).run("run-1")
    assert isinstance(raised.value, ConfigurationError)
    assert raised.value.value == "default"
    for text in ("step", "'default'", "app-1:1:abc (shop)", "queue_name=", "-Q"):
        assert text in raised.value.message
    assert client.llen("queue:ruby") == 0
    assert not client.exists("swf:run:run-1")


def test_queues_apart_are_not_refused(broker: SidekiqBroker, client: redis.Redis) -> None:
    process(client, "app-1:1:abc", "default")
    process(client, "app-2:1:abc", "python", "default", language="python")
    Workflow(Chain(Job("R", queue="default"), actor(broker, "python").message()), broker).run()
    assert client.llen("queue:default") == 1


def test_a_worker_that_shares_a_queue_says_so_at_boot(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    process(client, "app-1:1:abc", "shared")
    actor(broker, "shared")
    with working(broker):
        eventually(lambda: "Ruby process app-1:1 (shop) consumes queue 'shared', too" in caplog.text)
    assert "queue_name=" in caplog.text


@pytest.mark.parametrize("with_step", [True, False])
def test_the_job_of_a_delayed_empty_node_goes_where_python_consumes(
    broker: SidekiqBroker, client: redis.Redis, with_step: bool
) -> None:
    process(client, "app-1:1:abc", "default")
    actor(broker, "default", "unused")
    step = actor(broker, "python")
    tree = Chain(WithDelay(Group(), 60_000), step.message() if with_step else Job("R", queue="default"))
    Workflow(tree, broker).run()
    (job,) = members(client, "schedule")
    assert (job["class"], job["queue"]) == (NOOP, "python")


def test_after_a_step_it_goes_to_the_queue_of_that_step(broker: SidekiqBroker, client: redis.Redis) -> None:
    actor(broker, "default", "unused")
    step = actor(broker, "python")
    Workflow(Chain(step.message(), WithDelay(Group(), 60_000), step.message()), broker).run()
    worker = dramatiq.Worker(broker, queues={"python"}, worker_threads=1, worker_timeout=100)
    worker.start()
    (job,) = eventually(lambda: members(client, "schedule"))
    worker.stop()
    assert (job["class"], job["queue"]) == (NOOP, "python")


def test_a_delayed_empty_node_that_only_ruby_could_take_is_refused(broker: SidekiqBroker, client: redis.Redis) -> None:
    process(client, "app-1:1:abc", "default")
    step = actor(broker, "default")
    with pytest.raises(QueueShared, match="delayed empty node"):
        Workflow(Chain(WithDelay(Group(), 60_000), step.message()), broker).run()


def test_the_copy_of_the_fleet_is_kept(redis_url: str, client: redis.Redis) -> None:
    view = FleetView(connect(redis_url))
    assert view.look() == Fleet()
    process(client, "app-1:1:abc", "default")
    assert view.look() == Fleet()
    assert view.look(max_age=0) == Fleet({"default": "app-1:1:abc (shop)"})
    # Members that no Ruby process has are Python's, shown or not; what cannot be read is passed over.
    odd: dict[Any, float] = {"h:1:n:hidden": 1, "app-1:1:abc:default": 1, "odd": 1, b"\xff:1:n:odd": 1}
    client.zadd("swf:workers", odd)
    client.sadd("processes", b"\xff", "text", "gone")
    client.set("text", "x")
    client.hset("broken", "info", "{")
    client.sadd("processes", "broken")
    assert view.look(max_age=0) == Fleet({"default": "app-1:1:abc (shop)"}, frozenset({"hidden", "odd"}))
    view.connection.close()


# -- what is known ------------------------------------------------------------


def test_a_misspelt_class_is_warned_of_though_its_queue_is_said(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.hset("swf:registry:ruby", "Docs::Extract", json.dumps({"queue": "ruby"}))
    for _ in range(2):
        Workflow(Job("Docs::Extrakt", queue="ruby"), broker).run()
    assert warnings_of(caplog) == [
        "No class or actor is known by the name Docs::Extrakt. Do you mean 'Docs::Extract'?",
    ]


def test_a_class_that_ruby_did_not_publish_is_warned_of(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.hset("swf:registry:ruby", "Docs::Extract", json.dumps({"queue": "ruby"}))
    Said = RubyJob("Shop::Order", queue="ruby", retry=3)
    Workflow(Chain(Said(1), Job("Docs::Extract")), broker).run()
    assert warnings_of(caplog) == []
    Workflow(Job("Images::Thumbnail", queue="ruby"), broker).run()
    (warning,) = warnings_of(caplog)
    assert "RubyJob('Images::Thumbnail', queue=..., retry=...)" in warning


def test_an_actor_of_another_broker_is_warned_of(
    broker: SidekiqBroker, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = SidekiqBroker(url=redis_url)
    Workflow(actor(elsewhere, "python", "stranger").message(), broker).run()
    (warning,) = warnings_of(caplog)
    assert "No actor is named stranger on this broker" in warning
    elsewhere.close()


def test_a_queue_that_no_process_consumes_is_warned_of(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    step = actor(broker, "pyton")
    Workflow(step.message(), broker).run()
    assert warnings_of(caplog) == []  # nothing is up yet
    process(client, "app-1:1:abc", "default")
    process(client, "app-2:1:abc", "python", language="python")
    broker.completion.engine.precheck.fleet.look(max_age=0)  # type: ignore[union-attr]
    for _ in range(2):
        Workflow(step.message(), broker).run()
    (warning,) = warnings_of(caplog)
    assert "No live process consumes queue 'pyton', where step goes. Do you mean 'python'?" in warning


def test_a_step_that_names_no_queue_is_looked_at_again_once_a_process_is_up(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    RubyJob("Shop::Order", broker=broker, queue="pyton")
    Workflow(Job("Shop::Order"), broker).run()
    process(client, "app-2:1:abc", "python", language="python")
    broker.completion.engine.precheck.fleet.look(max_age=0)  # type: ignore[union-attr]
    Workflow(Job("Shop::Order"), broker).run()
    (warning,) = warnings_of(caplog)
    assert "No live process consumes queue 'pyton', where Shop::Order goes." in warning


def test_a_worker_says_what_it_is_and_which_queue_has_no_actor(
    broker: SidekiqBroker, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    actor(broker, "python")
    worker = dramatiq.Worker(broker, queues={"python", "pyton"}, worker_threads=2, worker_timeout=100)
    with caplog.at_level(logging.INFO):
        worker.start()
        worker.stop()
    assert f"Worker on {redis_url}, 1 queue (python), 1 actor, 2 threads." in caplog.text
    (warning,) = warnings_of(caplog)
    assert "Queue 'pyton' is not consumed: no actor of this process has queue_name='pyton'." in warning
    assert "Do you mean 'python'?" in warning


def test_a_job_that_no_actor_has_the_name_of_says_what_becomes_of_it(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    actor(broker, "python", "Docs::Index")
    client.lpush("queue:python", json.dumps({"class": "Docs::Indx", "args": [], "jid": "j", "retry": True}))
    with working(broker):
        (job,) = eventually(lambda: members(client, "retry"))
    assert job["error_class"] == "ActorNotFound"
    assert "Do you mean 'Docs::Index'?" in job["error_message"]
    assert "No actor here is named 'Docs::Indx'" in caplog.text
    assert "DLQ" not in caplog.text


def test_an_encoder_of_ones_own_is_refused_by_name(broker: SidekiqBroker, client: redis.Redis) -> None:
    class Sealed(dramatiq.JSONEncoder):
        pass

    step = actor(broker, "python")
    workflow = Workflow(step.message(), broker)
    before = dramatiq.get_encoder()
    dramatiq.set_encoder(Sealed())
    try:
        for call in (step.send, workflow.run, dramatiq.Worker(broker, worker_timeout=100).start):
            with pytest.raises(ConfigurationError, match=r"set_encoder\(Sealed\(\)\) has no effect"):
                call()
    finally:
        dramatiq.set_encoder(before)
    assert client.llen("queue:python") == 0


def test_a_step_in_the_other_dialect_is_warned_of_once(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []

    @dramatiq.actor(queue_name="python", broker=broker)
    def note(name: str) -> None:
        done.append(name)

    for name in "abc":
        key = "workflow_run_id" if name == "a" else "sideline_run_id"
        job = {"class": "note", "args": [name], "jid": name, "queue": "python", "retry": 0, key: f"run-{name}"}
        client.lpush("queue:python", json.dumps(job))
    with working(broker):
        eventually(lambda: sorted(done) == ["a", "b", "c"])
    (warning,) = [text for text in warnings_of(caplog) if "dialect" in text]
    assert "is a step in the dialect 'sideline', this process starts runs in 'workflow'" in warning
    assert "WorkflowMiddleware(dialect='sideline')" in warning
