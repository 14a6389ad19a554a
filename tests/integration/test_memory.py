"""The run's memory: namespaces, what is seeded, collisions."""

from __future__ import annotations

import json
import logging
from typing import Any

import attrs
import dramatiq
import pytest
import redis
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    Job,
    Namespace,
    RedisHashMemory,
    SidekiqBroker,
    Templates,
    Workflow,
    WorkflowMiddleware,
    actor,
    current_run,
)
from dramatiq_sidekiq_flow.errors import InvalidInput, InvalidOutput, InvalidTemplate, UnknownTemplate
from dramatiq_sidekiq_flow.store import scripts
from dramatiq_sidekiq_flow.store.connection import connect
from dramatiq_sidekiq_flow.wire import codec

from ..redis_values import fields
from ..running import eventually, members, working


@pytest.fixture
def seen() -> dict[str, Any]:
    return {}


@pytest.fixture
def translate(broker: SidekiqBroker, seen: dict[str, Any]) -> Any:
    @dramatiq.actor(queue_name="python")
    def translate(language: str) -> dict[str, str]:
        run = current_run()
        return {"text": f"{run.memory.read('text')['text']} in {language}"}

    return translate


@pytest.fixture
def count(broker: SidekiqBroker, seen: dict[str, Any]) -> Any:
    @dramatiq.actor(queue_name="python")
    def count() -> None:
        run = current_run()
        run.memory.write({"length": len(run.memory.read("text")["text"])})

    return count


def memory_of(client: redis.Redis, run_id: str) -> dict[str, Any]:
    return {name: json.loads(value) for name, value in fields(client.hgetall(f"swf:mem:{run_id}")).items()}


def test_branches_of_the_same_steps_do_not_collide(
    broker: SidekiqBroker, client: redis.Redis, translate: Any, count: Any, seen: dict[str, Any]
) -> None:
    @dramatiq.actor(queue_name="python")
    def join() -> None:
        run = current_run()
        seen["flat"] = run.memory.read("text", "length", "de.length")
        seen["de"] = run.memory.within("de").read("text", "length")

    def branch(language: str) -> Namespace:
        return Namespace(language, Chain(translate.message(language), count.message()))

    tree = Chain(Group(branch("de"), branch("fr")), join.message())
    run_id = Workflow(tree).start(seed={"text": "Bonjour"})
    with working(broker):
        eventually(lambda: "de" in seen)
        broker.join("python", timeout=20_000)
    assert memory_of(client, run_id) == {
        "text": "Bonjour",
        "de.text": "Bonjour in de",
        "de.length": 13,
        "fr.text": "Bonjour in fr",
        "fr.length": 13,
    }
    assert seen == {
        "flat": {"text": "Bonjour", "de.length": 13},
        "de": {"text": "Bonjour in de", "length": 13},
    }


def test_one_step_may_have_a_namespace_of_its_own(
    broker: SidekiqBroker, client: redis.Redis, translate: Any, count: Any
) -> None:
    """By an option of the message, of the job, or of the actor."""

    @dramatiq.actor(queue_name="python", memory_namespace="of.actor")
    def own() -> dict[str, int]:
        return {"n": 1}

    tree = Chain(
        translate.message_with_options(args=("de",), memory_namespace="of.message"),
        Job("translate", "fr", memory_namespace="of.job"),
        own.message(),
        Namespace("outer", own.message()),
    )
    run_id = Workflow(tree).start(seed={"text": "a"})
    with working(broker):
        broker.join("python", timeout=20_000)
    assert memory_of(client, run_id) == {
        "text": "a",
        "of.message.text": "a in de",
        "of.job.text": "a in fr",
        "of.actor.n": 1,
        "outer.of.actor.n": 1,
    }


def test_a_namespace_goes_along_with_a_ruby_step(broker: SidekiqBroker, client: redis.Redis) -> None:
    Workflow(Namespace("left", Chain(Job("Rb::A", queue="ruby"), Job("Rb::B", queue="ruby")))).run()
    (job,) = members(client, "ruby")
    rest = job["workflow_completion_callbacks"][0][1]["children"]
    assert [job["memory_namespace"], rest[0]["memory_namespace"]] == ["left", "left"]


@pytest.mark.parametrize("namespace", [7, ["left"], {"a": 1}])
def test_a_namespace_that_is_no_name_is_dead_by_name(
    broker: SidekiqBroker, client: redis.Redis, translate: Any, namespace: Any
) -> None:
    Workflow(translate.message("de")).run()
    (job,) = members(client, "python")
    client.delete("queue:python")
    client.lpush("queue:python", json.dumps({**job, "memory_namespace": namespace}))
    with working(broker):
        (dead,) = eventually(lambda: members(client, "dead"))
    assert dead["error_class"] == "InvalidPayload"
    assert "memory_namespace" in dead["error_message"]


def test_known_collisions_are_warned_of_once(
    broker: SidekiqBroker, client: redis.Redis, translate: Any, count: Any, caplog: pytest.LogCaptureFixture
) -> None:
    translate.output_fields = frozenset(("text", "language"))
    count.output_fields = frozenset(("text", "length"))
    tree = Chain(Group(translate.message("de"), count.message()), count.message())
    with caplog.at_level(logging.WARNING):
        Workflow(Namespace("all", Group(Namespace("a", tree), Namespace("b", tree))))
        Workflow(tree)
        Workflow(tree)
    warnings = [record.getMessage() for record in caplog.records if "side by side" in record.getMessage()]
    assert [w.partition(".")[0] for w in warnings if "a.text" not in w and "b.text" not in w] == [
        "'count' and 'translate' run side by side and write the same to the run's memory: text"
    ]
    # In a namespace of their own they still collide with one another.
    assert len(warnings) == 2
    assert "all.a.text, all.b.text" in warnings[0]


def test_typed_actors_say_what_they_write(broker: SidekiqBroker, caplog: pytest.LogCaptureFixture) -> None:
    @actor(actor_name="title", queue_name="python")
    def title() -> Title: ...  # type: ignore[empty-body]

    @actor(actor_name="retitle", queue_name="python")
    def retitle() -> Title: ...  # type: ignore[empty-body]

    Workflow(Group(title.message(), retitle.message()))
    assert "'retitle' and 'title' run side by side and write the same to the run's memory: title" in caplog.text


@attrs.frozen
class Title:
    title: str


def test_where_nothing_is_kept_nothing_collides(
    redis_url: str, translate: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware())
    broker.declare_actor(translate)
    translate.output_fields = frozenset(("text",))
    Workflow(Group(translate.message("de"), translate.message("fr")), broker=broker)
    assert "side by side" not in caplog.text


# -- templates -----------------------------------------------------------------------


@attrs.frozen
class Params:
    text: str
    languages: list[str] = attrs.Factory(lambda: ["de"])
    fail: bool = False


@pytest.fixture
def registry(translate: Any) -> Templates:
    registry = Templates()

    @registry.template("translate")
    def build(params: Params) -> Any:
        if params.fail:
            raise LookupError("no such language")
        return Group(*(Namespace(language, translate.message(language)) for language in params.languages))

    return registry


def test_params_are_in_the_memory_before_the_first_job_is(
    broker: SidekiqBroker, client: redis.Redis, registry: Templates, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    original = broker.connection.send_counted

    def seen(commands: Any) -> Any:
        sent.append(commands)
        return original(commands)

    monkeypatch.setattr(broker.connection, "send_counted", seen)
    run_id = registry.run("translate", {"text": "a"})
    # In the same script: there is no moment between.
    written = [command for commands in sent for command in commands if command[0] == "EVALSHA"]
    assert [command[1] for command in written] == [scripts.START.sha]
    assert memory_of(client, run_id) == {"text": "a", "languages": ["de"], "fail": False}
    (job,) = members(client, "python")
    assert job["workflow_run_id"] == run_id
    with working(broker):
        broker.join("python", timeout=20_000)
    assert memory_of(client, run_id)["de.text"] == "a in de"


def test_a_run_has_the_name_that_it_is_given(broker: SidekiqBroker, client: redis.Redis, registry: Templates) -> None:
    for _ in range(2):
        assert registry.run("translate", Params("a"), run_id="mine") == "mine"
    assert client.llen("queue:python") == 1
    # What was built is seeded when it runs.
    workflow = registry.build("translate", Params("b"))
    assert client.llen("queue:python") == 1
    assert memory_of(client, workflow.run())["text"] == "b"


def test_without_a_memory_a_template_runs(redis_url: str, client: redis.Redis) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware())
    registry = Templates()
    registry.register("plain", lambda params: Job("Rb::A", params["a"], queue="ruby"))
    registry.run("plain", {"a": 1}, broker=broker)
    assert [job["args"] for job in members(client, "ruby")] == [[1]]


@pytest.mark.parametrize(
    ("name", "params", "error"),
    [
        ("translat", {}, UnknownTemplate),
        ("translate", {"text": 1}, InvalidInput),
        ("translate", {"text": "a", "languages": ["de", 1]}, InvalidInput),
        ("translate", {"text": "a", "fail": True}, InvalidTemplate),
        ("translate", {"text": "a", "languages": [""]}, Exception),
    ],
)
def test_a_run_that_cannot_start_leaves_nothing(
    broker: SidekiqBroker, client: redis.Redis, registry: Templates, name: str, params: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        registry.run(name, params)
    assert client.keys() == []


# -- what is not kept -----------------------------------------------------------


@pytest.mark.parametrize("value", [[1, 2], 7, "text", False])
def test_a_value_that_is_not_kept_is_warned_of_once(
    broker: SidekiqBroker, caplog: pytest.LogCaptureFixture, value: Any
) -> None:
    @dramatiq.actor(queue_name="python")
    def returns() -> Any:
        return value

    Workflow(Group(*(returns.message() for _ in range(5)))).run()
    with working(broker):
        broker.join("python", timeout=20_000)
    said = [r.getMessage() for r in caplog.records if "returns" in r.getMessage() or "returned" in r.getMessage()]
    assert len(said) == 1
    assert f"returns a value of type {type(value).__name__}, which is dropped" in said[0]


def test_a_value_that_results_keep_is_not_warned_of(broker: SidekiqBroker, caplog: pytest.LogCaptureFixture) -> None:
    broker.add_middleware(Results(backend=StubBackend(), store_results=True))

    @dramatiq.actor(queue_name="python")
    def returns() -> Any:
        return [1]

    @dramatiq.actor(queue_name="python")
    def keeps() -> Any:
        return {"kept": 1}

    Workflow(Chain(returns.message(), keeps.message())).run()
    with working(broker):
        broker.join("python", timeout=20_000)
    assert "is dropped" not in caplog.text


def test_a_mapping_without_a_memory_is_warned_of_once(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware())
    dramatiq.set_broker(broker)

    @dramatiq.actor(queue_name="python")
    def returns() -> Any:
        return {"a": 1}

    Workflow(Chain(returns.message(), returns.message())).run()
    with working(broker):
        broker.join("python", timeout=20_000)
    broker.close()
    assert caplog.text.count("returns a mapping, which is dropped") == 1


def test_an_output_above_the_limit_is_dead_by_name(
    broker: SidekiqBroker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dramatiq.actor(queue_name="python")
    def returns() -> Any:
        monkeypatch.setattr(codec, "MAX_SIZE", 2000)
        return {"a": "x" * 1000, "b": "x" * 1000}

    @dramatiq.actor(queue_name="python")
    def follows() -> None: ...

    run_id = Workflow(Chain(returns.message(), follows.message())).run()
    with working(broker):
        eventually(lambda: client.zcard("dead"))
    (dead,) = members(client, "dead")
    assert dead["error_class"] == "InvalidOutput"
    assert "it has 2006 bytes of JSON, more than 2000" in dead["error_message"]
    assert not client.exists(f"swf:mem:{run_id}")


def test_a_name_that_is_not_utf_8_is_read_and_found(redis_url: str, client: redis.Redis) -> None:
    memory = RedisHashMemory()
    memory.bind(connect(redis_url))
    client.hset("swf:mem:run", mapping={b"caf\xe9": b"1", b"caf\xc3\xa9": b"2", b"caf\xe8": b"3"})
    found = memory.read("run")
    assert sorted(found.values()) == [1, 2, 3]
    assert found["caf\xe9"] == 2
    assert memory.read("run", found) == found
    odd = next(name for name, value in found.items() if value == 1)
    with pytest.raises(InvalidOutput):
        memory.write("run", {odd: 1})
