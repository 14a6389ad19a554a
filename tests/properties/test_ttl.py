"""For any workflow, with delays of weeks: nothing that it still needs expires."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import dramatiq
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow import RedisHashMemory, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.broker.retries import Failure
from dramatiq_sidekiq_flow.wire.callbacks import load_stack
from dramatiq_sidekiq_flow.wire.lifetimes import RETRY_HORIZON, barrier_ttl

from ..example_counts import examples
from ..redis_values import raws, scored
from ..trees import Shape, build, shapes

QUEUE = "python"
DAY = 86_400
#: A barrier that has less than an hour to lose is not written again; and the test takes its time.
SLACK = 3600 + 300


class World:
    """A Redis whose clock can be put forward: due times and ttls move instead."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def pending(self) -> list[tuple[float, dict[str, Any]]]:
        """Seconds until it is due, and the job."""
        found = [(0.0, json.loads(raw)) for raw in self.client.lrange(f"queue:{QUEUE}", 0, -1)]
        for name in ("schedule", "retry"):
            for raw, at in scored(self.client.zrange(name, 0, -1, withscores=True)):
                found.append((max(0.0, at - time.time()), json.loads(raw)))
        return found

    def wait(self) -> bool:
        """Let time pass until the next job is due; it is in its queue then.  False where none is to come."""
        found = [
            (at, name, raw)
            for name in ("schedule", "retry")
            for raw, at in scored(self.client.zrange(name, 0, 0, withscores=True))
        ]
        if not found:
            return False
        at, name, raw = min(found)
        self.client.zrem(name, raw)
        self.client.lpush(f"queue:{QUEUE}", raw)
        elapsed = max(0, int(at - time.time()))
        for other in ("schedule", "retry"):
            for member in raws(self.client.zrange(other, 0, -1)):
                self.client.zincrby(other, -elapsed, member)
        keys = raws(self.client.keys())
        with self.client.pipeline() as pipeline:
            for key, ttl in zip(keys, [self.client.ttl(key) for key in keys]):
                if ttl >= 0 and not key.startswith(b"swf:push:"):
                    pipeline.expire(key, ttl - elapsed)
            pipeline.execute()
        return True


def check(world: World, run_id: str, written: set[int]) -> None:
    """Each job that is to come finds its barriers and the memory, whenever it comes, and for all its retries."""
    client = world.client
    memory = client.ttl(f"swf:mem:{run_id}")
    for wait, job in world.pending():
        stack = load_stack(job.get("workflow_completion_callbacks"))
        for place, callback in enumerate(stack):
            needed = wait + barrier_ttl(None, stack[place:])
            for key in (callback.barrier, f"{callback.barrier}_ran", f"{callback.barrier}:u"):
                ttl = client.ttl(key)
                assert ttl >= needed - SLACK or (ttl == -2 and key.endswith(":u")), (key, ttl, needed)
        if written:
            needed = wait + barrier_ttl(None, stack)
            assert memory >= needed - SLACK, (memory, needed)
    if written:
        assert {int(field) for field in client.hkeys(f"swf:mem:{run_id}")} == written


@settings(
    deadline=None,
    max_examples=examples(150),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(shape=shapes, seed=st.integers(0, 2**32), seeded=st.booleans())
def test_nothing_that_is_needed_expires(redis_url: str, shape: Shape, seed: int, seeded: bool) -> None:
    """Jobs complete in any order, some write, some fail and are tried again after 20 days."""
    rng = random.Random(seed)
    client = redis.Redis.from_url(redis_url)
    client.flushdb()
    world = World(client)
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))

    @dramatiq.actor(queue_name=QUEUE, broker=broker)
    def step(n: int) -> None: ...

    tree, count = build(shape, step.message, unit=DAY * 1000)
    written = {-1} if seeded else set()
    run_id = Workflow(tree, broker=broker).start(seed=dict.fromkeys(map(str, written), True))
    failures, done, over = 0, 0, not world.pending()
    while not over:
        check(world, run_id, written)
        waiting: list[Any] = raws(client.lrange(f"queue:{QUEUE}", 0, -1))
        if not waiting:
            assert world.wait()
            continue
        chosen = rng.choice(waiting)
        client.lrem(f"queue:{QUEUE}", 1, chosen)
        client.rpush(f"queue:{QUEUE}", chosen)
        consumer = broker.consume(QUEUE, prefetch=1, timeout=50)
        message = next(consumer)
        assert message is not None
        if failures < 3 and rng.random() < 0.2:
            failures += 1
            message.failure = Failure("retry", chosen, time.time() + 20 * DAY)
        elif message.args:
            done += 1
            if rng.random() < 0.5:
                written.add(message.args[0])
                message.output = {str(message.args[0]): True}
        consumer.ack(message)
        over = not world.pending()
    broker.close()
    assert client.zcard("dead") == 0
    assert done == count
    check(world, run_id, written)
    if written:
        # Nothing is to come: it is kept for a day, as it was asked.
        assert DAY - SLACK < client.ttl(f"swf:mem:{run_id}") <= DAY
    assert RETRY_HORIZON == 21 * DAY
    client.close()
