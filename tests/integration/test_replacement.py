"""Steps that a tree replaces: what is checked, what is written, and what an operator sees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs
import dramatiq
import pytest
import redis
from dramatiq.brokers.stub import StubBroker

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    Job,
    Namespace,
    RedisHashMemory,
    Replace,
    RubyJob,
    Runs,
    SidekiqBroker,
    WithDelay,
    Workflow,
    WorkflowMiddleware,
    actor,
    current_run,
)
from dramatiq_sidekiq_flow.errors import ConfigurationError, InvalidWorkflow
from dramatiq_sidekiq_flow.store import replacements
from dramatiq_sidekiq_flow.testing import FlowTest
from dramatiq_sidekiq_flow.wire.dialect import WORKFLOW

from ..running import advance, members

TREES: dict[str, Any] = {}


@pytest.fixture
def flow(broker: SidekiqBroker) -> Iterator[FlowTest]:
    """An actor ``step``, and an actor ``grow`` that asks for the trees of TREES."""

    @dramatiq.actor(queue_name="python", broker=broker)
    def step(name: str) -> dict[str, str]:
        return {"last": name}

    @dramatiq.actor(queue_name="python", broker=broker, max_retries=0)
    def grow(name: str) -> Any:
        return TREES[name]()

    with FlowTest(broker) as flow:
        yield flow


def step(broker: SidekiqBroker, *args: Any) -> Any:
    return broker.get_actor("step").message(*args)


def grow(broker: SidekiqBroker, name: str = "it") -> Any:
    return broker.get_actor("grow").message(name)


def names(run: Any) -> list[Any]:
    return [step.args[0] for step in run.steps if step.done]


def test_what_follows_waits_for_the_tree(flow: FlowTest) -> None:
    TREES["it"] = lambda: Replace(
        Chain(Group(step(flow.broker, "a"), step(flow.broker, "b")), step(flow.broker, "c")), output={"x": 1}
    )
    run = flow.run(Chain(step(flow.broker, "before"), grow(flow.broker), step(flow.broker, "after")))
    assert names(run) == ["before", "it", "a", "b", "c", "after"]
    assert run.memory == {"last": "after", "x": 1}


def test_added_steps_and_a_tree_run_beside_each_other(flow: FlowTest) -> None:
    def both() -> dict[str, int]:
        current_run().add(step(flow.broker, "a"), step(flow.broker, "b"))
        current_run().replace(step(flow.broker, "ignored"))
        current_run().replace(step(flow.broker, "c"))
        return {"x": 1}

    TREES["it"] = both
    run = flow.run(Chain(grow(flow.broker), step(flow.broker, "after")))
    assert sorted(names(run)[1:4]) == ["a", "b", "c"]
    assert (names(run)[4], len(names(run)), run.memory["x"]) == ("after", 5, 1)


def test_a_step_that_fails_has_replaced_nothing(flow: FlowTest) -> None:
    tries = []

    def fail_once() -> None:
        current_run().add(step(flow.broker, "added"))
        tries.append(1)
        if len(tries) == 1:
            raise OSError("at first")

    TREES["it"] = fail_once
    message = grow(flow.broker).copy(options={"retry": 3})
    run = flow.run(Chain(message, step(flow.broker, "after")))
    assert names(run) == ["it", "added", "after"]


@pytest.mark.parametrize("tree", [Chain(), Group(), WithDelay(Chain(), 0.0)], ids=repr)
def test_a_tree_that_has_nothing_to_run_just_goes_on(flow: FlowTest, tree: Any) -> None:
    TREES["it"] = lambda: Replace(tree, output={"x": 1})
    run = flow.run(Chain(grow(flow.broker), step(flow.broker, "after")))
    assert (names(run), run.memory["x"]) == (["it", "after"], 1)
    assert Runs(flow.broker).get(run.run_id).progress.total == 2


@pytest.mark.parametrize("wrong", ["no node", object()], ids=["text", "object"])
def test_an_invalid_tree_fails_the_step(flow: FlowTest, wrong: Any) -> None:
    TREES["it"] = lambda: Replace(wrong)
    run = flow.run(Chain(grow(flow.broker), step(flow.broker, "after")))
    assert [dead["error_class"] for dead in run.dead] == ["InvalidWorkflow"]
    assert Runs(flow.broker).get(run.run_id).state == "failed"


def test_none_is_no_tree() -> None:
    with pytest.raises(InvalidWorkflow, match="replaced by a tree"):
        Replace(None)


def test_a_step_cannot_be_replaced_by_itself_as_the_same_message(flow: FlowTest) -> None:
    message: Any = grow(flow.broker)
    TREES["it"] = lambda: Replace(message)
    assert [dead["error_class"] for dead in flow.run(message).dead] == ["StepEnqueuedItself"]


def test_a_message_of_a_run_gets_a_new_id(flow: FlowTest) -> None:
    shared = step(flow.broker, "shared")
    TREES["it"] = lambda: Replace(shared)
    run = flow.run(Group(grow(flow.broker), grow(flow.broker)))
    assert names(run) == ["it", "it", "shared", "shared"]
    assert len({step.jid for step in run.steps}) == 4


TEXT = """\
    chain
+ 1   grow
        replaced by
          chain
+ 4         step
+ 5         grow
        replaced by
          group
+ 6         step x 30
+ 2   step
+ 3   step"""


def test_the_record_shows_the_tree_below_its_step(flow: FlowTest) -> None:
    TREES["it"] = lambda: Replace(Chain(step(flow.broker, "a"), grow(flow.broker, "inner")))
    TREES["inner"] = lambda: Replace(Group(*(step(flow.broker, str(n)) for n in range(30))))
    run_id = flow.run(Chain(grow(flow.broker), step(flow.broker, "b"), step(flow.broker, "c"))).run_id
    run = Runs(flow.broker).get(run_id)
    assert (run.state, run.progress.total, run.progress.done, len(run.steps)) == ("done", 35, 35, 35)
    lines = [line.split("  python")[0].rstrip() for line in str(run).splitlines()[3:]]
    assert lines == TEXT.splitlines()
    assert (run.steps[4].number, run.steps[4].name, run.steps[4].path) == (5, "grow", "1.1.2")
    assert [step.number for step in run.steps] == list(range(1, 36))
    assert "s1 --> s2" in run.mermaid()


def test_a_step_that_replaces_itself_again_and_again_makes_no_deep_tree(flow: FlowTest) -> None:
    left = iter(range(300))
    TREES["it"] = lambda: Replace(WithDelay(grow(flow.broker), 60_000)) if next(left, None) is not None else None
    run = Runs(flow.broker).get(flow.run(Chain(grow(flow.broker), step(flow.broker, "after"))).run_id)
    assert (run.state, run.progress.total, run.progress.done) == ("done", 302, 302)
    assert max(map(len, str(run).splitlines())) <= 80


def test_ten_thousand_members_are_added(broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(queue_name="python", broker=broker)
    def small() -> None: ...

    @dramatiq.actor(queue_name="wide", broker=broker)
    def wide() -> None: ...

    run_id = Workflow(Chain(wide.message(), small.message()), broker).run()
    consumer = broker.consume("wide", prefetch=1, timeout=2000)
    message: Any = next(consumer)
    message.output = Replace(Group(*(small.message() for _ in range(10_000))))
    consumer.ack(message)
    assert client.llen("queue:python") == 10_000
    size = sum(client.memory_usage(key) or 0 for key in client.keys(f"swf:flow:{run_id}*"))
    assert size < 100_000
    run = Runs(broker).get(run_id)
    assert (run.state, run.progress.total, run.progress.waiting) == ("running", 10_002, 10_000)
    assert {step.number for step in run.steps if step.state == "pending"} == {2}


def test_ruby_gets_carriers_of_what_follows_the_tree(broker: SidekiqBroker, client: redis.Redis) -> None:
    RubyJob("Docs::Thumb", queue="ruby")

    @dramatiq.actor(queue_name="python", broker=broker)
    def first(number: int) -> None: ...

    # Long enough to be carried by reference.
    Workflow(Chain(*(first.message(n) for n in range(100))), broker).run()
    consumer = broker.consume("python", prefetch=1, timeout=2000)
    message: Any = next(consumer)
    message.output = Replace(Chain(first.message(-1), Job("Docs::Thumb")))
    consumer.ack(message)
    advance(broker)
    (job,) = members(client, "ruby")
    (callback,) = job[WORKFLOW.callbacks_key]
    children = callback[1]["children"]
    assert len(children) == 99
    assert {(child["class"], child["wrapped"]) for child in children} == {(WORKFLOW.noop_class, "first")}
    assert (children[0]["swf_step"], "swf_step" in children[1]) == (2, False)


def test_numbers_of_a_stored_chain_go_on_after_the_tree(broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(queue_name="python", broker=broker)
    def first(number: int) -> None: ...

    run_id = Workflow(Chain(*(first.message(n) for n in range(100))), broker).run()
    consumer = broker.consume("python", prefetch=1, timeout=2000)
    message: Any = next(consumer)
    consumer.ack(message)
    message = next(consumer)
    assert message.payload.stack[-1].remaining["__type__"] == "reference"
    message.output = Replace(Group(first.message(-1), first.message(-2)))
    consumer.ack(message)
    advance(broker, 4)
    assert {int(n) for n in client.hkeys(f"swf:flow:{run_id}:times")} == {0, 1, 2, 3, 4, 101, 102}


def test_steps_of_a_namespace_stay_in_it(flow: FlowTest) -> None:
    TREES["it"] = lambda: Replace(Group(step(flow.broker, "a"), Namespace("inner", step(flow.broker, "b"))))
    run = flow.run(Namespace("left", grow(flow.broker)))
    assert run.memory == {"left.last": "a", "left.inner.last": "b"}


@pytest.mark.parametrize(
    ("top", "replaced"),
    [
        *((top, both) for top in ("chain", "group") for both in ((True, False), (False, True), (True, True))),
        # Without callbacks, it has nothing that could go on twice but the tree.
        ("first", (True, True)),
    ],
    ids=str,
)
def test_of_two_deliveries_one_goes_on(
    broker: SidekiqBroker, client: redis.Redis, top: str, replaced: tuple[bool, bool]
) -> None:
    @dramatiq.actor(queue_name="python", broker=broker)
    def one(name: str) -> None: ...

    @dramatiq.actor(queue_name="next", broker=broker)
    def other(name: str) -> None: ...

    node = one.message("it") if top != "group" else Group(one.message("it"), other.message("sibling"))
    Workflow(node if top == "first" else Chain(node, other.message("after")), broker).run()
    client.lpush("queue:python", client.lrange("queue:python", 0, -1)[0])
    consumer = broker.consume("python", prefetch=1, timeout=2000)
    for each in replaced:
        message: Any = next(consumer)
        message.output = Replace(other.message("tree")) if each else None
        consumer.ack(message)
    broker.process.commit.flush()
    pushed = [job["args"][0] for job in members(client, "next")]
    siblings = ["sibling"] if top == "group" else []
    plain = [] if top == "group" else ["after"]
    assert sorted(pushed) == sorted([*siblings, *(["tree"] if replaced[0] else plain)])


def test_steps_that_end_together_get_different_numbers(broker: SidekiqBroker, client: redis.Redis) -> None:
    """Another step was replaced after this one has read the number of steps."""

    @dramatiq.actor(queue_name="python", broker=broker)
    def one() -> None: ...

    run_id = Workflow(Group(one.message(), one.message()), broker).run()
    consumer = broker.consume("python", prefetch=2, timeout=2000)
    first, second = next(consumer), next(consumer)
    assert first is not None
    assert second is not None
    commit, run = broker.process.commit, broker.process.commit.run

    def after_the_other(operation: Any) -> Any:
        commit.run = run  # type: ignore[method-assign]
        second.output = Replace(Chain(one.message(), one.message()))
        consumer.ack(second)
        return run(operation)

    first.output = Replace(one.message())
    commit.run = after_the_other  # type: ignore[method-assign]
    consumer.ack(first)
    added = {int(key): json.loads(value)["first"] for key, value in client.hgetall(f"swf:flow:{run_id}:added").items()}
    assert added == {1: 5, 2: 3}
    assert client.hget(f"swf:flow:{run_id}", "total") == b"5"
    assert replacements.total_of(broker.connection, f"swf:flow:{run_id}").value == "5"


def test_it_works_without_a_record(redis_url: str) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(), records=False))
    with FlowTest(broker) as flow:
        steps: list[str] = []

        @dramatiq.actor(queue_name="python", broker=broker)
        def one(name: str) -> Any:
            steps.append(name)
            return Replace(one.message("tree")) if name == "it" else None

        run = flow.run(Chain(one.message("it"), one.message("after")))
        assert steps == ["it", "tree", "after"]
        assert not any("swf_step" in job.fields for job in run.enqueued)
    broker.close()


@attrs.frozen
class Out:
    size: int


def test_a_typed_actor_checks_the_output_beside_the_tree(flow: FlowTest) -> None:
    @actor(queue_name="python", broker=flow.broker)
    def typed() -> Out:
        return Replace(step(flow.broker, "tree"), output=Out(7))  # type: ignore[return-value, arg-type]

    run = flow.run(typed.message())
    assert run.memory == {"size": 7, "last": "tree"}


def test_elsewhere_the_call_is_refused(redis_url: str) -> None:
    broker = StubBroker()
    broker.add_middleware(WorkflowMiddleware(url=redis_url))
    errors: list[Exception] = []

    @dramatiq.actor(queue_name="python", broker=broker, max_retries=0)
    def one() -> None:
        try:
            current_run().add(one.message())
        except ConfigurationError as e:
            errors.append(e)

    broker.declare_queue("python")
    worker = dramatiq.Worker(broker, worker_timeout=10)
    worker.start()
    try:
        Workflow(one.message(), broker).run()
        broker.join("python")
        worker.join()
    finally:
        worker.stop()
        broker.close()
    assert "SidekiqBroker only" in str(errors[0])


def test_a_cancellation_waits_for_ruby_that_runs_an_added_step(broker: SidekiqBroker, client: redis.Redis) -> None:
    RubyJob("Docs::Thumb", queue="ruby")

    @dramatiq.actor(queue_name="python", broker=broker)
    def one() -> None: ...

    run_id = Workflow(one.message(), broker).run()
    cancellation = Runs(broker)._cancellation
    assert not cancellation.may_be_in_ruby(run_id)
    consumer = broker.consume("python", prefetch=1, timeout=2000)
    message: Any = next(consumer)
    message.output = Replace(Job("Docs::Thumb"))
    consumer.ack(message)
    assert cancellation.may_be_in_ruby(run_id)
