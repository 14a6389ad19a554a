"""For any workflow whose steps die and whose barriers are lost at any moment: the doctor brings it to its end."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import dramatiq
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow import Runs, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.runs import Doctor

from ..example_counts import examples
from ..redis_values import raws
from ..trees import Shape, build, violations

QUEUE = "python"

#: Each node has a step: the doctor does not know the place of a job that stands for an empty one.
full_shapes: st.SearchStrategy[Shape] = st.recursive(
    st.just("job"),
    lambda inner: st.tuples(st.sampled_from(["chain", "group"]), st.lists(inner, min_size=1, max_size=4)),
    max_leaves=10,
)


class World:
    """A run, and a worker that finishes what it has begun in any order."""

    def __init__(self, url: str, shape: Shape, rng: random.Random) -> None:
        self.rng = rng
        self.client = redis.Redis.from_url(url)
        self.client.flushdb()
        self.broker = SidekiqBroker(url=url)
        self.broker.add_middleware(WorkflowMiddleware())
        self.events: list[tuple[str, int]] = []

        @dramatiq.actor(queue_name=QUEUE, broker=self.broker, retry=0)
        def step(n: int) -> None: ...

        tree, self.count = build(shape, step.message)
        self.run = Workflow(tree, self.broker).run()
        self.consumer = self.broker.consume(QUEUE, prefetch=1, timeout=10)
        self.begun: list[Any] = []

    def move(self) -> bool:
        """Begin a job, end one, or lose all barriers; False if there is nothing to do."""
        if self.rng.random() < 0.1:
            self.lose_barriers()
        if self.begun and self.rng.random() < 0.5:
            self.end(self.begun.pop(self.rng.randrange(len(self.begun))))
            return True
        message = next(self.consumer)
        if message is not None:
            self.begin(message)
        elif self.begun:
            self.end(self.begun.pop())
        return message is not None or bool(self.begun or self.client.llen(f"queue:{QUEUE}"))

    def begin(self, message: Any) -> None:
        if message.args:
            self.events.append(("start", message.args[0]))
        self.begun.append(message)

    def end(self, message: Any) -> None:
        if message.args and self.rng.random() < 0.2:
            self.broker.emit_after("process_message", message, exception=ValueError("cannot"))
            self.consumer.nack(message)
            return
        if message.args:
            self.events.append(("end", message.args[0]))
        self.consumer.ack(message)

    def lose_barriers(self) -> None:
        for marker in raws(self.client.keys("*_ran")):
            barrier = marker.removesuffix(b"_ran")
            self.client.delete(marker, barrier, barrier + b":u")

    def cure(self) -> None:
        """Let the doctor fix the run: steps that ran are released, and the others run again."""
        doctor = Doctor(Runs(self.broker))
        (found,) = doctor.examine([self.run])
        outcomes = {action.outcome for action in doctor.fix(found, "rerun", dry=False)}
        if "refused" in outcomes:
            again = list(doctor.examine([self.run]))
            outcomes = {action.outcome for each in again for action in doctor.fix(each, "release", dry=False)}
        assert outcomes == {"done"}

    def close(self) -> None:
        self.broker.close()
        self.client.close()


@settings(
    deadline=None,
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(shape=full_shapes, seed=st.integers(0, 2**32))
def test_the_doctor_brings_each_run_to_its_end(redis_url: str, shape: Shape, seed: int) -> None:
    world = World(redis_url, shape, random.Random(seed))
    state = "running"
    for _ in range(100):
        while world.move():
            pass
        state = Runs(world.broker).get(world.run).state
        if state == "done":
            break
        world.cure()
    assert state == "done"
    assert list(violations(shape, world.count, world.events)) == []
    # Each step ran to its end once.
    assert Counter(job for what, job in world.events if what == "end") == Counter(range(world.count))
    world.close()
