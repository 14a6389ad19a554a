"""Typed actors in a worker: filled from memory, checked before anything runs or is written."""

from __future__ import annotations

import asyncio
import enum
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any, cast

import attrs
import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AsyncIO
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend, StubBackend

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    Job,
    RedisHashMemory,
    SidekiqBroker,
    TypedActor,
    Workflow,
    WorkflowMiddleware,
    actor,
    current_run,
    find_current_run,
)
from dramatiq_sidekiq_flow.errors import InvalidInput, InvalidOutput
from dramatiq_sidekiq_flow.registry import registry, stubs

from ..redis_values import fields, raws
from ..running import eventually, members, working


class Language(enum.Enum):
    ENGLISH = "en"
    GERMAN = "de"


@attrs.frozen
class Page:
    number: int
    width: float


@attrs.frozen
class ExtractInput:
    doc_id: str
    language: Language = Language.ENGLISH
    pages: list[Page] = attrs.field(factory=list)
    at: datetime | None = None


@attrs.frozen
class ExtractOutput:
    text: str
    words: int = 0


FULL = ExtractInput("42", Language.GERMAN, [Page(1, 2.5)], datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc))


@pytest.fixture
def ran() -> list[Any]:
    """What the function of ``extract`` was called with."""
    return []


@pytest.fixture
def extract(broker: SidekiqBroker, ran: list[Any]) -> TypedActor[ExtractOutput]:
    @actor(actor_name="Docs::Extract", queue_name="python", max_retries=5)
    def extract(input: ExtractInput) -> ExtractOutput:
        ran.append(input)
        return ExtractOutput(f"the text of {input.doc_id}")

    return extract


def memory(client: redis.Redis, run_id: str) -> dict[str, Any]:
    return {name: json.loads(value) for name, value in fields(client.hgetall(f"swf:mem:{run_id}")).items()}


def test_an_instance_arrives_as_it_was(
    broker: SidekiqBroker, client: redis.Redis, extract: TypedActor[ExtractOutput], ran: list[Any]
) -> None:
    extract.send(FULL)
    (job,) = members(client, "python")
    assert job["args"] == [
        {
            "doc_id": "42",
            "language": "de",
            "pages": [{"number": 1, "width": 2.5}],
            "at": "2026-01-02T03:04:05+00:00",
        }
    ]
    with working(broker):
        eventually(lambda: ran)
    assert ran == [FULL]


def test_each_way_of_sending(
    broker: SidekiqBroker, client: redis.Redis, extract: TypedActor[ExtractOutput], ran: list[Any]
) -> None:
    extract.send(doc_id="1", pages=[{"number": 1, "width": 0.5}])
    extract.send({"doc_id": "1", "pages": [Page(1, 0.5)]})
    extract.send_with_options(kwargs={"doc_id": "1", "pages": (Page(1, 0.5),)}, delay=1)
    extract.send_with_options(args=(ExtractInput("1", pages=[Page(1, 0.5)]),), tags=["x"])
    broker.enqueue(extract.message(input=ExtractInput("1", pages=[Page(1, 0.5)])))
    with working(broker):
        eventually(lambda: len(ran) == 5)
    assert ran == [ExtractInput("1", pages=[Page(1, 0.5)])] * 5


def test_what_does_not_fit_is_refused_where_it_is_sent(
    broker: SidekiqBroker, client: redis.Redis, extract: TypedActor[ExtractOutput]
) -> None:
    with pytest.raises(InvalidInput, match=r"input.pages\[1\].width: expected float, got str '1'"):
        extract.send(doc_id="1", pages=[{"number": 1, "width": 1.0}, {"number": 1, "width": "1"}])
    with pytest.raises(InvalidInput, match=r"input.documents: unknown field \(ExtractInput has"):
        extract.send(doc_id="1", documents=[])
    with pytest.raises(InvalidInput, match=r"input.doc_id: is missing"):
        extract.send(language="de")
    with pytest.raises(InvalidInput, match=r"input.language: expected Language"):
        Workflow(Chain(extract.message(language="fr"))).run()
    assert client.keys() == []


def test_memory_then_arguments_then_defaults(
    broker: SidekiqBroker, client: redis.Redis, extract: TypedActor[ExtractOutput], ran: list[Any]
) -> None:
    @dramatiq.actor(queue_name="python")
    def before() -> dict[str, Any]:
        return {"doc_id": "memory", "language": "de", "text": "no field of the input"}

    run_id = Workflow(Chain(before.message(), extract.message(), extract.message(doc_id="argument"))).run()
    with working(broker):
        eventually(lambda: len(ran) == 2)
        broker.join("python", timeout=10_000)
    assert ran == [ExtractInput("memory", Language.GERMAN), ExtractInput("argument", Language.GERMAN)]
    assert memory(client, run_id) == {"doc_id": "memory", "language": "de", "text": "the text of argument", "words": 0}


def test_an_instance_wins_over_memory_with_its_defaults_too(
    broker: SidekiqBroker, extract: TypedActor[ExtractOutput], ran: list[Any]
) -> None:
    Workflow(Chain(extract.message(ExtractInput("1")))).start(seed={"language": "de", "doc_id": "2"})
    with working(broker):
        eventually(lambda: ran)
    assert ran == [ExtractInput("1", Language.ENGLISH)]


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ([], "input.doc_id: is missing"),
        ([{}], "input.doc_id: is missing"),
        ([{"doc_id": 1}], "input.doc_id: expected str, got int 1"),
        ([{"doc_id": "1", "x": 1}], "input.x: unknown field (ExtractInput has "),
        ([{"doc_id": "1", "pages": [{"number": True}]}], "input.pages[0].number: expected int, got bool True"),
        ([{"doc_id": "1", "pages": [{"number": True}]}], "input.pages[0].width: is missing"),
        (["1"], "input: got '1'"),
        ([{"doc_id": "1"}, {}], "takes one ExtractInput"),
    ],
)
@pytest.mark.parametrize("in_run", [True, False])
def test_a_bad_input_is_dead_at_once(
    broker: SidekiqBroker,
    client: redis.Redis,
    extract: TypedActor[ExtractOutput],
    ran: list[Any],
    args: list[Any],
    problem: str,
    in_run: bool,
) -> None:
    """As another program may send it: nothing checks a Job's arguments at the caller."""
    if in_run:
        Workflow(Chain(Job("Docs::Extract", *args), Job("Docs::Extract", {"doc_id": "after"}))).run()
    else:
        job = {"class": "Docs::Extract", "args": args, "jid": "a" * 24, "queue": "python", "retry": 5}
        client.lpush("queue:python", json.dumps(job))
    with working(broker):
        (dead,) = eventually(lambda: members(client, "dead"))
        broker.join("python", timeout=10_000)
    assert dead["error_class"] == "InvalidInput"
    assert problem in dead["error_message"]
    assert (dead["retry_count"], client.zcard("retry"), ran) == (0, 0, [])


def test_a_bad_value_in_memory_is_named(
    broker: SidekiqBroker, client: redis.Redis, extract: TypedActor[ExtractOutput], ran: list[Any]
) -> None:
    run_id = Workflow(Chain(extract.message())).start(seed={"doc_id": 7})
    with working(broker):
        (dead,) = eventually(lambda: members(client, "dead"))
    assert "input.doc_id: expected str, got int 7 (from the run's memory: doc_id)" in dead["error_message"]
    client.delete("dead")
    client.hset(f"swf:mem:{run_id}", "doc_id", "{no JSON")
    client.lpush("queue:python", json.dumps({**dead, "jid": "b" * 24}))
    with working(broker):
        (dead,) = eventually(lambda: members(client, "dead"))
    assert (dead["error_class"], ran) == ("InvalidInput", [])


def test_a_run_goes_on_when_its_memory_was_mended(
    broker: SidekiqBroker, client: redis.Redis, extract: TypedActor[ExtractOutput], ran: list[Any]
) -> None:
    run_id = Workflow(Chain(extract.message(), extract.message(doc_id="2"))).run()
    with working(broker):
        eventually(lambda: client.zcard("dead") == 1)
        broker.completion.engine.memory.write(run_id, {"doc_id": "1"})  # type: ignore[union-attr]
        (member,) = raws(client.zrange("dead", 0, -1))
        client.zrem("dead", member)
        client.lpush("queue:python", member)
        eventually(lambda: len(ran) == 2)
    assert [given.doc_id for given in ran] == ["1", "2"]


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ({"text": 1}, "output.text: expected str, got int 1"),
        ({"words": 1}, "output.text: is missing"),
        ({"text": "x", "more": 1}, "output.more: unknown field (ExtractOutput has "),
        (ExtractOutput("x", 1.0), "output.words: expected int, got float 1.0"),  # type: ignore[arg-type]
        (ExtractInput("x"), "output.text: is missing"),
        ("text", "output: expected ExtractOutput (an object), got str 'text'"),
        (None, "output: expected ExtractOutput (an object), got None"),
    ],
)
def test_a_bad_output_is_dead_and_writes_nothing(
    broker: SidekiqBroker, client: redis.Redis, result: Any, problem: str
) -> None:
    ran: list[int] = []

    @actor(queue_name="python")
    def make() -> ExtractOutput:
        ran.append(1)
        return cast(ExtractOutput, result)

    run_id = Workflow(Chain(make.message(), make.message())).run()
    with working(broker):
        (dead,) = eventually(lambda: members(client, "dead"))
        broker.join("python", timeout=10_000)
    assert dead["error_class"] == "InvalidOutput"
    assert problem in dead["error_message"]
    assert (ran, memory(client, run_id)) == ([1], {})


def test_an_output_may_be_a_mapping(broker: SidekiqBroker, client: redis.Redis) -> None:
    @actor(queue_name="python")
    def fits() -> ExtractOutput:
        return {"text": "x"}  # type: ignore[return-value]

    @actor(queue_name="python")
    def numbers() -> dict[str, int]:
        return {"number": 1}

    @actor(queue_name="python")
    def nothing() -> ExtractOutput | None:
        return None

    @actor(queue_name="python")
    def unchecked():  # type: ignore[no-untyped-def]
        return {"unchecked": [1]}

    run_id = Workflow(Chain(fits.message(), numbers.message(), nothing.message(), unchecked.message())).run()
    with working(broker):
        eventually(lambda: "unchecked" in memory(client, run_id))
    assert memory(client, run_id) == {"text": "x", "words": 0, "number": 1, "unchecked": [1]}


def test_its_own_throws_are_kept(broker: SidekiqBroker, client: redis.Redis) -> None:
    @actor(queue_name="python", throws=KeyError)
    def one() -> None:
        raise KeyError("one")

    @actor(queue_name="python", throws=(KeyError, ValueError))
    def two() -> ExtractOutput:
        raise ValueError("two")

    @actor(queue_name="python")
    def other() -> None:
        raise ValueError("other")

    for each in (one, two, other):
        each.send()
    with working(broker):
        eventually(lambda: client.zcard("dead") + client.zcard("retry") == 3)
    assert {job["class"] for job in members(client, "dead")} == {"one", "two"}
    assert {job["class"] for job in members(client, "retry")} == {"other"}


def test_an_actor_of_dramatiq_with_the_class(broker: SidekiqBroker, ran: list[Any]) -> None:
    @dramatiq.actor(actor_class=TypedActor, queue_name="python")
    def long_form(input: ExtractInput) -> None:
        ran.append(input)

    @actor
    def bare(input: ExtractInput) -> None:
        ran.append(input)

    assert isinstance(bare, TypedActor)
    assert (bare.actor_name, bare.queue_name) == ("bare", "default")
    long_form.send(FULL)
    bare.send(FULL)
    with working(broker):
        eventually(lambda: ran == [FULL, FULL])


def test_a_call_from_within_a_job_is_a_plain_call(broker: SidekiqBroker, client: redis.Redis) -> None:
    """It takes nothing from memory, and gives back the instance."""
    got: list[Any] = []

    @actor(queue_name="python")
    def inner(input: ExtractInput) -> ExtractOutput:
        return ExtractOutput(f"{input.doc_id} {input.language.value}")

    @actor(queue_name="python")
    def outer(input: ExtractInput) -> None:
        got.append(inner(doc_id="inner"))
        got.append(outer.fn)  # what the worker called is still this one
        with pytest.raises(InvalidInput, match="input.doc_id: is missing"):
            inner()

    Workflow(Chain(outer.message())).start(seed={"doc_id": "memory", "language": "de"})
    with working(broker):
        eventually(lambda: got)
        broker.join("python", timeout=10_000)
    assert got == [ExtractOutput("inner en"), outer.fn]
    assert client.zcard("dead") == 0


def test_an_actor_may_call_itself(broker: SidekiqBroker, client: redis.Redis) -> None:
    got: list[Any] = []

    @actor(queue_name="python")
    def recurse(input: ExtractOutput) -> ExtractOutput:
        if input.words:
            got.append(recurse(ExtractOutput(input.text + "!", input.words - 1)))
        return input

    run_id = Workflow(Chain(recurse.message(text="x", words=2))).run()
    with working(broker):
        eventually(lambda: memory(client, run_id))
    assert got == [ExtractOutput("x!!", 0), ExtractOutput("x!", 1)]
    assert memory(client, run_id) == {"text": "x", "words": 2}


# -- where the current run is known ---------------------------------------------


@attrs.frozen
class Text:
    text: str


def test_an_async_actor_has_its_run(broker: SidekiqBroker, client: redis.Redis) -> None:
    broker.add_middleware(AsyncIO())
    seen: list[Any] = []

    async def depth() -> int:
        await asyncio.sleep(0)
        run = current_run()
        return run.depth

    @actor(queue_name="python")
    async def step(input: Text) -> Text:
        run = current_run()
        depths = await asyncio.gather(depth(), asyncio.create_task(depth()))
        remembered = await asyncio.to_thread(run.memory.read, "text")
        in_thread = await asyncio.to_thread(current_run)
        seen.append((run.run_id, depths, remembered, in_thread is run))
        return Text(input.text + "!")

    last = step.message()
    run_id = Workflow(Chain(step.message(), last)).start(seed={"text": "x"})
    with working(broker):
        eventually(lambda: len(seen) == 2)
        broker.join("python", timeout=10_000)
    assert seen == [(run_id, [1, 1], {"text": "x"}, True), (run_id, [0, 0], {"text": "x!"}, True)]
    assert memory(client, run_id) == {"text": "x!!"}


def test_async_actors_at_once_each_have_their_own_run(broker: SidekiqBroker) -> None:
    broker.add_middleware(AsyncIO())
    together = threading.Barrier(2)
    seen: dict[str, Any] = {}

    @actor(queue_name="python")
    async def step(input: Text) -> None:
        await asyncio.to_thread(together.wait, 20)  # both have begun, on one loop
        run = current_run()
        seen[input.text] = run.run_id

    runs = {text: Workflow(Chain(step.message())).start(seed={"text": text}) for text in ("a", "b")}
    with working(broker, threads=2):
        eventually(lambda: len(seen) == 2)
    assert seen == runs


def test_threads_of_an_actor_enter_its_run(broker: SidekiqBroker, client: redis.Redis) -> None:
    seen: list[Any] = []

    def look(name: str) -> str | None:
        run = find_current_run()
        if run is None:
            return None
        run.memory.write({name: run.memory.read("text")["text"]})
        return run.run_id

    @actor(queue_name="python")
    def step(input: Text) -> None:
        run = current_run()
        with ThreadPoolExecutor(2) as pool:
            seen.append([*pool.map(look, ["not written"]), *pool.map(run.enter()(look), ["a", "b"])])
            seen.append([*pool.map(look, ["not written"])])  # each left it again
        thread = threading.Thread(target=run.enter()(look), args=("c",))
        thread.start()
        thread.join()
        run.memory.clear()
        run.memory.write({"d": input.text})
        seen.append(run.memory.read())

    run_id = Workflow(Chain(step.message())).start(seed={"text": "x"})
    with working(broker):
        eventually(lambda: len(seen) == 3)
    assert seen == [[None, run_id, run_id], [None], {"d": "x"}]


# -- on any broker ----------------------------------------------------------------


@pytest.fixture(params=["stub", "redis", "sidekiq"])
def any_broker(request: pytest.FixtureRequest, redis_url: str) -> Iterator[tuple[dramatiq.Broker, Any]]:
    broker: Any
    backend: Any = RedisBackend(url=redis_url)
    if request.param == "stub":
        broker, backend = StubBroker(), StubBackend()
        broker.emit_after("process_boot")
    elif request.param == "redis":
        broker = RedisBroker(url=redis_url)
    else:
        broker = SidekiqBroker(url=redis_url, poll_interval=50)
        broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
    broker.add_middleware(Results(backend=backend))
    yield broker, backend
    broker.close()


def test_any_broker_of_dramatiq(any_broker: tuple[dramatiq.Broker, Any], ran: list[Any]) -> None:
    broker, backend = any_broker

    @actor(broker=broker, store_results=True, max_retries=3)
    def extract(input: ExtractInput) -> ExtractOutput:
        ran.append(input)
        return ExtractOutput(input.doc_id)

    @actor(broker=broker, store_results=True)
    def append(input: ExtractOutput) -> ExtractOutput:
        return ExtractOutput(input.text + "!", input.words)

    with pytest.raises(InvalidInput):
        extract.send(doc_id=1)
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
    worker.start()
    try:
        message = extract.send(FULL)
        result: Any = message.get_result(backend=backend, block=True, timeout=20_000)
        assert result == {"text": "42", "words": 0}
        bad = extract.message()
        broker.enqueue(bad)
        with pytest.raises(Exception, match="input.doc_id: is missing"):
            bad.get_result(backend=backend, block=True, timeout=20_000)
        piped = dramatiq.pipeline([extract.message(doc_id="1"), append.message()], broker=broker).run()
        assert piped.get_result(block=True, timeout=20_000) == {"text": "1!", "words": 0}
    finally:
        worker.stop()
    assert ran == [FULL, ExtractInput("1")]


def test_an_actor_that_moves_to_another_broker(redis_url: str) -> None:
    """As test suites do it."""
    first, second = StubBroker(), StubBroker()
    second.add_middleware(Results(backend=(backend := StubBackend())))

    @actor(broker=first)
    def extract(input: ExtractInput) -> ExtractOutput:
        return ExtractOutput(input.doc_id)

    extract.broker = second
    extract.options["store_results"] = True
    second.declare_actor(extract)
    worker = dramatiq.Worker(second, worker_threads=1, worker_timeout=100)
    worker.start()
    try:
        result: Any = extract.send(doc_id="1").get_result(backend=backend, block=True, timeout=20_000)
        assert result == {
            "text": "1",
            "words": 0,
        }
    finally:
        worker.stop()


# -- what the other language is told -------------------------------------------------


def test_the_registry_has_the_schemas(
    broker: SidekiqBroker, client: redis.Redis, extract: TypedActor[ExtractOutput]
) -> None:
    @dramatiq.actor(actor_name="Docs::Untyped", queue_name="python")
    def untyped() -> None: ...

    entries = registry.actors(broker)
    assert entries["Docs::Extract"].input == extract.input_schema
    assert entries["Docs::Extract"].output == extract.output_schema
    assert (entries["Docs::Untyped"].input, entries["Docs::Untyped"].output) == (None, None)
    with working(broker):
        raw = eventually(lambda: client.hget("swf:registry:python", "Docs::Extract"))
    published = json.loads(raw)
    assert published["input"]["required"] == ["doc_id"]
    assert published["output"]["properties"] == {"text": {"type": "string"}, "words": {"type": "integer", "default": 0}}
    assert registry.published(broker.connection)["python"]["Docs::Extract"] == entries["Docs::Extract"]
    assert 'sidekiq_options queue: "python", retry: 5\n' in stubs.ruby(entries)
    assert "required" not in stubs.ruby(entries)


def test_bad_output_of_one_child_holds_the_group(
    broker: SidekiqBroker, client: redis.Redis, extract: TypedActor[ExtractOutput], ran: list[Any]
) -> None:
    @actor(queue_name="python")
    def bad() -> ExtractOutput:
        raise InvalidOutput("raised by hand")

    Workflow(Chain(Group(extract.message(doc_id="1"), bad.message()), extract.message(doc_id="after"))).run()
    with working(broker):
        eventually(lambda: client.zcard("dead") == 1 and ran)
        broker.join("python", timeout=10_000)
    assert [given.doc_id for given in ran] == ["1"]
