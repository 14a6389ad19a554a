"""Cancelled runs with steps in Ruby: with the companion, and with the plain gem."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, Runs, SidekiqBroker
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop.tests import companions
from interop.tests.processes import Site
from interop.tests.workflows import py, rb, start
from tests.running import in_flight

#: The two kinds of Ruby workers.
RUBIES = ("companion", "plain")


@pytest.fixture(params=RUBIES)
def ruby(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def mixed(
    ruby: str, server: EmbeddedServer, container: None, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Site]:
    """A worker of each language; Ruby's with the companion, or with the plain gem."""
    site: Site = request.getfixturevalue("site")
    site.python_worker()
    if ruby == "plain":
        site.ruby_worker()
        # It may take its first job before its first beat: until then, a cancellation knows nothing of it.
        site.eventually(lambda: site.client.scard("processes") == 2, "the first beat of each worker")
        yield site
        return
    with companions.installed(tmp_path, before=("steps.rb",)) as environment:
        companions.worker(site, INTEROP_PYTHON_CLASSES=",".join(site.stubs), **environment)
        yield site


def names(site: Site, run_id: str) -> list[Any]:
    return sorted(event["args"][0] for event in site.events(run_id))


def taken(site: Site, run_id: str) -> bool:
    """Whether no job of the run waits in a queue."""
    waiting = [job for name in ("ruby", "python") for job in site.client.lrange(f"queue:{name}", 0, -1)]
    return bool(site.client.smembers("processes")) and not any(run_id.encode() in job for job in waiting)


def begun(site: Site, gates: int = 1) -> bool:
    """Whether Ruby runs steps that wait for their gates."""
    return sum(one["cmd"] == "blpop" for one in site.client.client_list()) == gates


@pytest.mark.parametrize("following", ["ruby", "python", "group"])
def test_nothing_follows_what_ruby_runs(mixed: Site, broker: SidekiqBroker, following: str) -> None:
    nodes: dict[str, Any] = {"ruby": rb("after"), "python": py("after"), "group": Group(rb("after"), py("after"))}
    tree = Chain(Group(Chain(Job("Rb::Gate", "gate"), nodes[following]), py("beside")), py("last"))
    run_id = start(mixed, broker, "python", tree)
    mixed.eventually(lambda: begun(mixed), "Ruby runs the first step")
    mixed.eventually(lambda: names(mixed, run_id) == ["beside"], "the step beside it")
    run = Runs(broker).cancel(run_id, "no need")
    assert (run.state, run.reason) == ("cancelled", "no need")
    mixed.client.rpush("gate", "open")
    mixed.eventually(lambda: names(mixed, run_id) == ["beside", "gate"], "the end of the step that ran")
    # Each worker ends what it has begun.
    mixed.stop()
    assert names(mixed, run_id) == ["beside", "gate"]
    assert not mixed.client.exists("queue:ruby", "queue:python", "schedule", "retry", "dead")
    assert Runs(broker).get(run_id).state == "cancelled"


def test_another_run_goes_on(mixed: Site, broker: SidekiqBroker) -> None:
    cancelled, other = (
        start(mixed, broker, "python", Chain(Job("Rb::Gate", gate), rb("after"), py("last"))) for gate in ("a", "b")
    )
    mixed.eventually(lambda: begun(mixed, 2), "Ruby runs both")
    Runs(broker).cancel(cancelled)
    for gate in ("a", "b"):
        mixed.client.rpush(gate, "open")
    assert Runs(broker).wait(other, timeout=60_000).state == "done"
    mixed.eventually(lambda: names(mixed, cancelled) == ["a"], "the end of the step that ran")
    mixed.stop()
    assert names(mixed, other) == ["after", "b", "last"]
    assert names(mixed, cancelled) == ["a"]


@pytest.mark.parametrize("ruby", ["companion"], indirect=True)
@pytest.mark.parametrize("long_ago", [False, True], ids=["soon", "long-after"])
def test_the_companion_starts_no_step(mixed: Site, broker: SidekiqBroker, long_ago: bool) -> None:
    """A step that comes back, as from ``dead``, when nothing of the run was in a queue."""
    run_id = start(mixed, broker, "python", Chain(Job("Rb::Gate", "gate"), rb("after")))
    mixed.eventually(lambda: begun(mixed), "Ruby runs the first step")
    Runs(broker).cancel(run_id)
    known = time.monotonic() + 1.0
    mixed.client.rpush("gate", "open")
    mixed.eventually(lambda: names(mixed, run_id) == ["gate"], "the end of the step that ran")
    mixed.eventually(lambda: time.monotonic() > known, "a second")
    job = {"class": "Rb::Step", "args": ["again"], "jid": "a" * 24, "queue": "ruby", "retry": True, "swf_step": 2}
    job |= {"workflow_run_id": run_id, "workflow_completion_callbacks": []}
    if long_ago:
        mixed.client.delete("swf:cancelled")
        job["retry_count"] = 3
    mixed.client.lpush("queue:ruby", json.dumps(job))
    mixed.eventually(lambda: taken(mixed, run_id) and not in_flight(mixed.client), "it was taken, and left flight")
    mixed.stop()
    assert names(mixed, run_id) == ["gate"]
    assert not mixed.client.exists("queue:ruby", "retry", "dead")
