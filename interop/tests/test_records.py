"""Records of runs that Ruby takes part in: exact with the companion, partly inferred with the plain gem."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, Runs, SidekiqBroker, WithDelay
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop.tests import companions
from interop.tests.processes import Site
from interop.tests.workflows import LANGUAGES, py, rb, start, start_in_ruby

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
    if ruby == "plain":
        site.ruby_worker()
        yield site
        return
    with companions.installed(tmp_path, before=("steps.rb",)) as environment:
        companions.worker(site, INTEROP_PYTHON_CLASSES=",".join(site.stubs), **environment)
        yield site


def test_a_run_of_both_languages_is_done(mixed: Site, broker: SidekiqBroker, ruby: str) -> None:
    mixed.python_worker()
    tree = Chain(py(1), rb(2), Group(rb(3), py(4), WithDelay(rb(5), 50)), rb(6), py(7))
    run_id = start(mixed, broker, "python", tree)
    run = Runs(broker).wait(run_id, timeout=60_000)
    assert (run.state, run.progress.done, run.progress.total) == ("done", 7, 7)
    assert [step.number for step in run.steps if step.inferred] == ([] if ruby == "companion" else [2, 3, 5, 6])
    identities = [step.worker for step in run.steps]
    assert all(identities) or ruby == "plain"
    assert [step.name for step in run.steps][:3] == ["Py::Step", "Rb::Step", "Rb::Step"]


def test_a_run_that_ends_in_ruby_is_done(mixed: Site, broker: SidekiqBroker, ruby: str) -> None:
    mixed.python_worker()
    run = Runs(broker).wait(start(mixed, broker, "python", Chain(py(1), rb(2))), timeout=60_000)
    assert run.state == "done"
    assert run.inferred == (ruby == "plain")


@pytest.mark.parametrize("starter", LANGUAGES)
def test_a_death_in_ruby_is_a_failed_run(mixed: Site, broker: SidekiqBroker, ruby: str, starter: str) -> None:
    mixed.python_worker()
    tree = Chain(py(1), Job("Rb::DeadAtOnce", {"fail": 1}, retry=0), py(3))
    run_id = start(mixed, broker, starter, tree)
    # The record of a run that Ruby starts begins with a step in Python.
    mixed.eventually(lambda: mixed.client.exists(f"swf:flow:{run_id}"), "the record")
    run = Runs(broker).wait(run_id, timeout=60_000)
    assert run.state == "failed"
    (failure,) = run.failures
    assert (failure.name, failure.error) == ("Rb::DeadAtOnce", "RuntimeError: try 1 of 1 that fail")
    # The keeper finds what plain Ruby does not record.
    mixed.eventually(lambda: [one.id for one in Runs(broker).list(state="failed")] == [run_id], "the record")
    assert (Runs(broker).get(run_id).state, Runs(broker).explain(run_id).verdict) == ("failed", "failed")
    # A person retries it, and the run goes on.
    assert mixed.api("retry-dead", failure.jid)["found"]
    mixed.eventually(lambda: len(mixed.events(run_id)) == 4, "the step again, and the one after it")
    assert Runs(broker).wait(run_id, timeout=60_000).state == "done"
    assert Runs(broker).get(run_id).failures == ()
    assert mixed.client.exists(f"swf:flow:{run_id}:failed") == (ruby == "plain")


def test_a_run_that_ruby_starts_is_adopted(mixed: Site, broker: SidekiqBroker) -> None:
    mixed.python_worker()
    run_id = start(mixed, broker, "ruby", Chain(rb(1), py(2), Group(py(3), rb(4)), py(5)))
    mixed.eventually(lambda: len(mixed.events(run_id)) == 5, "all steps")
    run = Runs(broker).wait(run_id, timeout=60_000)
    assert run.state == "done"
    assert run.finished_at is not None
    assert [one.id for one in Runs(broker).list(state="done")] == [run_id]


@pytest.mark.parametrize("ruby", ["companion"], indirect=True)
def test_an_adopted_run_is_steered(mixed: Site, broker: SidekiqBroker) -> None:
    mixed.python_worker()
    runs, held = Runs(broker), Job("Rb::Step", "held", queue="held")
    fails = Job("Py::DeadAtOnce", {"fail": 1}, retry=0)
    cancelled, paused, died = start_in_ruby(
        mixed, broker, [Chain(py(1), held, py(2)), Chain(py(1), held, py(2)), Chain(fails, py(2))]
    )
    mixed.eventually(lambda: mixed.client.llen("queue:held") == 2, "the steps that are held")
    assert [finding.cause for finding in runs.explain(cancelled).blocked] == ["no_consumer"]
    assert runs.cancel(cancelled).state == "cancelled"
    run = runs.pause(paused)
    assert (run.state, [step.state for step in run.steps]) == ("paused", ["parked"])
    runs.resume(paused)
    mixed.client.lmove("queue:held", "queue:ruby", "LEFT", "RIGHT")
    assert runs.wait(paused, timeout=60_000).state == "done"
    # The first thing that was seen of it is its death.
    mixed.eventually(lambda: [one.id for one in runs.list(state="failed")] == [died], "the record")
    run = runs.get(died)
    assert [(step.number, step.name, step.error) for step in run.failures] == [
        (None, "Py::DeadAtOnce", "RuntimeError: try 1 of 1 that fail")
    ]
    assert "Py::DeadAtOnce" in str(run)
    runs.retry(died)
    assert runs.wait(died, timeout=60_000).state == "done"
    assert [len(mixed.events(run_id)) for run_id in (cancelled, paused, died)] == [1, 3, 3]
