"""Any workflow does the same, whichever way its callback stacks are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow import (
    Chain,
    InlineCallbackStorage,
    RedisCallbackStorage,
    RedisHashMemory,
    SidekiqBroker,
    Workflow,
    WorkflowMiddleware,
)
from dramatiq_sidekiq_flow.store.chains import StoredChains
from dramatiq_sidekiq_flow.store.connection import connect
from dramatiq_sidekiq_flow.testing import FlowTest, Run

from ..example_counts import examples
from ..trees import Shape, build, shapes

QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def run(shape: Shape, storage: Any, fails: int) -> tuple[Run, list[bytes]]:
    broker = SidekiqBroker(url="redis://127.0.0.1:1/0")
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(), callback_storage=storage))
    tries: list[int] = []

    @dramatiq.actor(queue_name="python", broker=broker, max_retries=1)
    def step(n: int) -> dict[str, Any]:
        tries.append(n)
        if n == fails and tries.count(n) == 1:
            raise ValueError
        return {str(n): len(tries)}

    # A chain around it, so that a long rest waits below everything.
    tree, count = build(("chain", ["job", shape, ("group", ["job", shape]), "job"]), step.message)
    with FlowTest(broker) as flow:
        found = flow.run(Workflow(tree, broker), "the run")
        flow.assert_order(found)
        assert len({step.place for step in found.steps} - {None}) == count
        left = broker.connection.call("KEYS", "*")
        assert all(broker.connection.call("TTL", key) > 0 for key in left if key.startswith(b"swf:callbacks:"))
    broker.close()
    return found, left


@settings(deadline=None, max_examples=examples(40), suppress_health_check=QUIET)
@given(shape=shapes, fails=st.integers(0, 6), min_bytes=st.sampled_from([0, 150, 1000]))
def test_order_memory_and_jobs_are_the_same(shape: Shape, fails: int, min_bytes: int) -> None:
    inline, _ = run(shape, InlineCallbackStorage(), fails)
    stored, left = run(shape, RedisCallbackStorage(min_bytes), fails)
    assert [(s.name, s.args, s.attempt) for s in stored.steps] == [(s.name, s.args, s.attempt) for s in inline.steps]
    assert stored.memory == inline.memory
    jobs = [[(job.name, job.args, job.queue, job.delay) for job in r.enqueued] for r in (stored, inline)]
    assert jobs[0] == jobs[1]
    assert stored.dead == inline.dead == ()
    assert min_bytes or any(key.startswith(b"swf:callbacks:") for key in left)


@pytest.fixture
def chains(redis_url: str) -> Iterator[StoredChains]:
    connection = connect(redis_url)
    yield StoredChains(connection)
    connection.close()


@settings(deadline=None, max_examples=examples(60), suppress_health_check=QUIET)
@given(tree=st.lists(shapes, min_size=1, max_size=6), cut=st.integers(0, 5))
def test_what_is_stored_is_what_comes_back(chains: StoredChains, tree: list[Shape], cut: int) -> None:
    """From any step on, but for what has nothing to run at the end."""
    broker = SidekiqBroker(client=redis.Redis(), middleware=[])
    broker.add_middleware(WorkflowMiddleware())

    @dramatiq.actor(broker=broker)
    def step(n: int) -> None: ...

    nodes, _ = build(("chain", [*tree, "job"]), step.message)
    assert isinstance(nodes, Chain)
    wire = Workflow(nodes, broker).wire
    storage = RedisCallbackStorage(min_bytes=0)
    storage.bind(chains)
    stored = json.loads(json.dumps(storage.store([["a", wire, False]])))
    assert storage.retrieve(stored) == [["a", wire, False]]
    reference = stored[0][1]
    for child in wire["children"][: cut % len(wire["children"])]:
        found, following = chains.read(reference, 60)
        assert found == child
        assert following is not None
        reference = following
    rest = wire["children"][reference["at"] :]
    assert chains.whole(reference) == {"__type__": "chain", "children": rest}
