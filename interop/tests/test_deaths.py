"""Steps that may fail, MayFail and Catch, in runs of both languages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Catch, Chain, Group, Job, MayFail, Runs, SidekiqBroker
from interop.tests import companions
from interop.tests.processes import Site
from interop.tests.workflows import py, rb, start


def _dying(language: str, name: str) -> Job:
    return Job("Rb::DeadAtOnce" if language == "ruby" else "Py::DeadAtOnce", name, {"fail": 9}, retry=0)


TREE = Chain(
    py("first"),
    MayFail(_dying("ruby", "may fail in ruby")),
    Catch(_dying("ruby", "caught in ruby"), Chain(rb("instead"), py("and then"))),
    Group(Catch(_dying("python", "caught in python"), rb("in its place")), rb("beside")),
    MayFail(_dying("python", "may fail in python")),
    Catch(rb("does not fail"), py("not needed")),
    py("last"),
)

DONE = ["first", "instead", "and then", "in its place", "beside", "does not fail", "last"]
DEAD = ["may fail in ruby", "caught in ruby", "caught in python", "may fail in python"]


@pytest.mark.parametrize("kind", ["companion", "plain"])
def test_a_run_goes_on_past_its_dead_steps(site: Site, broker: SidekiqBroker, tmp_path: Path, kind: str) -> None:
    if kind == "plain":
        site.ruby_worker()
        _runs_on(site, broker, watches=True)
        return
    with companions.installed(tmp_path, before=("steps.rb",)) as environment:
        companions.worker(site, INTEROP_PYTHON_CLASSES=",".join(site.stubs), **environment)
        _runs_on(site, broker, watches=False)


def _runs_on(site: Site, broker: SidekiqBroker, *, watches: bool) -> None:
    site.python_worker()
    run_id = start(site, broker, "python", TREE)

    def is_done() -> bool:
        if watches:
            # The look at `dead`, without its interval.
            site.client.delete("swf:upkeep")
            broker.process.heartbeat.upkeep._next = 0.0
            broker.process.heartbeat.upkeep.look()
        return len(_steps(site, run_id)) == len(DONE) + len(DEAD)

    site.eventually(is_done, "all steps")
    run = Runs(broker).wait(run_id, timeout=60_000)
    events = _steps(site, run_id)
    assert sorted(e["args"][0] for e in events if e["outcome"] == "done") == sorted(DONE)
    assert [e["args"][0] for e in events if e["outcome"] == "failed"] == DEAD
    assert (run.state, run.progress.done, run.progress.failed, run.progress.total) == ("done", 7, 4, 11)
    assert [step.name for step in run.steps if step.state == "skipped"] == ["Py::Step"]
    assert {step.error for step in run.failures} == {"RuntimeError: try 1 of 9 that fail"}
    _is_alone(site, broker, run_id, run.failures[0].jid)
    if not watches:
        _starts_anew(site, broker, run_id)


def _steps(site: Site, run_id: str) -> list[dict[str, Any]]:
    """The executions of its steps, without the jobs that do nothing."""
    return [event for event in site.events(run_id) if not event["class"].endswith("NoopWorker")]


def _is_alone(site: Site, broker: SidekiqBroker, run_id: str, jid: str) -> None:
    """A retry by hand runs the step, and nothing else."""
    assert site.members("dead", run_id) == []
    before = len(site.events())
    assert site.api("retry-dead", jid)["found"]
    site.eventually(lambda: len(site.events()) > before, "the step again")
    assert [(e["jid"], e["run_id"]) for e in site.events()[before:]] == [(jid, None)]
    assert Runs(broker).get(run_id).state == "done"


def _starts_anew(site: Site, broker: SidekiqBroker, run_id: str) -> None:
    """The dead steps, and what comes after them, run again: that is all but the first step."""
    site.eventually(lambda: site.client.zcard("dead") == len(DEAD), "the job that was retried by hand")
    before = len(_steps(site, run_id))
    Runs(broker).retry(run_id, "failed_and_after")
    site.eventually(lambda: len(_steps(site, run_id)) == before + len(DONE) - 1 + len(DEAD), "all steps once more")
    run = Runs(broker).wait(run_id, timeout=60_000)
    assert (run.state, run.progress.done, run.progress.failed, run.progress.total) == ("done", 7, 4, 11)
