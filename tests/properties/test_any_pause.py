"""For any workflow, paused and resumed at any moment: nothing starts meanwhile, and each step runs once, in order."""

from __future__ import annotations

import random
from typing import Any

import dramatiq
import redis
from dramatiq.middleware import SkipMessage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow import RedisHashMemory, Runs, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.store import fanouts
from dramatiq_sidekiq_flow.store import runs as stored_runs

from ..example_counts import examples
from ..redis_values import raws, texts
from ..running import in_flight
from ..trees import Shape, build, shapes, violations

QUEUE = "python"

#: What belongs to a barrier, and may stay as long as the barrier of a run that is done.
BARRIER = 36


class World:
    """A run, and a worker that finishes what it has begun in any order."""

    def __init__(self, url: str, shape: Shape, rng: random.Random) -> None:
        self.rng = rng
        self.client = redis.Redis.from_url(url)
        self.client.flushdb()
        self.broker = SidekiqBroker(url=url)
        self.broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
        self.events: list[tuple[str, int]] = []

        @dramatiq.actor(queue_name=QUEUE, broker=self.broker)
        def step(n: int) -> None: ...

        tree, self.count = build(shape, step.message)
        self.run_id = Workflow(tree, self.broker).run()
        # It holds jobs that have not begun, too.
        self.consumer = self.broker.consume(QUEUE, prefetch=rng.choice([1, 8]), timeout=10)
        self.begun: list[Any] = []
        self.runs = Runs(self.broker)

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
            self.begin(message)
        elif self.begun:
            self.end(self.begun.pop())
        left = self.client.llen(f"queue:{QUEUE}") or self.client.zcard("schedule")
        return message is not None or bool(self.begun or left)

    def begin(self, message: Any) -> None:
        """As a thread of Dramatiq's worker does."""
        try:
            self.broker.emit_before("process_message", message)
        except SkipMessage:
            self.broker.emit_after("skip_message", message)
            self.consumer.ack(message)
            return
        if message.args:
            self.events.append(("start", message.args[0]))
        self.begun.append(message)

    def end(self, message: Any) -> None:
        if message.args:
            self.events.append(("end", message.args[0]))
            message.output = {str(message.args[0]): 1}
        self.consumer.ack(message)

    def pause(self) -> str:
        """Pause the run, as long ago as a worker needs to know it; its state."""
        state = self.runs.pause(self.run_id, "a test").state
        self.broker.process.cancelled_runs._looked = float("-inf")
        return state

    def close(self) -> None:
        self.broker.close()
        self.client.close()


@settings(
    deadline=None,
    max_examples=examples(50),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(shape=shapes, seed=st.integers(0, 2**32))
def test_each_step_runs_once_and_none_during_a_pause(redis_url: str, shape: Shape, seed: int) -> None:
    rng = random.Random(seed)
    world = World(redis_url, shape, rng)
    before = stored_runs.MAX_INLINE, fanouts.STAGE_TTL
    # Any plan of some jobs is a fan-out.
    stored_runs.MAX_INLINE = rng.choice([1, 1000])
    try:
        _check(world, shape, rng)
    finally:
        stored_runs.MAX_INLINE, fanouts.STAGE_TTL = before
        world.close()


def _check(world: World, shape: Shape, rng: random.Random) -> None:
    for _ in range(rng.randrange(1, 3)):
        for _ in range(rng.randrange(0, 2 * world.count + 1)):
            world.move()
        state, begun, seen = world.pause(), len(world.begun), len(world.events)
        while world.move():
            pass
        world.broker.process.commit.flush()
        # What had begun has ended, and nothing else has started.
        started = [n for what, n in world.events[seen:] if what == "start"]
        assert state in ("paused", "done")
        if state == "paused":
            assert started == []
            assert len(world.events) - seen <= begun
            assert not in_flight(world.client)
            paused = world.runs.get(world.run_id)
            assert paused.state in ("paused", "done")
            if paused.state == "paused":
                assert paused.progress.done == len({n for what, n in world.events if what == "end"})
                assert paused.progress.waiting == len([step for step in paused.steps if step.state == "parked"])
                assert not any(step.state == "lost" for step in paused.steps)
            _lives_as_long_as_dead_jobs(world)
        world.runs.resume(world.run_id)
    while world.move():
        pass
    world.broker.process.commit.flush()
    assert not in_flight(world.client)
    run = world.runs.get(world.run_id)
    assert (run.state, run.progress.done, run.reason) == ("done", world.count, "")
    assert set(run.memory) == {str(n) for n in range(world.count)}
    assert list(violations(shape, world.count, world.events)) == []
    assert len(world.events) == 2 * world.count
    assert not world.client.exists(f"swf:parked:{world.run_id}", f"swf:flow:{world.run_id}:disarmed", "swf:fanouts")
    assert not world.client.keys("swf:fanout:*")


def _lives_as_long_as_dead_jobs(world: World) -> None:
    """A barrier that waits, the memory and the record live as long as the parked jobs."""
    months = 179 * 86_400
    if world.runs.get(world.run_id).state == "done":
        return
    for name in texts(world.client.keys("*")):
        is_barrier = len(name) == BARRIER and world.client.get(f"{name}_ran") == b"-1"
        if is_barrier or name.startswith(("swf:parked:", "swf:mem:", f"swf:flow:{world.run_id}")):
            assert world.client.ttl(name) > months, name
