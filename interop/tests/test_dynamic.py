"""Steps that a tree replaces, with steps of Ruby before, in and after the tree, and a step that waits for a signal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, Runs, SidekiqBroker, WaitFor, Workflow
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop.tests import companions
from interop.tests.processes import DEADLINE, Site, Worker
from interop.tests.workflows import CARRIED, as_messages, rb
from tests.running import eventually

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


@pytest.fixture
def three(site: Site, tmp_path: Path) -> Iterator[list[Worker]]:
    """Three Ruby workers with the companion, two of which die in a replacement; and one of Python."""
    # As in Ruby.
    site.python_worker(heartbeat=2000)
    site.client.sadd("interop:kill", "before", "after")
    with companions.installed(tmp_path, "grow.rb", before=("steps.rb",)) as environment:
        yield [companions.worker(site, **environment) for _ in range(3)]


def test_steps_of_ruby_replace_themselves(site: Site, broker: SidekiqBroker, three: list[Worker]) -> None:
    """A worker dies before the script that replaces the step, and one after it; the third one lives."""
    runs = Runs(broker)
    killed = started(broker, rb("before"), grow("x", ["chain", ["ruby", "a"], ["python", "b"]]), rb("after"))
    dead = eventually(lambda: died(three), DEADLINE, "the deaths of two workers")
    site.workers = [worker for worker in site.workers if worker not in dead]
    nested = ["chain", ["python", "d"], ["grow", "z", None, [["ruby", "e"], ["python", "f"]]], ["ruby", "g"]]
    beside = Group(grow("y", ["group", ["ruby", "b"], ["python", "c"], nested]), rb("h"))
    grown = started(broker, beside, Job(CARRIED, "i"), rb("last"))
    late = ["wait", "never", 0.3, ["ruby", "otherwise"]]
    signal = Job("Rb::Signals", "go", {"by": "Ada"}, queue="ruby")
    waits = started(broker, Group(grow("w", ["chain", ["wait", "go"], late]), signal), rb("last"))
    bad = started(broker, grow("bad", ["not a tree"]), rb("never"))
    ended = [runs.wait(run_id, timeout=60_000) for run_id in (killed, grown, waits)]
    assert [(run.state, run.progress.total, run.progress.done) for run in ended] == [
        ("done", count, count) for count in (5, 11, 6)
    ]
    assert order(site, killed).count("x") > 1
    assert order_of_jobs(site, killed) == ["before", "x", "a", "b", "after"]
    ran = order_of_jobs(site, grown)
    assert sorted(ran) == sorted([*"ybcdzefghi", "last"])
    names = [name for name in ran if name not in ("b", "c", "h")]
    assert sorted(names[3:5]) == ["e", "f"]
    assert [*names[:3], *names[5:]] == ["y", "d", "z", "g", "i", "last"]
    assert [step.name for step in ended[0].steps] == ["Rb::Step", "Rb::Grow", "Rb::Step", "Rb::Step", CARRIED]
    assert "replaced by" in str(ended[1])
    assert (ended[2].memory["go"], ended[2].memory["sent"]) == ({"by": "Ada"}, True)
    failure = runs.wait(bad, timeout=60_000).failures[0]
    assert (failure.error or "").startswith("InvalidNode")


def grow(name: str, *args: Any) -> Job:
    return Job("Rb::Grow", name, *args, queue="ruby")


def order_of_jobs(site: Site, run_id: str) -> list[Any]:
    """The jobs that ran, each once, also if its worker died with it, or was slow and taken for dead."""
    return list({event["jid"]: event["args"][0] for event in site.events(run_id)}.values())


def died(workers: list[Worker]) -> list[Worker] | None:
    dead = [worker for worker in workers if worker.process.poll() is not None]
    return dead if len(dead) == 2 else None
