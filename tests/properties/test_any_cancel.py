"""For any workflow, cancelled at any moment: nothing of it starts afterwards, and another run goes on as if alone."""

from __future__ import annotations

import random
from typing import Any

import dramatiq
import redis
from dramatiq.middleware import SkipMessage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow import RedisHashMemory, Runs, SidekiqBroker, Workflow, WorkflowMiddleware

from ..example_counts import examples
from ..redis_values import raws
from ..running import in_flight
from ..trees import Shape, build, shapes, violations

QUEUE = "python"


class World:
    """Two runs, and a worker that finishes what it has begun in any order."""

    def __init__(self, url: str, shape: Shape, rng: random.Random) -> None:
        self.rng = rng
        self.client = redis.Redis.from_url(url)
        self.client.flushdb()
        self.broker = SidekiqBroker(url=url)
        self.broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
        self.events: list[tuple[str, str, int]] = []

        @dramatiq.actor(queue_name=QUEUE, broker=self.broker)
        def step(n: int) -> None: ...

        tree, self.count = build(shape, step.message)
        other, _ = build(shape, step.message)
        self.cancelled, self.other = Workflow(tree, self.broker).run(), Workflow(other, self.broker).run()
        # It holds jobs that have not begun, too.
        self.consumer = self.broker.consume(QUEUE, prefetch=rng.choice([1, 8]), timeout=10)
        self.begun: list[Any] = []

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
            self.events.append(("start", message.payload.run_id, message.args[0]))
        self.begun.append(message)

    def end(self, message: Any) -> None:
        if message.args:
            self.events.append(("end", message.payload.run_id, message.args[0]))
            message.output = {str(message.args[0]): 1}
        self.consumer.ack(message)

    def cancel(self) -> str:
        """Cancel the run, as long ago as a worker needs to know it; its state."""
        state = Runs(self.broker).cancel(self.cancelled, "a test").state
        self.broker.process.cancelled_runs._looked = float("-inf")
        return state

    def waiting(self) -> list[bytes]:
        """The jobs of the cancelled run in queues and sets."""
        jobs = raws(self.client.lrange(f"queue:{QUEUE}", 0, -1))
        jobs += [job for name in ("schedule", "retry", "dead") for job in raws(self.client.zrange(name, 0, -1))]
        return [job for job in jobs if self.cancelled.encode() in job]

    def close(self) -> None:
        self.broker.close()
        self.client.close()


@settings(
    deadline=None,
    max_examples=examples(100),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(shape=shapes, seed=st.integers(0, 2**32))
def test_nothing_starts_after_a_cancellation(redis_url: str, shape: Shape, seed: int) -> None:
    rng = random.Random(seed)
    world = World(redis_url, shape, rng)
    for _ in range(rng.randrange(0, 3 * world.count + 1)):
        world.move()
    state, before = world.cancel(), len(world.events)
    assert world.waiting() == []
    begun = {message.args[0] for message in world.begun if message.payload.run_id == world.cancelled and message.args}
    while world.move():
        if state == "cancelled":
            assert world.waiting() == []
    after = [(what, n) for what, run_id, n in world.events[before:] if run_id == world.cancelled]
    if state == "cancelled":
        assert sorted(after) == sorted(("end", n) for n in begun)
    world.broker.process.commit.flush()
    assert not in_flight(world.client)
    run, other = (Runs(world.broker).get(run_id) for run_id in (world.cancelled, world.other))
    assert (run.state, other.state, other.progress.done) == (state, "done", world.count)
    ended = {n for what, run_id, n in world.events if (what, run_id) == ("end", world.cancelled)}
    assert set(run.memory) == {str(n) for n in ended}
    assert run.progress.done == len(ended)
    others = [(what, n) for what, run_id, n in world.events if run_id == world.other]
    assert list(violations(shape, world.count, others)) == []
    world.close()
