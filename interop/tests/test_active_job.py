"""Rails' jobs as steps: what ActiveJob does about an error is not the end of the step."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, SidekiqBroker, Workflow
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop.tests.companions import installed, worker
from interop.tests.processes import Site
from tests.redis_values import texts
from tests.running import in_flight


@pytest.fixture(scope="module")
def both(server: EmbeddedServer, container: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One Ruby worker for all tests here: look at your own run only."""
    folder = tmp_path_factory.mktemp("active_job")
    site = Site(f"{server.url.rstrip('/').removesuffix('/0')}/5", folder, ())
    try:
        with installed(folder, "steps.rb", "active_jobs.rb") as environment:
            worker(site, **environment)
            yield site
            site.stop()
    finally:
        site.close()


def active(what: str, name: str, **options: Any) -> Job:
    data: dict[str, Any] = {
        "job_class": "Aj::Step",
        "job_id": str(uuid.uuid4()),
        "provider_job_id": None,
        "queue_name": "ruby",
        "priority": None,
        "arguments": [what, name],
        "executions": 0,
        "exception_executions": {},
        "locale": "en",
        "timezone": None,
    }
    wrapper = "ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper"
    return Job(wrapper, data, wrapped="Aj::Step", queue="ruby", **options)


def start(broker: SidekiqBroker, what: str, **options: Any) -> tuple[str, str]:
    name = uuid.uuid4().hex
    after = Job("Rb::Step", name, queue="ruby")
    beside = Job("Rb::Step", queue="ruby")
    return Workflow(Chain(Group(active(what, name, **options), beside), after), broker).run(), name


def ran(site: Site, name: str) -> list[str]:
    """What ActiveJob performed of it."""
    return [line.split(" ", 1)[1] for line in texts(site.client.lrange("aj", 0, -1)) if line.startswith(name)]


def followed(site: Site, run_id: str, name: str) -> bool:
    return any(event["args"] == [name] for event in site.events(run_id))


@pytest.mark.parametrize("what", ["retry once", "again"])
def test_a_retry_is_the_same_step(both: Site, broker: SidekiqBroker, what: str) -> None:
    """The next step waits until it has succeeded; it keeps its id, and what it was told."""
    run_id, name = start(broker, what, tags=["etl"], retry=7)
    both.eventually(lambda: followed(both, run_id, name), "what follows", 20)
    assert ran(both, name) == [f"{what} 1", f"{what} 2"]
    events = [e for e in both.events(run_id) if e["class"].endswith("JobWrapper")]
    assert len({e["jid"] for e in events}) == 1
    assert both.events(run_id)[-1]["args"] == [name]
    assert sum(e["args"] == [name] for e in both.events(run_id)) == 1
    both.eventually(lambda: not in_flight(both.client), "an empty flight", 20)


@pytest.mark.parametrize(
    ("what", "error", "times"),
    [("discard", "StepDiscarded", 1), ("retry quietly", "StepDiscarded", 2), ("abort", "StepSkipped", 0)],
)
def test_a_step_that_is_given_up_is_dead(both: Site, broker: SidekiqBroker, what: str, error: str, times: int) -> None:
    run_id, name = start(broker, what)
    [member] = both.eventually(lambda: both.members("dead", run_id), "a dead step", 20)
    assert member["error_class"] == error
    assert len(ran(both, name)) == times
    assert not followed(both, run_id, name)
    assert both.members("retry", run_id) == []


def test_a_retry_that_is_given_up_is_retried_by_sidekiq(both: Site, broker: SidekiqBroker) -> None:
    run_id, name = start(broker, "retry for ever", retry=0)
    [member] = both.eventually(lambda: both.members("dead", run_id), "a dead step", 20)
    assert member["error_class"] == "ArgumentError"
    assert len(ran(both, name)) == 3
    assert not followed(both, run_id, name)


def test_what_another_job_does_inside_is_not_the_steps(both: Site, broker: SidekiqBroker) -> None:
    run_id, name = start(broker, "inner")
    both.eventually(lambda: followed(both, run_id, name), "what follows", 20)
    assert both.members("dead", run_id) == []


def test_a_job_without_a_run_is_left_alone(both: Site) -> None:
    data = active("retry once", "plain").args[0]
    payload = {"class": "ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper", "wrapped": "Aj::Step", "args": [data]}
    both.client.lpush("queue:ruby", json.dumps({**payload, "jid": "plain", "queue": "ruby", "retry": True}))
    both.eventually(lambda: ran(both, "plain") == ["retry once 1", "retry once 2"], "both tries", 20)
