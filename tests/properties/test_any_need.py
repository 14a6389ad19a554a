"""For any workflow with groups that need some of their members, whose steps die, come late, come twice, and are retried
by hand: each step whose turn comes runs once, none too early, and the record knows if the run can go on."""

from __future__ import annotations

import itertools
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import attrs
import dramatiq
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    RedisHashMemory,
    Runs,
    SidekiqBroker,
    WithDelay,
    Workflow,
    WorkflowMiddleware,
)

from ..redis_values import raws
from ..running import in_flight

QUEUE = "python"

#: A tree before it has jobs: ("job", whether it dies), (kind, children), ("need", children, how many may be missing).
Shape = Any

shapes: st.SearchStrategy[Shape] = st.recursive(
    st.tuples(st.just("job"), st.sampled_from([False, False, True])),
    lambda inner: (
        st.tuples(st.sampled_from(["chain", "group"]), st.lists(inner, min_size=1, max_size=3))
        | st.tuples(st.just("need"), st.lists(inner, min_size=2, max_size=4), st.integers(1, 3))
        | st.tuples(st.just("need"), st.lists(inner, min_size=2, max_size=4), st.integers(1, 3))
        | st.tuples(st.just("delay"), st.lists(inner, min_size=1, max_size=1))
    ),
    max_leaves=10,
)


@attrs.define
class Node:
    """A node of the model."""

    kind: str
    children: list[Node]
    need: int = 0
    number: int = 0
    dies: bool = False

    def is_done(self, ended: set[int]) -> bool:
        """Whether what follows may start, after these steps have ended well."""
        if self.kind == "job":
            return self.number in ended
        return sum(child.is_done(ended) for child in self.children) >= self.need

    def jobs(self) -> Iterator[Node]:
        if self.kind == "job":
            yield self
        for child in self.children:
            yield from child.jobs()

    def due(self, ended: set[int]) -> Iterator[Node]:
        """The steps whose turn has come."""
        if self.kind == "job":
            yield self
        for child in self.children:
            yield from child.due(ended)
            if self.kind == "chain" and not child.is_done(ended):
                return


def numbered(shape: Shape, numbers: Iterator[int]) -> Node:
    if shape[0] == "job":
        return Node("job", [], 0, next(numbers), shape[1])
    children = [numbered(child, numbers) for child in shape[1]]
    need = max(1, len(children) - shape[2]) if shape[0] == "need" else len(children)
    return Node(shape[0], children, need)


class World:
    """A worker that finishes what it has begun in any order, and whose calls and jobs come twice now and then."""

    def __init__(self, url: str, rng: random.Random) -> None:
        self.rng = rng
        self.client = redis.Redis.from_url(url)
        self.client.flushdb()
        self.broker = SidekiqBroker(url=url)
        self.broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
        self.ended: set[int] = set()
        self.healed: set[int] = set()
        self.failures: list[Any] = []
        self.jids: dict[int, set[str]] = defaultdict(set)

        @dramatiq.actor(queue_name=QUEUE, broker=self.broker, max_retries=0)
        def step(number: int, dies: bool) -> Any:
            if dies and number not in self.healed:
                raise ValueError(str(number))
            return {str(number): 1}

        @dramatiq.actor(queue_name=QUEUE, broker=self.broker)
        def failed(run: Any = None) -> None:
            self.failures.append(run)

        self.step, self.failed = step, failed
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

    def tree(self, node: Node) -> Any:
        if node.kind == "job":
            return self.step.message(node.number, node.dies)
        children = [self.tree(child) for child in node.children]
        if node.kind == "delay":
            return WithDelay(children[0], 100.0)
        if node.kind == "chain":
            return Chain(*children)
        return Group(*children, need=node.need)

    def move(self, root: Node) -> bool:
        """Begin a job, or end one; False if there is nothing to do."""
        for member in raws(self.client.zrange("schedule", 0, -1)):
            self.client.zrem("schedule", member)
            self.push(member)
        if self.begun and self.rng.random() < 0.6:
            self.end(self.begun.pop(self.rng.randrange(len(self.begun))))
            return True
        message = next(self.consumer)
        if message is not None:
            self.begin(message, root)
        elif self.begun:
            self.end(self.begun.pop())
        left = self.client.llen(f"queue:{QUEUE}") or self.client.zcard("schedule")
        return message is not None or bool(self.begun or left)

    def push(self, payload: bytes) -> None:
        self.client.sadd("queues", QUEUE)
        self.client.lpush(f"queue:{QUEUE}", payload)

    def begin(self, message: Any, root: Node) -> None:
        if len(message.args) == 2:
            assert message.args[0] in {job.number for job in root.due(self.ended)}, "too early"
            self.jids[message.args[0]].add(message.message_id)
        self.broker.emit_before("process_message", message)
        try:
            result = self.broker.get_actor(message.actor_name)(*message.args)
            self.broker.emit_after("process_message", message, result=result)
        except ValueError as e:
            message.stuff_exception(e)
            self.broker.emit_after("process_message", message, exception=e)
        self.begun.append(message)

    def end(self, message: Any) -> None:
        if message.failed:
            self.consumer.nack(message)
            return
        is_step = len(message.args) == 2
        if is_step:
            self.ended.add(message.args[0])
        self.consumer.ack(message)
        if is_step and self.rng.random() < 0.15:
            # A process that was taken for dead went on: its job is delivered twice.
            self.push(message.payload.raw)

    def retry(self) -> None:
        """Retry some of the dead steps, as Sidekiq's Web UI does; they do not fail again."""
        dead = raws(self.client.zrange("dead", 0, -1))
        for member in self.rng.sample(dead, self.rng.randint(1, len(dead))):
            self.client.zrem("dead", member)
            payload = json.loads(member)
            self.healed.add(payload["args"][0])
            self.push(json.dumps({**payload, "retry_count": payload["retry_count"] - 1}).encode())

    def work(self, root: Node) -> None:
        while self.move(root):
            pass
        self.broker.process.commit.flush()
        assert not in_flight(self.client)

    def close(self) -> None:
        self.broker.close()
        self.client.close()


def check(world: World, root: Node, run_id: str) -> None:
    """Compare the run with the model."""
    started = {job.number for job in root.due(world.ended)}
    dead = {job.number for job in root.jobs() if job.dies} - world.healed
    assert world.ended == started - dead
    assert {number: len(jids) for number, jids in world.jids.items()} == dict.fromkeys(started, 1)
    run = Runs(world.broker).get(run_id)
    is_done = root.is_done(world.ended)
    assert run.state == ("done" if is_done else "failed"), run
    assert {step.number for step in run.failures} == {number + 1 for number in started & dead}
    assert {step.number for step in run.steps if step.state == "done"} == {number + 1 for number in world.ended}
    assert run.progress.done == len(world.ended)
    assert set(run.memory) == set(map(str, world.ended))
    recorded = Runs(world.broker).list()[0].state
    assert recorded == run.state
    # It is called once, for a death that the run cannot do without.
    assert len(world.failures) <= 1
    assert is_done or world.failures
    assert not [key for key in raws(world.client.keys("*:d")) if world.client.ttl(key) < 0]
    assert run.mermaid()
    assert str(run)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(shape=shapes, seed=st.integers(0, 2**32))
def test_a_group_goes_on_when_enough_members_are_done(redis_url: str, shape: Shape, seed: int) -> None:
    world = World(redis_url, random.Random(seed))
    root = numbered(shape, itertools.count())
    run_id = Workflow(world.tree(root), world.broker, on_failure=world.failed.message()).run()
    world.work(root)
    check(world, root, run_id)
    fails = not root.is_done(world.ended)
    assert bool(world.failures) == fails
    while world.client.zcard("dead"):
        world.retry()
        world.work(root)
        check(world, root, run_id)
    assert world.ended == {job.number for job in root.jobs()}
    world.close()
