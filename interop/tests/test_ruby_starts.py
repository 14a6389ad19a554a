"""Runs that Ruby starts with the companion are what Python's runs are: records, policies, callbacks, steering."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Catch, Chain, Group, Job, MayFail, Runs, SidekiqBroker, Workflow
from dramatiq_sidekiq_flow.runs import Run
from interop.tests import companions
from interop.tests.processes import Site
from interop.tests.workflows import as_messages, py, rb, start_in_ruby


def dying(language: str, name: str, times: int = 9) -> Job:
    return Job("Rb::DeadAtOnce" if language == "ruby" else "Py::DeadAtOnce", name, {"fail": times}, retry=0)


def held(name: str) -> Job:
    """A step for a queue that no worker consumes."""
    return Job("Rb::Step", name, queue="held")


MIXED = Chain(
    rb("first"),
    Group(rb("beside"), py("beside")),
    MayFail(dying("ruby", "may fail")),
    MayFail(dying("python", "may fail")),
    Catch(dying("ruby", "caught"), Chain(py("instead"), rb("then"))),
    Catch(dying("python", "caught"), rb("instead")),
    Catch(py("well"), rb("not needed")),
    py("last"),
)
FAILS = Chain(rb(1), Group(py(2), dying("ruby", "dies", 1)), rb(3))
OPEN = Chain(py("before"), held("held"), rb("after"))

#: Name -> the tree, and its options.
RUNS: dict[str, tuple[Any, dict[str, Any]]] = {
    "mixed": (MIXED, {"tags": ["a"], "template": "mix", "on_success": rb("success"), "on_complete": py("complete")}),
    "fails": (FAILS, {"on_failure": rb("failure"), "on_complete": py("complete"), "unique_key": "one"}),
    "cancelled": (OPEN, {"on_complete": rb("complete"), "deadline": 3600}),
    "paused": (OPEN, {}),
}


@pytest.fixture
def started(site: Site, broker: SidekiqBroker, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Workers of both languages, and the runs that Ruby has started; name -> id."""
    # The keeper comes with a beat.
    site.python_worker(heartbeat=2_000)
    with companions.installed(tmp_path, before=("steps.rb",)) as environment:
        environment["INTEROP_PYTHON_CLASSES"] = ",".join(site.stubs)
        companions.worker(site, **environment)
        trees, options = zip(*RUNS.values())
        ids = start_in_ruby(site, broker, trees, options, environment)
        yield dict(zip(RUNS, ids))


def told(site: Site, run_id: str, name: str) -> list[Mapping[str, Any]]:
    """What each call of a callback was given."""
    return [event["args"][-1] for event in site.events(run_id) if event["args"][:1] == [name]]


def looks(run: Run) -> list[tuple[object, ...]]:
    """What a run shows of each of its steps, and of its failures, but times and ids."""
    steps = [(each.number, each.path, each.name, each.args, each.state, each.attempts) for each in run.steps]
    failures = [(each.number, each.name, each.queue, each.error) for each in run.failures]
    return [(run.state, run.progress, run.tags, run.template), *steps, *failures]


def test_runs_of_ruby(site: Site, broker: SidekiqBroker, started: dict[str, str]) -> None:
    runs = Runs(broker)
    in_python = Workflow(as_messages(broker, MIXED), broker, tags=["a"], on_success=rb("success"))
    in_python.template = "mix"
    pairs = [runs.wait(run_id, timeout=60_000) for run_id in (started["mixed"], in_python.run())]
    assert looks(pairs[0]) == looks(pairs[1])
    assert (pairs[0].state, pairs[0].progress.failed, pairs[0].progress.done) == ("done", 4, 9)
    assert [run.id for run in runs.list(template="mix", tag="a")] == [pairs[1].id, pairs[0].id]
    site.eventually(lambda: told(site, started["mixed"], "complete"), "the end is told")
    assert told(site, started["mixed"], "complete")[0]["template"] == "mix"
    _fails(site, runs, started["fails"])
    site.eventually(lambda: site.client.llen("queue:held") == 2, "the steps that are held")
    assert runs.cancel(started["cancelled"]).state == "cancelled"
    site.eventually(lambda: told(site, started["cancelled"], "complete"), "the end is told")
    _paused(site, runs, started["paused"])


def _fails(site: Site, runs: Runs, run_id: str) -> None:
    run = runs.wait(run_id, timeout=60_000)
    site.eventually(lambda: told(site, run_id, "failure") and told(site, run_id, "complete"), "the failure is told")
    (mapping,) = told(site, run_id, "failure")
    assert [mapping[name] for name in ("run_id", "state", "step", "class")] == [run_id, "failed", 3, "Rb::DeadAtOnce"]
    assert [run.number for run in runs.get(run_id).failures] == [3]
    assert runs.explain(run_id).verdict == "failed"
    assert site.client.get("swf:unique:one") == run_id.encode()
    runs.retry(run_id)
    run = runs.wait(run_id, timeout=60_000)
    assert (run.state, run.progress.done, run.progress.total, run.failures) == ("done", 4, 4, ())
    assert not site.client.exists("swf:unique:one")


def _paused(site: Site, runs: Runs, run_id: str) -> None:
    run = runs.pause(run_id)
    assert [step.state for step in run.steps] == ["done", "parked", "pending"]
    runs.resume(run_id)
    assert site.client.llen("queue:held") == 1
    # As a worker of the queue would take it.
    site.client.lmove("queue:held", "queue:ruby", "LEFT", "RIGHT")
    run = runs.wait(run_id, timeout=60_000)
    assert (run.state, [step.inferred for step in run.steps]) == ("done", [False] * 3)
