"""Steps that a tree replaces, with steps of Ruby before, in and after the tree, and a step that waits for a signal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, Runs, SidekiqBroker, WaitFor, Workflow
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop.tests import companions
from interop.tests.processes import Site
from interop.tests.workflows import CARRIED, as_messages, rb

#: The two kinds of Ruby workers.
RUBIES = ("companion", "plain")


@pytest.fixture(params=RUBIES)
def mixed(server: EmbeddedServer, container: None, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A worker of each language; Ruby's with the companion, or with the plain gem."""
    site: Site = request.getfixturevalue("site")
    site.python_worker()
    if request.param == "plain":
        site.ruby_worker()
        yield site
        return
    with companions.installed(tmp_path, before=("steps.rb",)) as environment:
        companions.worker(site, INTEROP_PYTHON_CLASSES=",".join(site.stubs), **environment)
        yield site


def order(site: Site, run_id: str) -> list[Any]:
    """The steps that ran, but those that wait."""
    return [event["args"][0] for event in site.events(run_id) if event["args"][0] != "go"]


def test_ruby_before_in_and_after_the_tree(mixed: Site, broker: SidekiqBroker) -> None:
    tree = [["ruby", "b"], ["python", "c"], ["ruby", "d"]]
    grow, z = Job("docs.grow", "a", tree), Job(CARRIED, "z")
    node = as_messages(broker, Chain(rb("before"), Group(grow, rb("beside")), grow, rb("after"), z))
    run_id = Workflow(node, broker).run()
    run = Runs(broker).wait(run_id, timeout=60_000)
    assert (run.state, run.progress.total, run.progress.done) == ("done", 12, 12)
    found = order(mixed, run_id)
    assert (found[0], found[-2:]) == ("before", ["after", "z"])
    assert sorted(found) == sorted(["before", "beside", *"aabbccdd", "after", "z"])
    # One tree after the other.
    assert [name for name in found if name in list("abcd")] == [*"abcd", *"abcd"]


def test_ruby_pushes_what_follows_the_tree(mixed: Site, broker: SidekiqBroker) -> None:
    """The workflow has no step of Ruby, so its steps have no name that Ruby knows."""
    node = Chain(Job("docs.grow", "a", [["python", "b"], ["ruby", "c"]]), Job(CARRIED, "after"), Job(CARRIED, "z"))
    run_id = Workflow(as_messages(broker, node), broker).run()
    assert Runs(broker).wait(run_id, timeout=60_000).state == "done"
    assert order(mixed, run_id) == ["a", "b", "c", "after", "z"]


def test_ruby_before_and_after_a_signal(mixed: Site, broker: SidekiqBroker) -> None:
    otherwise = as_messages(broker, rb("otherwise"))
    waits_for_ever, waits_shortly = WaitFor("go", queue="python"), WaitFor("go", 500, otherwise, queue="python")
    last = broker.get_actor(CARRIED)
    node, late = (
        Chain(as_messages(broker, rb("before")), wait, as_messages(broker, rb("after")), last.message("last"))
        for wait in (waits_for_ever, waits_shortly)
    )
    runs = Runs(broker)
    waits, times_out = Workflow(node, broker).run(), Workflow(late, broker).run()
    mixed.eventually(lambda: runs.get(waits).steps[1].state == "signal", "the step that waits")
    assert runs.signal(waits, "go", {"by": "Ada"})
    assert [runs.wait(run_id, timeout=60_000).state for run_id in (waits, times_out)] == ["done", "done"]
    assert runs.get(waits).memory["go"] == {"by": "Ada"}
    assert order(mixed, waits) == ["before", "after", "last"]
    assert order(mixed, times_out) == ["before", "otherwise", "after", "last"]
