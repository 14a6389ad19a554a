"""The renamed gem, with the companion: the same, and the old name's keys are refused."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, RedisHashMemory, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop.tests.companions import installed, worker
from interop.tests.processes import Site, ruby
from tests.redis_values import raws

DAY = 86_400


@pytest.fixture(scope="module")
def sideline(
    server: EmbeddedServer, container: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Site, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("sideline")
    site = Site(f"{server.url.rstrip('/').removesuffix('/0')}/10", folder, ())
    try:
        with installed(folder, "steps.rb", "start_sideline.rb", before=["sideline.rb"]) as environment:
            required = environment["INTEROP_REQUIRE"].removesuffix(":/interop/extra/start_sideline.rb")
            environment["INTEROP_REQUIRE"] = required
            worker(site, **environment)
            yield site, environment
            site.stop()
    finally:
        site.close()


def step(*args: Any) -> Job:
    return Job("Rb::Step", *args, queue="ruby")


def args(site: Site) -> list[Any]:
    """Of what was done."""
    return [event["args"] for event in site.events() if event["outcome"] == "done"]


def test_a_run(sideline: tuple[Site, dict[str, Any]]) -> None:
    site, _ = sideline
    broker = SidekiqBroker(url=site.url)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(), dialect="sideline"))
    run_id = Workflow(Chain(step({"return": {"a": 1}}), Group(step(2), step(2)), step(3)), broker).run()
    site.eventually(lambda: [3] in args(site), "the last step", 20)
    assert args(site)[1:] == [[2], [2], [3]]
    site.eventually(lambda: site.client.hgetall(f"sl:mem:{run_id}") == {b"a": b"1"}, "its memory", 20)
    broker.close()


def test_what_ruby_starts_lives_as_long_as_its_delays(sideline: tuple[Site, dict[str, Any]]) -> None:
    site, environment = sideline
    before = set(site.client.scan_iter("*_ran"))
    ruby(site.url, "/interop/extra/start_sideline.rb", **environment)
    [barrier] = set(site.client.scan_iter("*_ran")) - before
    assert site.client.ttl(barrier) > 71 * DAY - 60
    site.client.delete("schedule")


def test_keys_of_the_old_name_are_refused(sideline: tuple[Site, dict[str, Any]]) -> None:
    site, _ = sideline
    jid = uuid.uuid4().hex[:24]
    payload = {"class": "Rb::Step", "args": ["old"], "jid": jid, "queue": "ruby", "workflow_run_id": "r", "retry": 0}
    site.client.lpush("queue:ruby", json.dumps(payload))
    site.eventually(lambda: site.client.zcard("dead"), "a dead job", 20)
    [found] = map(json.loads, raws(site.client.zrange("dead", 0, -1)))
    assert found["error_class"] == "OtherDialect"
    assert "workflow_run_id" in found["error_message"]
    assert 'dialect="sideline"' in found["error_message"]
    assert ["old"] not in args(site)


def test_a_carrier_is_not_performed(sideline: tuple[Site, dict[str, Any]]) -> None:
    site, _ = sideline
    site.client.delete("dead")
    payload = {"class": "Sidekiq::Sideline::NoopWorker", "args": [], "jid": "c", "queue": "ruby", "wrapped": "py.actor"}
    site.client.lpush("queue:ruby", json.dumps({**payload, "retry": 0}))
    site.eventually(lambda: site.client.zcard("dead"), "a dead job", 20)
    [found] = map(json.loads, raws(site.client.zrange("dead", 0, -1)))
    assert found["error_class"] == "SidekiqFlow::WrongQueue"
