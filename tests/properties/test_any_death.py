"""For any workflow whose steps die: each step that may run runs once, in order, if Python or Ruby buries a step."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from typing import Any

import attrs
import dramatiq
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow import (
    Catch,
    Chain,
    Group,
    MayFail,
    RedisHashMemory,
    Runs,
    SidekiqBroker,
    WithDelay,
    Workflow,
    WorkflowMiddleware,
)
from dramatiq_sidekiq_flow.broker.retries import killed
from dramatiq_sidekiq_flow.store import keys, sets
from dramatiq_sidekiq_flow.wire import codec
from dramatiq_sidekiq_flow.wire.payload import failed

from ..example_counts import examples
from ..redis_values import raws

QUEUE = "python"

#: A tree before it has jobs: a leaf is (kind, who buries it: "" lets it live), and may have a fallback.
Shape = Any

_ENDS = st.sampled_from(["", "", "python", "ruby"])

shapes: st.SearchStrategy[Shape] = st.recursive(
    st.tuples(st.just("step"), st.sampled_from(["", "", "", "", "python"])) | st.tuples(st.just("may fail"), _ENDS),
    lambda inner: (
        st.tuples(st.sampled_from(["chain", "group"]), st.lists(inner, max_size=4))
        | st.tuples(st.just("delay"), inner)
        | st.tuples(st.just("catch"), _ENDS, inner)
    ),
    max_leaves=12,
)


@attrs.define
class Expected:
    """What a run must do.

    Attributes:
      ran: The steps that run.
      deaths: Step -> who buries it.
      caught: The steps whose deaths do not stop the run.
      pairs: Steps of which the first must have ended when the second starts.
    """

    ran: list[int] = attrs.field(factory=list)
    deaths: dict[int, str] = attrs.field(factory=dict)
    caught: set[int] = attrs.field(factory=set)
    pairs: set[tuple[int, int]] = attrs.field(factory=set)

    def visit(self, shape: Shape, numbers: Iterator[int], *, runs: bool = True) -> tuple[list[int], bool]:
        """Walk a tree; return the steps of it that run, and True if it is done in the end."""
        kind = shape[0]
        if kind == "delay":
            return self.visit(shape[1], numbers, runs=runs)
        if kind in ("chain", "group"):
            return self._branch(kind, shape[1], numbers, runs)
        number = next(numbers)
        dies = runs and shape[1] != ""
        if dies:
            self.deaths[number] = shape[1]
        if dies and kind != "step":
            self.caught.add(number)
        own = [number] if runs else []
        self.ran += own
        if kind != "catch":
            return own, runs and (not dies or kind == "may fail")
        instead, done = self.visit(shape[2], numbers, runs=dies)
        self.pairs |= set(itertools.product(own, instead))
        return own + instead, runs and (done or not dies)

    def _branch(self, kind: str, shapes: list[Shape], numbers: Iterator[int], runs: bool) -> tuple[list[int], bool]:
        parts: list[int] = []
        goes_on = runs
        done = True
        for shape in shapes:
            part, is_done = self.visit(shape, numbers, runs=goes_on)
            if kind == "chain":
                self.pairs |= set(itertools.product(parts, part))
                goes_on = goes_on and is_done
            done = done and is_done
            parts += part
        return parts, runs and done


class World:
    """A run, and a worker that ends what it has begun in any order."""

    def __init__(self, url: str, shape: Shape, rng: random.Random) -> None:
        self.rng = rng
        self.client = redis.Redis.from_url(url)
        self.client.flushdb()
        self.broker = SidekiqBroker(url=url)
        self.broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
        self.expected = Expected()
        _, self.is_done = self.expected.visit(shape, itertools.count())
        self.log: list[tuple[str, int]] = []

        @dramatiq.actor(queue_name=QUEUE, broker=self.broker)
        def step(n: int) -> None: ...

        numbers = itertools.count()

        def node(shape: Shape) -> Any:
            if shape[0] == "delay":
                return WithDelay(node(shape[1]), 1000)
            if shape[0] in ("chain", "group"):
                return (Chain if shape[0] == "chain" else Group)(*map(node, shape[1]))
            message = step.message(next(numbers))
            if shape[0] == "catch":
                return Catch(message, node(shape[2]))
            return MayFail(message) if shape[0] == "may fail" else message

        self.run_id = Workflow(node(shape), self.broker).run()
        self.total = next(numbers)
        self.consumer = self.broker.consume(QUEUE, prefetch=100, timeout=1)
        self.begun: list[Any] = []

    def work(self) -> None:
        while self.move() or self.watch():
            pass

    def move(self) -> bool:
        """Begin a job, or end one; False if there is nothing to do."""
        for member in raws(self.client.zrange("schedule", 0, -1)):
            self.client.zrem("schedule", member)
            self.client.sadd("queues", QUEUE)
            self.client.lpush(f"queue:{QUEUE}", member)
        if self.rng.random() < 0.1:
            self.watch()
        if self.begun and self.rng.random() < 0.5:
            self.end(self.begun.pop(self.rng.randrange(len(self.begun))))
            return True
        message = next(self.consumer)
        if message is not None:
            self.log += [("start", n) for n in message.args]
            self.begun.append(message)
            return True
        if self.begun:
            self.end(self.begun.pop())
            return True
        return bool(self.client.zcard("schedule"))

    def end(self, message: Any) -> None:
        self.log += [("end", n) for n in message.args]
        who = self.expected.deaths.get(message.args[0], "") if message.args else ""
        if who == "ruby":
            fields = failed(message.payload.fields, ValueError("no"), now=time.time(), queue=QUEUE)
            self.client.zadd("dead", {codec.encode(fields): time.time()})
            self.client.hdel(keys.in_flight(message.member), message.receipt)
            self.consumer.in_flight.discard(message.receipt)
            return
        if who:
            message.failure = killed(message.payload, QUEUE, ValueError("no"))
        self.consumer.ack(message)

    def watch(self) -> bool:
        """Look at ``dead``, as one process does at intervals; return True if there are jobs now."""
        upkeep = self.broker.process.heartbeat.upkeep
        for member, _ in sets.members(self.broker.connection, "dead"):
            upkeep.handle(member)
        return bool(self.client.llen(f"queue:{QUEUE}") or self.client.zcard("schedule"))


#: Most trees are chains, in which a death matters for what comes next.
trees = st.tuples(st.just("chain"), st.lists(shapes, min_size=2, max_size=4)) | shapes


@given(shape=trees, seed=st.integers(0, 2**32))
@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_may_go_on_goes_on_once_and_in_order(redis_url: str, shape: Shape, seed: int) -> None:
    world = World(redis_url, shape, random.Random(seed))
    try:
        world.work()
        _check_steps(world)
        _check_dead(world)
        _check_record(world)
    finally:
        world.broker.close()


def _check_steps(world: World) -> None:
    """Each step that may run has run once, and none of them early."""
    expected = world.expected
    assert sorted(n for what, n in world.log if what == "start") == sorted(expected.ran)
    for first, second in expected.pairs:
        assert world.log.index(("end", first)) < world.log.index(("start", second))


def _check_dead(world: World) -> None:
    """Each dead step is in ``dead`` once, those that were caught without their run."""
    dead = [codec.decode(raw) for raw in raws(world.client.zrange("dead", 0, -1))]
    assert sorted(job["args"][0] for job in dead) == sorted(world.expected.deaths)
    for job in dead:
        is_caught = job["args"][0] in world.expected.caught
        assert ("workflow_run_id" in job) is not is_caught
        assert job.get("swf_died_in") == (world.run_id if is_caught else None)
        assert not is_caught or not {"workflow_completion_callbacks", "swf_on_death", "swf_step"} & job.keys()


def _check_record(world: World) -> None:
    """Its steps add up, and those of the list, too."""
    run = Runs(world.broker).get(world.run_id)
    expected = world.expected
    assert run.state == ("done" if world.is_done else "failed")
    dead, skipped = len(expected.deaths), [step for step in run.steps if step.state == "skipped"]
    assert {step.number - 1 for step in run.failures if step.number} == set(expected.deaths)
    assert all(step.error == "ValueError: no" for step in run.failures)
    states = {step.number: step.state for step in run.steps}
    assert all(states[n + 1] == ("dead" if n in expected.deaths else "done") for n in expected.ran)
    assert run.progress.failed == dead
    assert run.progress.done == len(expected.ran) - dead
    assert run.progress.total == world.total - len(skipped)
    if world.is_done:
        assert len(skipped) == world.total - len(expected.ran)
        (listed,) = Runs(world.broker).list()
        assert listed.progress == attrs.evolve(run.progress, running=None, waiting=None)
