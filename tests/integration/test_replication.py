"""``Replication`` on a server without replicas: what is told, and to whom.  See tests/acceptance for real ones."""

from __future__ import annotations

import dramatiq
import pytest
import redis
from dramatiq.brokers.stub import StubBroker

from dramatiq_sidekiq_flow import Chain, Job, Prometheus, Replication, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.errors import NotReplicated

from ..running import eventually, members, working
from .test_prometheus import scrape

IMPATIENT = Replication(timeout=20)


def test_a_run_whose_steps_are_on_another_broker(redis_url: str, client: redis.Redis) -> None:
    broker = StubBroker()
    broker.add_middleware(WorkflowMiddleware(url=redis_url, replication=IMPATIENT))

    @dramatiq.actor(queue_name="python", broker=broker)
    def step() -> None: ...

    with pytest.raises(NotReplicated, match="The run mine is in Redis, but confirmed by 0 of 1 replicas within 20 ms"):
        Workflow(Chain(step.message(), Job("Ruby::Step", queue="ruby")), broker).run("mine")
    # Its first step was enqueued there all the same.
    assert broker.queues["python"].qsize() == 1
    with pytest.raises(NotReplicated):
        Workflow(Job("Ruby::Step", queue="ruby"), broker).run()
    assert len(members(client, "ruby")) == 1
    broker.close()


def test_acknowledgements_that_no_replica_has_are_counted(redis_url: str) -> None:
    broker = SidekiqBroker(url=redis_url, replication=Replication(push=0, timeout=20))
    broker.add_middleware(WorkflowMiddleware())
    metrics = Prometheus(host="127.0.0.1", port=0)
    broker.add_middleware(metrics)

    @dramatiq.actor(queue_name="python", broker=broker)
    def step() -> None: ...

    with working(broker):
        Workflow(Chain(step.message(), step.message()), broker).run()
        eventually(lambda: scrape(metrics).get(("unreplicated_total", "", ""), 0) >= 2)
    broker.close()
