"""For any steps that write in any namespaces: each reads the nearest, and nobody's values are lost."""

from __future__ import annotations

from typing import Any

import dramatiq
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow import Chain, Namespace, RedisHashMemory, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.context import RunMemory

from ..example_counts import examples

QUEUE = "python"
names = st.lists(st.sampled_from(["a", "b", "a b", "ä"]), max_size=3)
values = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.floats(allow_nan=False, allow_infinity=False))
outputs = st.dictionaries(st.sampled_from(["x", "y", "a", "a.x", "b.y", "", "."]), values, max_size=4)


@settings(
    deadline=None,
    max_examples=examples(80),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(st.tuples(names, outputs), max_size=6))
def test_the_nearest_is_read(redis_url: str, steps: list[tuple[list[str], dict[str, Any]]]) -> None:
    client = redis.Redis.from_url(redis_url)
    client.flushdb()
    memory = RedisHashMemory()
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(memory=memory))

    @dramatiq.actor(queue_name=QUEUE, broker=broker)
    def step(n: int) -> None: ...

    def node(n: int) -> Any:
        task: Any = step.message(n)
        for name in reversed(steps[n][0]):
            task = Namespace(name, task)
        return task

    run_id = Workflow(Chain(*map(node, range(len(steps)))), broker=broker).run()
    everything: dict[str, Any] = {}
    for names_around, output in steps:
        (message,) = [next(broker.consume(QUEUE, prefetch=1, timeout=1000))]
        assert message is not None
        assert message.payload.namespace == ".".join(names_around)
        seen = RunMemory(memory, run_id, message.payload.namespace)
        around = [".".join(names_around[:n]) + "." for n in range(1, len(names_around) + 1)]
        for key in ("x", "y", "a", "a.x", "nothing"):
            found = [everything[full] for full in (p + key for p in ["", *around]) if full in everything]
            assert seen.read(key) == ({key: found[-1]} if found else {})
            assert seen.read().get(key, "nothing there") == (found[-1] if found else "nothing there")
        message.output = output
        broker.consume(QUEUE, prefetch=1).ack(message)
        everything.update((".".join([*names_around, key]), value) for key, value in output.items())
        assert memory.read(run_id) == everything
    broker.close()
    client.close()
