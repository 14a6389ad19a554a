"""For any workflow whose steps replace themselves or add steps, also with repeated calls and deliveries: each step runs
in its order, as one job, and the record shows it in its place."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from typing import Any

import dramatiq
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    RedisHashMemory,
    Replace,
    Runs,
    SidekiqBroker,
    WithDelay,
    Workflow,
    WorkflowMiddleware,
    current_run,
)
from dramatiq_sidekiq_flow.runs.step_list import StepList

from ..example_counts import examples
from ..redis_values import raws
from ..running import in_flight
from ..trees import Shape, violations

QUEUE = "python"

#: A tree before it has jobs, as in ``trees``; a job is ("job", how, what replaces it).
Growing = Any


def growing(depth: int) -> st.SearchStrategy[Growing]:
    """Trees whose steps are replaced, at most ``depth`` times inside each other."""
    job: st.SearchStrategy[Growing] = st.just(("job", "", None))
    if depth:
        inner = growing(depth - 1)
        job |= st.tuples(st.just("job"), st.sampled_from(["call", "return", "both"]), inner)
        job |= st.tuples(st.just("job"), st.just("add"), st.lists(inner, max_size=3).map(lambda all: ("group", all)))
    return st.recursive(
        job,
        lambda inner: (
            st.tuples(st.sampled_from(["chain", "group"]), st.lists(inner, max_size=3))
            | st.tuples(st.just("delay"), st.integers(0, 20), inner)
        ),
        # A step may be replaced by a tree whose steps are replaced.
        max_leaves=1 + depth,
    )


def numbered(tree: Growing, numbers: Any) -> Any:
    """The same as JSON, in which each job has its number, depth first, before that of what replaces it."""
    if tree[0] == "job":
        number = next(numbers)
        return ["job", number, tree[1], tree[2] and numbered(tree[2], numbers)]
    if tree[0] == "delay":
        return ["delay", tree[1], numbered(tree[2], numbers)]
    return [tree[0], [numbered(child, numbers) for child in tree[1]]]


def model(tree: Any) -> Shape:
    """What must run in which order: a step that is replaced, and then what replaces it."""
    if tree[0] == "job":
        return "job" if tree[3] is None else ("chain", ["job", model(tree[3])])
    if tree[0] == "delay":
        return ("delay", tree[1], model(tree[2]))
    return (tree[0], [model(child) for child in tree[1]])


class World:
    """A worker that finishes what it has begun in any order, and whose calls and jobs come twice now and then."""

    def __init__(self, url: str, rng: random.Random) -> None:
        self.rng = rng
        self.client = redis.Redis.from_url(url)
        self.client.flushdb()
        self.broker = SidekiqBroker(url=url)
        self.broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
        self.events: list[tuple[str, int]] = []
        self.jids: dict[int, set[str]] = defaultdict(set)

        @dramatiq.actor(queue_name=QUEUE, broker=self.broker)
        def step(number: int, how: str, tree: Any) -> Any:
            if not how:
                return {str(number): 1}
            node = self.tree(tree)
            if how == "add":
                current_run().add(*node.children)
                return {str(number): 1}
            if how == "return":
                return Replace(node, output={str(number): 1})
            current_run().replace(node if how == "call" else Chain())
            if how == "both":
                current_run().add(node)
            return {str(number): 1}

        self.step = step
        self.consumer = self.broker.consume(QUEUE, prefetch=rng.choice([1, 8]), timeout=10)
        self.begun: list[Any] = []
        self.twice(self.broker.process.commit)

    def twice(self, commit: Any) -> None:
        """Send some operations twice, as redis-py does if their reply is lost."""
        run = commit.run

        def run_again(operation: Any) -> Any:
            if self.rng.random() < 0.3:
                run(operation)
            return run(operation)

        commit.run = run_again

    def tree(self, tree: Any) -> Any:
        if tree[0] == "job":
            return self.step.message(*tree[1:])
        if tree[0] == "delay":
            return WithDelay(self.tree(tree[2]), float(tree[1]) + 100)
        return (Chain if tree[0] == "chain" else Group)(*map(self.tree, tree[1]))

    def move(self) -> bool:
        """Begin a job, or end one; False if there is nothing to do."""
        for member in raws(self.client.zrange("schedule", 0, -1)):
            self.client.zrem("schedule", member)
            self.client.sadd("queues", QUEUE)
            self.client.lpush(f"queue:{QUEUE}", member)
        if self.begun and self.rng.random() < 0.6:
            self.end(self.begun.pop(self.rng.randrange(len(self.begun))))
            return True
        message = next(self.consumer)
        if message is not None:
            self.broker.emit_before("process_message", message)
            if message.args:
                self.events.append(("start", message.args[0]))
                self.jids[message.args[0]].add(message.message_id)
            result = self.broker.get_actor(message.actor_name)(*message.args)
            self.broker.emit_after("process_message", message, result=result)
            self.begun.append(message)
        elif self.begun:
            self.end(self.begun.pop())
        left = self.client.llen(f"queue:{QUEUE}") or self.client.zcard("schedule")
        return message is not None or bool(self.begun or left)

    def end(self, message: Any) -> None:
        if message.args:
            self.events.append(("end", message.args[0]))
        self.consumer.ack(message)
        if self.rng.random() < 0.15:
            # A process that was taken for dead went on: its job is delivered twice.
            self.client.lpush(f"queue:{QUEUE}", message.payload.raw)

    def close(self) -> None:
        self.broker.close()
        self.client.close()


@settings(
    deadline=None,
    max_examples=examples(50),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tree=growing(3), seed=st.integers(0, 2**32))
def test_a_tree_runs_in_the_place_of_its_step(redis_url: str, tree: Growing, seed: int) -> None:
    world = World(redis_url, random.Random(seed))
    numbers = itertools.count()
    plan = numbered(tree, numbers)
    count = next(numbers)
    run_id = Workflow(world.tree(plan), world.broker).run()
    while world.move():
        pass
    world.broker.process.commit.flush()
    assert not in_flight(world.client)
    assert not world.client.zcard("dead")
    assert list(violations(model(plan), count, world.events)) == []
    # A step that started twice would be two jobs.
    assert {number: len(jids) for number, jids in world.jids.items()} == dict.fromkeys(range(count), 1)
    run = Runs(world.broker).get(run_id)
    assert (run.state, run.progress.total, run.progress.done) == ("done", count, count)
    assert set(run.memory) == {str(number) for number in range(count)}
    assert isinstance(run.steps, StepList)
    shown = [run.steps.at(position) for position in range(1, count + 1)]
    assert [int(step.args.split(",")[0]) for step in shown] == list(range(count))
    assert sorted(step.number or 0 for step in shown) == list(range(1, count + 1))
    assert run.mermaid()
    assert str(run)
    world.close()
