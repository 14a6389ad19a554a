"""Callbacks of runs: each is called once, whatever ends the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import attrs
import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    Job,
    RedisHashMemory,
    Runs,
    SidekiqBroker,
    Workflow,
    WorkflowMiddleware,
    actor,
)
from dramatiq_sidekiq_flow.context import current_run
from dramatiq_sidekiq_flow.errors import ConfigurationError, InvalidOptions, InvalidWorkflow
from dramatiq_sidekiq_flow.store import foreign_runs, keys
from dramatiq_sidekiq_flow.store.connection import Connection
from dramatiq_sidekiq_flow.store.needs import Needs
from dramatiq_sidekiq_flow.store.step_records import Death
from dramatiq_sidekiq_flow.workflow.templates import templates

from ..redis_values import as_bytes, raws
from ..running import advance, eventually, in_flight, members, working


class Steps:
    """Actors that note what ran.

    Attributes:
      ran: The arguments of the steps that ran.
      told: The arguments of the callbacks that ran.
    """

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.told: list[tuple[Any, ...]] = []

        @dramatiq.actor(queue_name="python", max_retries=0)
        def step(name: str, fails: bool = False) -> dict[str, str]:
            self.ran.append(name)
            if fails and self.ran.count(name) == 1:
                raise ValueError(f'"{name}" fails')
            return {name: "ran"}

        @dramatiq.actor(queue_name="calls", max_retries=0)
        def tell(*args: Any) -> dict[str, str]:
            run = current_run()
            assert run.run_id == args[-1]["run_id"]
            assert not run.cancelled()
            self.told.append((*args, dict(run.memory.read())))
            if args[0] == "fails":
                raise ValueError("the callback fails")
            return {"tell": "is not kept"}

        self.step, self.tell = step, tell


@pytest.fixture
def steps(broker: SidekiqBroker) -> Steps:
    return Steps()


def called(client: redis.Redis) -> list[dict[str, Any]]:
    """The callbacks that wait for a worker."""
    return members(client, "calls")


def mapping_of(job: dict[str, Any]) -> dict[str, Any]:
    mapping: dict[str, Any] = job["args"][-1]
    return mapping


def test_the_end(broker: SidekiqBroker, client: redis.Redis, steps: Steps) -> None:
    step, tell = steps.step.message, steps.tell.message
    workflow = Workflow(
        Group(step("a"), step("b")), on_success=step("last"), on_failure=tell("never"), on_complete=tell("done", 1)
    )
    run_id = workflow.run()
    with working(broker):
        assert Runs(broker).wait(run_id, timeout=20_000).state == "done"
        eventually(lambda: steps.told)
        eventually(lambda: not in_flight(client))
    assert steps.ran[-1] == "last"
    memory = {"a": "ran", "b": "ran", "last": "ran"}
    assert steps.told == [("done", 1, {"run_id": run_id, "template": None, "state": "done"}, memory)]
    run = Runs(broker).get(run_id)
    assert (run.progress.done, run.progress.total, run.memory) == (3, 3, memory)
    assert client.hget(keys.record(run_id), "on_complete") is None
    assert client.hget(keys.record(run_id), "on_failure") is not None


def test_the_payload_is_that_of_a_job(broker: SidekiqBroker, client: redis.Redis, steps: Steps) -> None:
    message = steps.tell.message("x")
    message.options["retry"] = 7
    run_id = Workflow(steps.step.message("a"), on_complete=message).run()
    with working(broker, queues={"python"}):
        eventually(lambda: called(client))
    (job,) = called(client)
    assert job.pop("enqueued_at") >= job.pop("created_at") > 1e9
    assert job == {
        "class": "tell",
        "args": ["x", {"run_id": run_id, "template": None, "state": "done"}],
        "queue": "calls",
        "retry": 7,
        "jid": message.message_id,
        "workflow_run_id": run_id,
        "swf_callback": "complete",
    }
    assert client.sismember("queues", "calls")


def test_a_death_is_told_once(broker: SidekiqBroker, client: redis.Redis, steps: Steps) -> None:
    tree = Chain(steps.step.message("a"), Group(steps.step.message("b", True), steps.step.message("c", True)))
    templates.register("told", lambda: Workflow(tree, on_failure=steps.tell.message(), tags=["t"]))
    try:
        run_id = templates.run("told")
    finally:
        templates.clear()
    with working(broker, queues={"python"}):
        eventually(lambda: client.zcard("dead") == 2)
    (job,) = called(client)
    told = mapping_of(job)
    assert (told["run_id"], told["template"], told["state"]) == (run_id, "told", "failed")
    (dead,) = (dead for dead in members(client, "dead") if dead["jid"] == told["jid"])
    assert (told["class"], told["step"], told["queue"]) == ("step", dead["swf_step"], "python")
    assert (told["error_class"], told["error_message"]) == ("ValueError", dead["error_message"])
    assert not client.exists("swf:resting")
    # A person retries both, and the run is done: neither is called again.
    for member in raws(client.zrange("dead", 0, -1)):
        client.zrem("dead", member)
        client.lpush("queue:python", member)
    with working(broker):
        assert Runs(broker).wait(run_id, timeout=20_000).state == "done"
        eventually(lambda: not client.llen("queue:calls") and not in_flight(client))
    assert len(steps.told) == 1


def test_a_callback_is_not_a_step(broker: SidekiqBroker, client: redis.Redis, steps: Steps) -> None:
    """Its own death changes nothing of the run, and a cancelled run has its callback."""
    run_id = Workflow(
        Chain(steps.step.message("a"), steps.step.message("b")), on_complete=steps.tell.message("fails")
    ).run()
    advance(broker)
    assert Runs(broker).cancel(run_id, "not needed").state == "cancelled"
    assert mapping_of(called(client)[0])["state"] == "cancelled"
    # A second call removes what is left of the run: not the callback.
    Runs(broker).cancel(run_id)
    broker.process.cancelled_runs._looked = float("-inf")
    with working(broker):
        eventually(lambda: client.zcard("dead") == 1)
        # It was retried out of `dead`, which a step of a cancelled run is not.
        (member,) = raws(client.zrange("dead", 0, -1))
        client.zrem("dead", member)
        client.lpush("queue:calls", member)
        eventually(lambda: len(steps.told) == 2 and client.zcard("dead") == 1)
    run = Runs(broker).get(run_id)
    assert (run.state, run.failures) == ("cancelled", ())
    assert client.hlen(keys.failed_steps(run_id)) == 0


def test_a_callback_of_a_cancelled_run_is_retried(broker: SidekiqBroker, client: redis.Redis, steps: Steps) -> None:
    call = steps.tell.message("fails")
    call.options["retry"] = 1
    run_id = Workflow(steps.step.message("a"), on_complete=call).run()
    Runs(broker).cancel(run_id)
    with working(broker):
        eventually(lambda: client.zcard("retry"))
    Runs(broker).cancel(run_id)
    assert client.zcard("retry") == 1


def test_a_callback_in_dead_does_not_make_its_run_fail(
    broker: SidekiqBroker, client: redis.Redis, steps: Steps
) -> None:
    run_id = Workflow(
        Group(steps.step.message("a"), steps.step.message("b", True)), on_failure=steps.tell.message("fails")
    ).run()
    with working(broker):
        eventually(lambda: client.zcard("dead") == 2)
        assert [step.name for step in Runs(broker).get(run_id).failures] == ["step"]
        for member in raws(client.zrange("dead", 0, -1)):
            if b"swf_callback" not in member:
                client.zrem("dead", member)
                client.lpush("queue:python", member)
        assert Runs(broker).wait(run_id, timeout=20_000).state == "done"
    assert client.ttl(f"swf:mem:{run_id}") > 0


def test_an_empty_run_is_complete_at_once(client: redis.Redis, steps: Steps) -> None:
    run_id = Workflow(Group(), on_complete=steps.tell.message()).run()
    assert mapping_of(called(client)[0]) == {"run_id": run_id, "template": None, "state": "done"}
    Workflow(Group(), on_complete=steps.tell.message()).run(run_id)
    assert len(called(client)) == 1


def test_two_runs_of_a_workflow_have_callbacks_of_their_own(client: redis.Redis, steps: Steps) -> None:
    message = steps.tell.message()
    workflow = Workflow(Group(), on_failure=message, on_complete=message)
    runs = [workflow.run(), workflow.run()]
    first, second = reversed(called(client))
    assert [mapping_of(first)["run_id"], mapping_of(second)["run_id"]] == runs
    assert first["jid"] != second["jid"]


def test_a_ruby_class_is_called(client: redis.Redis, broker: SidekiqBroker, steps: Steps) -> None:
    run_id = Workflow(steps.step.message("a", True), on_failure=Job("Alert", 1, queue="ruby", retry=2)).run()
    with working(broker, queues={"python"}):
        eventually(lambda: client.llen("queue:ruby"))
    (job,) = members(client, "ruby")
    assert (job["class"], job["retry"], job["args"][0]) == ("Alert", 2, 1)
    assert mapping_of(job)["run_id"] == run_id


def bury(connection: Connection, run_id: str) -> None:
    """The death of a step on another broker."""
    death = Death(keys.record(run_id), 1, b'{"jid":"j","error_message":"\xc3\xa4}\\n"}')
    foreign_runs.bury(b"it", now=1e9, needs=Needs(), death=death).run(connection)


@pytest.mark.parametrize("obstacle", ["type", "rights"])
def test_a_callback_that_cannot_be_pushed_waits_for_the_keeper(
    broker: SidekiqBroker, client: redis.Redis, redis_url: str, steps: Steps, obstacle: str
) -> None:
    """And the burying goes on."""
    run_id = Workflow(steps.step.message("a"), on_failure=steps.tell.message()).run()
    connection = broker.connection
    if obstacle == "type":
        client.set("queue:calls", "text")
    else:
        client.execute_command("ACL", "SETUSER", "burier", "on", ">secret", "~*", "+@all", "-lpush")
        connection = Connection(redis.Redis.from_url(redis_url.replace("://", "://burier:secret@")))
    try:
        bury(connection, run_id)
    finally:
        client.execute_command("ACL", "DELUSER", "burier")
    assert client.zcard("dead") == 1
    assert client.hget(keys.record(run_id), "state") == b"failed"
    assert client.hexists(keys.record(run_id), "on_failure")
    assert raws(client.zrange("swf:resting", 0, -1)) == [run_id.encode()]


def test_a_burying_that_is_repeated_tells_once(broker: SidekiqBroker, client: redis.Redis, steps: Steps) -> None:
    run_id = Workflow(steps.step.message("a"), on_failure=steps.tell.message()).run()
    for _ in range(2):
        bury(broker.connection, run_id)
    (job,) = called(client)
    assert mapping_of(job)["error_message"] == "ä}\n"


def test_a_full_redis_takes_the_callback_of_a_death(broker: SidekiqBroker, client: redis.Redis, steps: Steps) -> None:
    Workflow(steps.step.message("a"), on_failure=steps.tell.message()).run()
    consumer = broker.consume("python", prefetch=1, timeout=2000)
    message: Any = next(consumer)
    message.stuff_exception(ValueError("once"))
    broker.emit_after("process_message", message, exception=ValueError("once"))
    client.config_set("maxmemory", 1)
    try:
        consumer.nack(message)
    finally:
        client.config_set("maxmemory", 0)
    assert len(called(client)) == 1


# -- options ---------------------------------------------------------------------------


def test_records_are_needed(redis_url: str) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(), records=False))
    for options in ({"on_failure": Job("A")}, {"deadline": 1}, {"unique_key": "x"}):
        with pytest.raises(ConfigurationError, match="remove records=False"):
            Workflow(Job("A"), broker, **options)
    Workflow(Job("A"), broker, on_success=Job("B")).run()
    broker.close()


@pytest.mark.parametrize("node", [Chain(Job("A")), "A", [Job("A")]])
def test_a_callback_is_one_job(steps: Steps, node: Any) -> None:
    with pytest.raises(InvalidWorkflow, match="on_complete takes one job"):
        Workflow(Job("A"), on_complete=node)


def test_a_typed_actor_takes_the_mapping_as_a_field_and_an_actor_alone_is_enough(
    broker: SidekiqBroker, steps: Steps
) -> None:
    told: list[Any] = []

    @attrs.frozen
    class Told:
        run: Mapping[str, Any]
        channel: str = "#none"

    @actor(queue_name="python")
    def typed(input: Told) -> None:
        told.append((input.channel, input.run["state"], input.run.get("class")))

    @actor(queue_name="python")
    def nothing() -> None:
        told.append("nothing")

    Workflow(steps.step.message("a", True), on_failure=typed.message(channel="#a")).run()
    Workflow(steps.step.message("b"), on_complete=typed).run()
    Workflow(steps.step.message("c"), on_complete=nothing).run()
    with working(broker):
        eventually(lambda: len(told) == 3)
    assert sorted(told, key=str) == [("#a", "failed", "step"), ("#none", "done", None), "nothing"]


def test_a_typed_actor_that_cannot_take_the_mapping_is_refused(steps: Steps) -> None:
    @attrs.frozen
    class Told:
        run_id: str

    @actor(queue_name="python")
    def typed(told: Told) -> None: ...

    with pytest.raises(InvalidWorkflow, match="on_failure: the typed actor typed cannot take"):
        Workflow(Job("A"), on_failure=typed.message({"run_id": "x"}))


@pytest.mark.parametrize("deadline", [0, -1, 1.5, True, timedelta(), "1"])
def test_a_deadline_is_checked(steps: Steps, deadline: Any) -> None:
    with pytest.raises(InvalidOptions, match="deadline takes a time after the start"):
        Workflow(Job("A"), deadline=deadline)


@pytest.mark.parametrize("key", ["", 1, "x" * 256])
def test_a_unique_key_is_checked(steps: Steps, key: Any) -> None:
    with pytest.raises(InvalidOptions, match="unique_key takes a name"):
        Workflow(Job("A"), unique_key=key)


def test_the_user_must_be_allowed_to_write_the_record(client: redis.Redis, redis_url: str, steps: Steps) -> None:
    """Without it, no callback would come."""
    client.execute_command("ACL", "SETUSER", "starter", "on", ">secret", "~*", "+@all", "-hset")
    broker = SidekiqBroker(url=redis_url.replace("://", "://starter:secret@"))
    broker.add_middleware(WorkflowMiddleware())
    try:
        with pytest.raises(redis.RedisError, match="HSET on swf:flow:run"):
            Workflow(Job("A"), broker, on_failure=Job("B")).run("run")
    finally:
        client.execute_command("ACL", "DELUSER", "starter")
        broker.close()
    assert not client.exists("swf:run:run", "queue:default")


# -- one run at a time -----------------------------------------------------------------


def test_one_run_of_a_key_lives(broker: SidekiqBroker, client: redis.Redis, steps: Steps) -> None:
    workflow = Workflow(Chain(steps.step.message("a"), steps.step.message("b")), unique_key="daily:42")
    run_id = workflow.run()
    advance(broker)
    assert workflow.run() == run_id == workflow.run(run_id)
    assert len(members(client, "python")) == 1
    other = Workflow(steps.step.message("c"), unique_key="daily:43").run()
    assert other != run_id
    assert client.ttl("swf:unique:daily:42") > client.ttl(keys.record(run_id))
    with working(broker):
        assert Runs(broker).wait(run_id, timeout=20_000).state == "done"
    assert not client.exists("swf:unique:daily:42")
    assert workflow.run() != run_id


def test_a_run_that_failed_keeps_its_key(broker: SidekiqBroker, client: redis.Redis, steps: Steps) -> None:
    workflow = Workflow(steps.step.message("a", True), unique_key="k")
    run_id = workflow.run()
    client.expire("swf:unique:k", 10)
    with working(broker):
        eventually(lambda: client.zcard("dead"))
    assert workflow.run() == run_id
    assert client.ttl("swf:unique:k") > client.ttl(keys.record(run_id))
    Runs(broker).cancel(run_id)
    assert workflow.run() != run_id


def test_a_key_is_taken_over(broker: SidekiqBroker, client: redis.Redis, steps: Steps) -> None:
    """From a run without a record, or one whose end could not free it."""
    workflow = Workflow(steps.step.message("a"), unique_key="k")
    first = workflow.run()
    client.delete(keys.record(first))
    second = workflow.run()
    assert client.get("swf:unique:k") == second.encode()
    # The end of the first one leaves the key alone.
    client.hset(keys.record(first), mapping={"state": "running", "unique": "k"})
    assert Runs(broker).cancel(first).state == "cancelled"
    assert client.get("swf:unique:k") == second.encode()
    client.hset(keys.record(second), "state", "done")
    assert workflow.run() not in (first, second)


def test_a_key_of_another_type_is_named(client: redis.Redis, steps: Steps) -> None:
    client.lpush("swf:unique:k", "text")
    with pytest.raises(Exception, match="swf:unique:k"):
        Workflow(steps.step.message("a"), unique_key="k").run("run")
    assert not client.exists("swf:run:run", "queue:python")


def test_the_messages_of_a_run_that_was_not_started_are_free(client: redis.Redis, steps: Steps) -> None:
    Workflow(steps.step.message("a"), unique_key="k").run()
    message = steps.step.message("b")
    workflow = Workflow(message, unique_key="k")
    workflow.run()
    client.delete("swf:unique:k")
    workflow.run()
    assert json.loads(as_bytes(client.lindex("queue:python", 0)))["jid"] == message.message_id
