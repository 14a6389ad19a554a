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


def test_trees_and_signals_between_steps_of_ruby(mixed: Site, broker: SidekiqBroker) -> None:
    """Several runs at once: each in its order."""
    runs, last = Runs(broker), Job(CARRIED, "last")
    tree = [["ruby", "b"], ["python", "c"], ["ruby", "d"]]
    grow = Job("docs.grow", "a", tree)
    grown = started(broker, rb("before"), Group(grow, rb("beside")), grow, rb("after"), last)
    # Without a step of Ruby, none of its steps has a name that Ruby knows.
    pushed = started(broker, Job("docs.grow", "a", tree), Job(CARRIED, "after"), last)
    otherwise = as_messages(broker, rb("otherwise"))
    signalled = started(broker, rb("before"), WaitFor("go", queue="python"), rb("after"), last)
    late = started(broker, rb("before"), WaitFor("go", 500, otherwise, queue="python"), rb("after"), last)
    mixed.eventually(lambda: runs.get(signalled).steps[1].state == "signal", "the step that waits")
    # The signal comes while the run is paused.
    assert runs.pause(signalled).steps[1].state == "parked"
    assert runs.signal(signalled, "go", {"by": "Ada"})
    runs.resume(signalled)
    ended = [runs.wait(run_id, timeout=60_000) for run_id in (grown, pushed, signalled, late)]
    assert [(run.state, run.progress.total, run.progress.done) for run in ended] == [
        ("done", count, count) for count in (12, 6, 4, 5)
    ]
    assert ended[2].memory["go"] == {"by": "Ada"}
    first, *rest = order(mixed, grown)
    assert (first, rest[-2:]) == ("before", ["after", "last"])
    assert sorted(rest[:-2]) == sorted(["beside", *"aabbccdd"])
    # One tree after the other.
    assert [name for name in rest if name in list("abcd")] == [*"abcd", *"abcd"]
    assert order(mixed, pushed) == ["a", "b", "c", "d", "after", "last"]
    assert order(mixed, signalled) == ["before", "after", "last"]
    assert order(mixed, late) == ["before", "otherwise", "after", "last"]


def started(broker: SidekiqBroker, *nodes: Any) -> str:
    """Start a chain; its run id."""
    children = [node if isinstance(node, WaitFor) else as_messages(broker, node) for node in nodes]
    return Workflow(Chain(*children), broker).run()
