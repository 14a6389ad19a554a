"""Steps on Dramatiq's own RedisBroker, and Ruby's: real Sidekiq advances onto ours, and ours onto Ruby."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker

from dramatiq_sidekiq_flow import Chain, Group, Job, RedisHashMemory, WithDelay, Workflow, WorkflowMiddleware
from interop.tests.processes import Site
from tests.running import eventually


@pytest.fixture
def local(site: Site) -> Iterator[RedisBroker]:
    broker = RedisBroker(url=site.url)
    middleware = WorkflowMiddleware(memory=RedisHashMemory(), url=site.url)
    broker.add_middleware(middleware)
    yield broker
    middleware.close()


def test_a_workflow_goes_from_sidekiq_to_redis_broker_and_back(site: Site, local: RedisBroker) -> None:
    log: list[Any] = []

    @dramatiq.actor(queue_name="python", broker=local)
    def here(n: int) -> dict[str, int]:
        log.append(n)
        return {f"python{n}": n}

    def there(n: int) -> Job:
        return Job("Rb::Step", n, queue="ruby")

    site.ruby_worker(stubs=False)
    worker = dramatiq.Worker(local, worker_threads=2, worker_timeout=50)
    worker.start()
    try:
        tree = Chain(
            there(1),
            here.message(2),
            Group(there(3), here.message(4), Chain(there(5), here.message(6))),
            WithDelay(there(7), 100),
            WithDelay(here.message(8), 100),
            there(9),
        )
        run_id = Workflow(tree, broker=local).run()
        site.eventually(lambda: [9] in [e["args"] for e in site.events(run_id)], "the last step")
        eventually(lambda: not site.client.keys("swf:inflight:*"))
    finally:
        worker.stop()
    events = site.events(run_id)
    assert sorted(e["args"][0] for e in events) == [1, 3, 5, 7, 9]
    assert sorted(log) == [2, 4, 6, 8]
    assert (log[0], log[-1]) == (2, 8)
    assert [e["args"] for e in events][-2:] == [[7], [9]]
    assert site.client.hget(f"swf:mem:{run_id}", "python8") == b"8"
    assert not site.client.exists("dead", "retry")
