"""For any workflow: every job is pushed once, in order, whatever happens on the way."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import dramatiq
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow import RedisHashMemory, Runs, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.broker.begin import begin

from ..example_counts import examples
from ..redis_values import raws
from ..trees import Shape, build, shapes, violations

QUEUE = "python"


@settings(
    deadline=None,
    max_examples=examples(150),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# The empty chain, which is delayed, becomes a job without a number.
@example(shape=("chain", ["job", ("delay", 1, ("chain", [("chain", []), "job"]))]), seed=0)
@given(shape=shapes, seed=st.integers(0, 2**32))
def test_each_job_is_pushed_once_and_in_order(redis_url: str, shape: Shape, seed: int) -> None:
    """Jobs complete in any order, come twice, and lose their worker in any place."""
    # What waits when depends on the clock, so hypothesis cannot draw from it.
    rng = random.Random(seed)
    client = redis.Redis.from_url(redis_url)
    client.flushdb()
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))

    @dramatiq.actor(queue_name=QUEUE, broker=broker)
    def step(n: int) -> None: ...

    tree, count = build(shape, step.message)
    run_id = Workflow(tree, broker=broker).run()
    pushed: dict[int, set[str]] = {}
    events: list[tuple[str, int]] = []
    late: list[bytes] = []
    deaths = 0
    while True:
        for member in raws(client.zrange("schedule", 0, -1)):
            client.zrem("schedule", member)
            client.lpush(f"queue:{QUEUE}", member)
        waiting: list[Any] = raws(client.lrange(f"queue:{QUEUE}", 0, -1))
        if not waiting:
            if not late:
                break
            # Long after all is done, duplicates turn up.
            client.lpush(f"queue:{QUEUE}", *late)
            late = []
            continue
        # Any of them may be next.
        chosen = rng.choice(waiting)
        client.lrem(f"queue:{QUEUE}", 1, chosen)
        fate = rng.choice(["done", "done", "twice", "late twice", "dies"])
        client.rpush(f"queue:{QUEUE}", chosen)
        consumer = broker.consume(QUEUE, prefetch=1, timeout=50)
        message = next(consumer)
        assert message is not None
        assert message.payload.raw == chosen
        job = json.loads(chosen)
        n = job["args"][0] if job["args"] else None
        if n is not None:
            pushed.setdefault(n, set()).add(job["jid"])
            assert job["swf_step"] == n + 1
            events.append(("start", n))
        if fate == "dies" and deaths < 5:
            deaths += 1
            begin(broker.process.in_flight, broker.connection, message)
            client.zadd("swf:workers", {message.member: time.time() - 3600})
            broker.process.heartbeat.recover(message.member)
            client.delete(*client.keys("swf:recovered:*"))  # not what is looked at here
            consumer.in_flight.discard(message.receipt)
            broker.process.heartbeat.register(QUEUE)
            continue
        if n is not None:
            events.append(("end", n))
            message.output = {str(n): n}
        consumer.ack(message)
        if fate == "twice":
            client.rpush(f"queue:{QUEUE}", chosen)
        elif fate == "late twice":
            late.append(chosen)
    run = Runs(broker).get(run_id)
    assert (run.state, run.progress.done, run.progress.total) == ("done", count, count)
    assert not any(one.inferred for one in run.steps)
    broker.close()
    assert {n: len(jids) for n, jids in pushed.items()} == dict.fromkeys(range(count), 1)
    assert list(violations(shape, count, events)) == []
    assert client.zcard("dead") == 0
    fields: Any = client.hgetall(f"swf:mem:{run_id}")
    assert {int(k): int(v) for k, v in fields.items()} == {n: n for n in range(count)}
    client.close()
