"""For any workflow whose steps are replaced, add others, die, or wait for a signal, and which is paused, resumed,
retried and cancelled at any moment: each step runs once, in its order, no signal is lost, none starts in a run that
is paused or cancelled, each callback is pushed once, and the numbers of the record add up."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import attrs
import dramatiq
import redis
from dramatiq.middleware import SkipMessage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow import (
    Catch,
    Chain,
    Group,
    Job,
    MayFail,
    RedisHashMemory,
    Replace,
    Runs,
    SidekiqBroker,
    WaitFor,
    Workflow,
    WorkflowMiddleware,
    current_run,
)
from dramatiq_sidekiq_flow.broker.retries import killed
from dramatiq_sidekiq_flow.runs import Run, Step, run_sweep
from dramatiq_sidekiq_flow.runs.step_list import StepList
from dramatiq_sidekiq_flow.web.tree_picture import draw
from dramatiq_sidekiq_flow.wire.wait_for import PREFIX, waiting_for

from ..example_counts import examples
from ..redis_values import raws
from ..running import in_flight, members
from ..trees import Shape, violations

QUEUE = "python"

#: A tree before it has jobs.  A leaf is (kind, a tree or None): ``step``; ``grows``, which the tree replaces;
#: ``adds``, which is followed by the tree; ``mends``, which is dead until it is retried; ``may fail``, which dies;
#: ``dies`` and ``lives``, which have the tree as their fallback; ``waits``, for a signal;
#: ``late``, whose time is over, so that the tree runs in its place.
Tree = Any

LEAVES = st.tuples(st.sampled_from(["step", "step", "may fail", "waits", "mends"]), st.none())


def trees(depth: int) -> st.SearchStrategy[Tree]:
    """Trees with others in the place of steps, at most ``depth`` times inside each other."""
    leaf: st.SearchStrategy[Tree] = LEAVES
    if depth:
        leaf |= st.tuples(st.sampled_from(["grows", "adds", "dies", "lives", "late"]), trees(depth - 1))
    branches = st.sampled_from(["chain", "group"])
    return st.recursive(leaf, lambda inner: st.tuples(branches, st.lists(inner, max_size=3)), max_leaves=2 + depth)


@attrs.define
class Numbering:
    """Numbers of the steps that run, and of those that do not, depth first: a step before what takes its place."""

    runs: Iterator[int] = attrs.field(factory=itertools.count)
    others: Iterator[int] = attrs.field(factory=lambda: itertools.count(10_000))

    def of(self, tree: Tree, *, runs: bool = True) -> Any:
        """The same tree as JSON, in which each leaf is [kind, number, tree or None]."""
        kind, inner = tree
        if kind in ("chain", "group"):
            return [kind, [self.of(child, runs=runs) for child in inner]]
        number = next(self.runs if runs else self.others)
        return [kind, number, inner and self.of(inner, runs=runs and kind != "lives")]


def model(tree: Any) -> Shape:
    """What must run in which order."""
    if len(tree) == 2:
        return (tree[0], [model(child) for child in tree[1]])
    return "job" if tree[2] is None or tree[0] == "lives" else ("chain", ["job", model(tree[2])])


class World:
    """A run, and a worker that finishes what it has begun in any order, and sends some operations twice."""

    def __init__(self, url: str, tree: Tree, rng: random.Random) -> None:
        self.rng = rng
        self.client = redis.Redis.from_url(url)
        self.client.flushdb()
        self.broker = SidekiqBroker(url=url)
        self.broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
        self.events: list[tuple[str, int]] = []
        self.begun: list[Any] = []
        self.kinds: Counter[str] = Counter()
        #: Steps that are not mended.
        self.broken: set[int] = set()

        @dramatiq.actor(queue_name=QUEUE, broker=self.broker)
        def step(number: int, kind: str, inner: Any) -> Any:
            if kind == "adds":
                current_run().add(self.node(inner))
            return Replace(self.node(inner), output={str(number): 1}) if kind == "grows" else {str(number): 1}

        self.step = step
        self._twice(self.broker.process.commit)
        numbering = Numbering()
        self.tree = numbering.of(tree)
        self.count = next(numbering.runs)
        self._note(self.tree)
        #: Signals that were not sent yet.
        self.signals = [f"s{number}" for number in self._waits(self.tree) if number < 10_000]
        calls = {f"on_{name}": Job("Tell", name, queue="calls") for name in ("failure", "complete")}
        self.run_id = Workflow(self.node(self.tree), self.broker, **calls).run()  # type: ignore[arg-type]
        self.consumer = self.broker.consume(QUEUE, prefetch=rng.choice([1, 8]), timeout=10)
        self.runs = Runs(self.broker)

    def _twice(self, commit: Any) -> None:
        """Send some operations twice, as redis-py does if their reply is lost."""
        run = commit.run

        def run_again(operation: Any) -> Any:
            if self.rng.random() < 0.2:
                run(operation)
            return run(operation)

        commit.run = run_again

    def _note(self, tree: Any) -> None:
        """Count the kinds of the steps that run."""
        if len(tree) == 2:
            for child in tree[1]:
                self._note(child)
        elif tree[1] < 10_000:
            self.kinds[tree[0]] += 1
            self.broken |= {tree[1]} if tree[0] == "mends" else set()
            if tree[2]:
                self._note(tree[2])

    def _waits(self, tree: Any) -> Iterator[int]:
        if len(tree) == 2:
            for child in tree[1]:
                yield from self._waits(child)
            return
        if tree[0] == "waits":
            yield tree[1]
        if tree[2]:
            yield from self._waits(tree[2])

    def node(self, tree: Any) -> Any:
        if len(tree) == 2:
            return (Chain if tree[0] == "chain" else Group)(*map(self.node, tree[1]))
        kind, number, inner = tree
        if kind == "waits":
            return WaitFor(f"s{number}", queue=QUEUE)
        if kind == "late":
            return WaitFor(f"l{number}", 0, self.node(inner), queue=QUEUE)
        message = self.step.message(number, kind, inner)
        if kind in ("dies", "lives"):
            return Catch(message, self.node(inner))
        return MayFail(message) if kind == "may fail" else message

    def move(self) -> bool:
        """Begin a job, end one, or send a signal; False if there is nothing to do."""
        if self.signals and self.rng.random() < 0.1:
            self.signal()
        # A person who lets a step run that waits changes nothing.
        early = self.rng.random() < 0.02
        for member in raws(self.client.zrange("schedule", 0, -1)):
            if early or waiting_for(member) is None:
                self.client.zrem("schedule", member)
                self.client.lpush(f"queue:{QUEUE}", member)
        if self.begun and self.rng.random() < 0.6:
            self.end(self.begun.pop(self.rng.randrange(len(self.begun))))
            return True
        message = next(self.consumer)
        if message is not None:
            self.begin(message)
        elif self.begun:
            self.end(self.begun.pop())
        return message is not None or bool(self.begun or self.client.llen(f"queue:{QUEUE}"))

    def signal(self) -> None:
        name = self.signals.pop(self.rng.randrange(len(self.signals)))
        assert self.runs.signal(self.run_id, name, 1)

    def begin(self, message: Any) -> None:
        """As a thread of Dramatiq's worker does."""
        try:
            self.broker.emit_before("process_message", message)
        except SkipMessage:
            self.broker.emit_after("skip_message", message)
            self.consumer.ack(message)
            return
        if message.args:
            self.events.append(("start", number_of(message.args[0])))
        result = self.broker.get_actor(message.actor_name)(*message.args)
        self.broker.emit_after("process_message", message, result=result)
        self.begun.append(message)

    def end(self, message: Any) -> None:
        args = message.args
        if len(args) == 3 and (args[1] in ("dies", "may fail") or args[0] in self.broken):
            message.failure = killed(message.payload, QUEUE, ValueError("no"))
        if args and args[0] in self.broken:
            self.broken.discard(args[0])
            self.consumer.ack(message)
            return
        place = len(self.events)
        self.consumer.ack(message)
        if args and (type(args[0]) is int or self.is_done(message.payload.step)):
            self.events.insert(place, ("end", number_of(args[0])))

    def is_done(self, number: int) -> bool:
        """Return True if a step is recorded as done: one that waits may have left flight for that."""
        return self.client.hexists(f"swf:flow:{self.run_id}:times", str(number)) == 1

    def work(self) -> None:
        while self.move():
            pass
        self.broker.process.commit.flush()

    def work_and_mend(self) -> None:
        """Work until no step is dead that stops the run."""
        self.work()
        while self.runs.get(self.run_id).state == "failed" or self.client.zcard("swf:flows:failed"):
            self.runs.retry(self.run_id)
            self.work()

    def told(self) -> list[tuple[str, str]]:
        """The callbacks that were pushed, and the states that they are given."""
        return sorted((job["args"][0], job["args"][-1]["state"]) for job in members(self.client, "calls"))

    def close(self) -> None:
        self.broker.close()
        self.client.close()


def number_of(value: int | str) -> int:
    """The number of a step, from its first argument: a number, or the name of a signal."""
    return value if isinstance(value, int) else int(value[1:])


@settings(
    deadline=None,
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tree=trees(1) | trees(2) | trees(3), seed=st.integers(0, 2**32), cancels=st.sampled_from([False, False, True]))
def test_each_step_runs_once_whatever_is_done_to_the_run(redis_url: str, tree: Tree, seed: int, cancels: bool) -> None:
    rng = random.Random(seed)
    world = World(redis_url, tree, rng)
    before = run_sweep.BETWEEN
    run_sweep.BETWEEN = 0.001
    try:
        for _ in range(rng.randrange(0, 3)):
            for _ in range(rng.randrange(0, 2 * world.count + 1)):
                world.move()
            _pause(world)
        if cancels:
            _check_cancellation(world)
            return
        world.work_and_mend()
        _check_waits(world)
        while world.signals:
            world.signal()
        world.work_and_mend()
        _check_end(world)
    finally:
        run_sweep.BETWEEN = before
        world.close()


def _pause(world: World) -> None:
    state, seen = world.runs.pause(world.run_id).state, len(world.events)
    world.broker.process.cancelled_runs._looked = float("-inf")
    world.work()
    if state == "paused":
        assert [event for event in world.events[seen:] if event[0] == "start"] == []
        assert not in_flight(world.client)
        assert not world.client.zcard("schedule")
        assert world.runs.explain(world.run_id).verdict in ("paused", "done")
        run = world.runs.get(world.run_id)
        assert not any(step.state == "lost" for step in run.steps)
    world.runs.resume(world.run_id)


def _check_cancellation(world: World) -> None:
    """What runs, ends, and nothing else starts."""
    for _ in range(world.rng.randrange(0, world.count + 1)):
        world.move()
    state, seen = world.runs.cancel(world.run_id).state, len(world.events)
    world.broker.process.cancelled_runs._looked = float("-inf")
    world.signals.clear()
    world.work()
    assert state in ("cancelled", "done")
    assert [event for event in world.events[seen:] if event[0] == "start"] == []
    assert not in_flight(world.client)
    assert not world.client.exists("schedule", "retry", f"queue:{QUEUE}", f"swf:parked:{world.run_id}")
    run = world.runs.get(world.run_id)
    assert run.state == state
    done = {_shown(step) for step in run.steps if step.state == "done"}
    assert done <= {number for what, number in world.events if what == "end"}
    assert [call for call in world.told() if call[0] == "complete"] == [("complete", state)]
    assert len(world.told()) <= 2


def _check_waits(world: World) -> None:
    """What is open waits for signals, and an explanation says so."""
    run = world.runs.get(world.run_id)
    open_states = {step.state for step in run.steps} - {"done", "dead", "skipped", "pending"}
    assert open_states <= {"signal"}
    assert run.state == ("waiting" if open_states else "done")
    causes = {finding.cause for finding in world.runs.explain(world.run_id).findings}
    assert causes - {"after_others"} == ({"signal"} if open_states else set())


def _check_end(world: World) -> None:
    assert not in_flight(world.client)
    assert not world.client.zcard("schedule")
    starts = Counter(number for what, number in world.events if what == "start")
    ends = Counter(number for what, number in world.events if what == "end")
    assert ends == dict.fromkeys(range(world.count), 1)
    assert set(starts) == set(range(world.count))
    assert sum(starts.values()) == world.count + world.kinds["mends"] or world.kinds["waits"]
    assert list(violations(model(world.tree), world.count, world.events)) == []
    failures = [("failure", "failed")] if world.kinds["mends"] else []
    assert world.told() == [("complete", "done"), *failures]
    run = world.runs.get(world.run_id)
    dead = world.kinds["dies"] + world.kinds["may fail"]
    assert (run.state, run.progress.total) == ("done", world.count)
    assert (run.progress.done, run.progress.failed) == (world.count - dead, dead)
    (listed,) = world.runs.list()
    assert listed.progress == attrs.evolve(run.progress, running=None, waiting=None)
    assert [_shown(step) for step in _in_place(run) if step.state != "skipped"] == list(range(world.count))
    assert all(_shown(step) >= 10_000 for step in run.steps if step.state == "skipped")
    assert isinstance(run.steps, StepList)
    boxes = [box for box in draw(run.steps, str).boxes if box.state]
    assert sum(box.total for box in boxes) == len(run.steps)
    assert {box.link for box in boxes} <= {str(step.number) for step in run.steps}
    assert run.mermaid()
    assert str(run)


def _in_place(run: Run) -> Iterator[Step]:
    assert isinstance(run.steps, StepList)
    return map(run.steps.at, range(1, len(run.steps) + 1))


def _shown(step: Step) -> int:
    if step.name.startswith(PREFIX):
        return number_of(step.name.removeprefix(PREFIX))
    return int(step.args.split(",")[0])
