"""Callbacks of runs with steps in Ruby: with the companion, and with the plain gem."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, Runs, SidekiqBroker, Workflow
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
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
    site.python_worker()
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


def test_a_death_in_ruby_is_told(mixed: Site, broker: SidekiqBroker, ruby: str) -> None:
    """By the companion at once, else by the keeper; the callbacks run in both languages."""
    tree = Chain(py(1), Job("Rb::DeadAtOnce", {"fail": 1}, retry=0), py(3))
    failure, complete = rb("failure"), as_messages(broker, py("complete"))
    run_id = Workflow(as_messages(broker, tree), broker, on_failure=failure, on_complete=complete).run()
    mixed.eventually(lambda: told(mixed, run_id, "complete"), "the callbacks")
    ((language, mapping),) = told(mixed, run_id, "failure")
    assert (language, mapping["run_id"], mapping["state"], mapping["step"]) == ("ruby", run_id, "failed", 2)
    assert (mapping["class"], mapping["error_class"]) == ("Rb::DeadAtOnce", "RuntimeError")
    assert mapping["error_message"] == "try 1 of 1 that fail"
    ((language, other),) = told(mixed, run_id, "complete")
    assert (language, other) == ("python", mapping)
    run = Runs(broker).get(run_id)
    (dead,) = run.failures
    assert (run.state, dead.jid, run.progress.done) == ("failed", mapping["jid"], 1)
    # A person retries it: the run is done, and calls nothing more.
    assert mixed.api("retry-dead", dead.jid)["found"]
    assert Runs(broker).wait(run_id, timeout=60_000).state == "done"
    mixed.eventually(lambda: not mixed.client.llen("queue:ruby") + mixed.client.llen("queue:python"), "the rest")
    assert len(told(mixed, run_id, "failure")) == len(told(mixed, run_id, "complete")) == 1


def test_the_end_of_a_run_is_told_to_ruby(mixed: Site, broker: SidekiqBroker, ruby: str) -> None:
    """With the plain gem, Python has to finish the run; the callback is not a step of it."""
    tree = Chain(Group(rb(1), py(2)), rb(3))
    last = rb(4) if ruby == "companion" else as_messages(broker, py(4))
    run_id = Workflow(as_messages(broker, tree), broker, on_success=last, on_complete=rb("complete")).run()
    mixed.eventually(lambda: told(mixed, run_id, "complete"), "the callback")
    assert told(mixed, run_id, "complete") == [("ruby", {"run_id": run_id, "template": None, "state": "done"})]
    run = Runs(broker).get(run_id)
    assert (run.state, run.progress.done, run.progress.total) == ("done", 4, 4)
    assert mixed.client.hget(f"swf:flow:{run_id}", "adopted") is None


def test_a_callback_of_a_cancelled_run_runs_in_ruby(mixed: Site, broker: SidekiqBroker) -> None:
    tree = Chain(py(1), Job("Rb::Step", 2, queue="held"))
    run_id = Workflow(as_messages(broker, tree), broker, on_complete=rb("complete")).run()
    mixed.eventually(lambda: mixed.client.llen("queue:held"), "the step of Ruby")
    Runs(broker).cancel(run_id)
    mixed.eventually(lambda: told(mixed, run_id, "complete"), "the callback")
    assert told(mixed, run_id, "complete")[0][1]["state"] == "cancelled"
