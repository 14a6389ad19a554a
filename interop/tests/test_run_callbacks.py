"""Callbacks of runs with steps in Ruby: with the companion, and with the plain gem."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, Runs, SidekiqBroker, Workflow
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from dramatiq_sidekiq_flow.store import run_cancel
from interop.tests import companions
from interop.tests.processes import Site
from interop.tests.workflows import as_messages, py, rb

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
    # The keeper comes with a beat.
    site.python_worker(heartbeat=2_000)
    if ruby == "plain":
        site.ruby_worker()
        yield site
        return
    with companions.installed(tmp_path, before=("steps.rb",)) as environment:
        companions.worker(site, INTEROP_PYTHON_CLASSES=",".join(site.stubs), **environment)
        yield site


def told(site: Site, run_id: str, name: str) -> list[tuple[str, dict[str, Any]]]:
    """Language and mapping of each call of a callback."""
    events = site.events(run_id)
    return [(event["language"], event["args"][-1]) for event in events if event["args"][0] == name]


def test_callbacks(mixed: Site, broker: SidekiqBroker) -> None:
    """A death in Ruby, which the companion tells at once, and else the keeper; an end; and a cancellation."""

    def start(node: Any, **calls: Any) -> str:
        return Workflow(as_messages(broker, node), broker, **calls).run()

    complete = as_messages(broker, py("complete"))
    fails = Job("Rb::DeadAtOnce", {"fail": 1}, retry=0)
    failed = start(Chain(py(1), fails, py(3)), on_failure=rb("failure"), on_complete=complete)
    # A job in Python ends the run, also behind the plain gem.
    done = start(Chain(Group(rb(1), py(2)), rb(3)), on_success=rb(4), on_complete=rb("complete"), unique_key="one")
    # Also where trees that end in Ruby replaced the last steps.
    grow = Job("docs.grow", "a", [["python", "c"], ["ruby", "d"]])
    grown = start(Group(grow, grow), on_complete=rb("complete"))
    cancelled = start(Chain(py(1), Job("Rb::Step", 2, queue="held")), on_complete=rb("complete"))
    mixed.eventually(lambda: mixed.client.llen("queue:held"), "the step of Ruby")
    # Without the search for jobs, which waits for the beats of plain Ruby.
    assert run_cancel.cancel(cancelled, "").run(broker.connection) == "cancelled"
    for run_id in (failed, done, grown, cancelled):
        mixed.eventually(lambda run_id=run_id: told(mixed, run_id, "complete"), "the callbacks")
    check_failed(mixed, broker, failed)
    assert told(mixed, done, "complete") == [("ruby", {"run_id": done, "template": None, "state": "done"})]
    run = Runs(broker).get(done)
    assert (run.state, run.progress.done, run.progress.total) == ("done", 4, 4)
    assert mixed.client.hget(f"swf:flow:{done}", "adopted") is None
    assert not mixed.client.exists("swf:unique:one")
    assert told(mixed, grown, "complete") == [("ruby", {"run_id": grown, "template": None, "state": "done"})]
    assert told(mixed, cancelled, "complete")[0][1]["state"] == "cancelled"


def check_failed(site: Site, broker: SidekiqBroker, run_id: str) -> None:
    ((language, mapping),) = told(site, run_id, "failure")
    assert (language, mapping["run_id"], mapping["state"], mapping["step"]) == ("ruby", run_id, "failed", 2)
    assert (mapping["class"], mapping["error_class"]) == ("Rb::DeadAtOnce", "RuntimeError")
    assert mapping["error_message"] == "try 1 of 1 that fail"
    assert told(site, run_id, "complete") == [("python", mapping)]
    run = Runs(broker).get(run_id)
    (dead,) = run.failures
    assert (run.state, dead.jid, run.progress.done) == ("failed", mapping["jid"], 1)
    # A person retries it: the run is done, and calls nothing more.
    assert site.api("retry-dead", dead.jid)["found"]
    assert Runs(broker).wait(run_id, timeout=60_000).state == "done"
    site.eventually(lambda: not site.client.llen("queue:ruby") + site.client.llen("queue:python"), "the rest")
    assert len(told(site, run_id, "failure")) == len(told(site, run_id, "complete")) == 1
