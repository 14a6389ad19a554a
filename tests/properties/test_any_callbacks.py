"""For any workflow, whichever steps die, and whatever is sent twice: each callback is pushed as often as it must be."""

from __future__ import annotations

import json
import random
from typing import Any

import dramatiq
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow import Job, Runs, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.runs import resting_runs
from dramatiq_sidekiq_flow.runs.run_keeper import RunKeeper
from dramatiq_sidekiq_flow.store.connection import Connection
from dramatiq_sidekiq_flow.workflow.engine_lookup import engine_of

from ..example_counts import examples
from ..redis_values import raws
from ..running import members
from ..trees import Shape, build, shapes

QUEUE = "python"


class World:
    """A run with both callbacks, a worker that sends what it likes twice, and a person who retries."""

    def __init__(self, url: str, shape: Shape, rng: random.Random) -> None:
        self.rng = rng
        self.client = redis.Redis.from_url(url)
        self.client.flushdb()
        self.broker = SidekiqBroker(url=url)
        self.broker.add_middleware(WorkflowMiddleware())

        @dramatiq.actor(queue_name=QUEUE, broker=self.broker, max_retries=0)
        def step(n: int) -> None: ...

        tree, self.count = build(shape, step.message)
        calls = {f"on_{name}": Job("Tell", name, queue="calls") for name in ("failure", "complete")}
        self.run_id = Workflow(tree, self.broker, unique_key="any", **calls).run()  # type: ignore[arg-type]
        self.keeper = RunKeeper(engine_of(self.broker), is_elsewhere=False)
        self.consumer = self.broker.consume(QUEUE, prefetch=1, timeout=10)
        self._repeat()

    def _repeat(self) -> None:
        """Send each script of the worker and of the keeper twice, now and then, as after a lost reply."""
        rng, send = self.rng, Connection.send

        def repeated(connection: Connection, commands: Any) -> Any:
            if commands[0][0] == "EVALSHA" and rng.random() < 0.3:
                send(connection, commands)
            return send(connection, commands)

        connection: Any = self.broker.connection
        connection.send = lambda commands: repeated(connection, commands)
        lane: Any = self.broker.process.commit.connection
        lane.send = lambda commands: repeated(lane, commands)

    def move(self, deaths: float) -> bool:
        """Run a job, which may die; False if there is none."""
        for member in raws(self.client.zrange("schedule", 0, -1)):
            self.client.zrem("schedule", member)
            self.client.sadd("queues", QUEUE)
            self.client.lpush(f"queue:{QUEUE}", member)
        message: Any = next(self.consumer)
        if message is None:
            return False
        if message.args and self.rng.random() < deaths:
            error = ValueError("it dies")
            message.stuff_exception(error)
            self.broker.emit_after("process_message", message, exception=error)
            self.consumer.nack(message)
        else:
            self.consumer.ack(message)
        return True

    def told(self) -> list[tuple[str, str]]:
        """Callback and state, in the order of the pushes."""
        return [(job["args"][0], job["args"][-1]["state"]) for job in reversed(members(self.client, "calls"))]

    def retry_all(self) -> None:
        for member in raws(self.client.zrange("dead", 0, -1)):
            self.client.zrem("dead", member)
            self.client.lpush(f"queue:{QUEUE}", json.dumps(json.loads(member)))

    def close(self) -> None:
        self.broker.close()
        self.client.close()


@settings(
    deadline=None,
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(shape=shapes, seed=st.integers(0, 2**32), deaths=st.sampled_from([0.0, 0.2, 0.6]), cancels=st.booleans())
def test_each_callback_is_pushed_once(redis_url: str, shape: Shape, seed: int, deaths: float, cancels: bool) -> None:
    rng = random.Random(seed)
    resting_runs.FIRST = 0.0
    world = World(redis_url, shape, rng)
    steps = rng.randrange(0, world.count + 1) if cancels else 10_000
    while steps and world.move(deaths):
        steps -= 1
        if rng.random() < 0.3:
            world.keeper.keep()
    if cancels:
        Runs(world.broker).cancel(world.run_id, "a test")
    died = bool(world.client.zcard("dead"))
    for _ in range(2):
        world.keeper.keep()
    state: str = Runs(world.broker).get(world.run_id).state
    assert state in (("done", "cancelled") if cancels else ("done", "failed"))
    expected = [("failure", "failed")] if died else []
    # A failed run that rested before it was cancelled has told so.
    completed = [("complete", state)] if ("complete", "failed") not in world.told() else [("complete", "failed")]
    assert world.told() == [*expected, *completed]
    assert not world.client.exists("swf:resting")
    assert world.client.exists("swf:unique:any") == (state == "failed")
    if state == "failed":
        world.retry_all()
        while world.move(0.0):
            world.keeper.keep()
        assert Runs(world.broker).get(world.run_id).state == "done"
        assert world.told() == [*expected, *completed]
        assert not world.client.exists("swf:unique:any", "swf:resting")
    world.close()
