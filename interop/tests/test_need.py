"""Groups that need some of their members, whose members are steps of both languages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, Runs, SidekiqBroker, Workflow
from interop.tests import companions
from interop.tests.processes import Site
from interop.tests.workflows import as_messages, py, rb


def _dying(language: str, name: str, fails: int = 9) -> Job:
    return Job("Rb::DeadAtOnce" if language == "ruby" else "Py::DeadAtOnce", name, {"fail": fails}, retry=0)


#: Ruby pushes the group, and starts what follows it, or Python does.
MET = Chain(
    rb("first"),
    Group(
        rb("a"),
        py("b"),
        _dying("ruby", "dead"),
        Chain(rb("slow", {"sleep": 3}), py("late"), rb("later")),
        Group(rb("slower", {"sleep": 3}), _dying("ruby", "late and dead"), need=1),
        need=2,
    ),
    py("next"),
    rb("after"),
    py("last"),
)
IN_TIME = ["first", "a", "b", "next", "after", "last"]
LATE = ["slow", "late", "later", "slower"]

#: It fails, and goes on when one of the dead steps is retried.
FAILED = Chain(
    Group(_dying("ruby", "d1", 1), _dying("python", "d2"), py("ok"), rb("ok, too"), need=3),
    py("at last"),
)


@pytest.mark.parametrize("kind", ["companion", "plain"])
def test_a_group_needs_some_of_its_members(site: Site, broker: SidekiqBroker, tmp_path: Path, kind: str) -> None:
    site.python_worker()
    if kind == "plain":
        site.ruby_worker()
        _goes_on(site, broker)
        return
    with companions.installed(tmp_path, before=("steps.rb",)) as environment:
        companions.worker(site, INTEROP_PYTHON_CLASSES=",".join(site.stubs), **environment)
        _goes_on(site, broker)


def _goes_on(site: Site, broker: SidekiqBroker) -> None:
    runs = Runs(broker)
    met, failed = (_start(broker, tree) for tree in (MET, FAILED))

    def has_failed() -> bool:
        # The keeper's look at `dead`, without its interval.
        site.client.delete("swf:upkeep")
        broker.process.heartbeat.upkeep._next = 0.0
        broker.process.heartbeat.upkeep.look()
        return bool(_ended(site, failed, "called"))

    site.eventually(has_failed, "on_failure of the run that cannot go on")
    assert runs.get(failed).state == "failed"
    assert len(_ended(site, failed, "at last")) == 0
    (dead,) = (step for step in runs.get(failed).failures if "d1" in step.args)
    assert site.api("retry-dead", dead.jid)["found"]
    assert runs.wait(met, timeout=60_000).state == "done"
    site.eventually(lambda: len(_names(site, met)) == len(IN_TIME + LATE) + 2, "the members that are late")
    site.eventually(lambda: runs.get(failed).state == "done", "the run whose step was retried")
    assert len(_ended(site, failed, "at last")) == len(_ended(site, failed, "called")) == 1
    events = _names(site, met)
    assert sorted(events) == sorted([*IN_TIME, *LATE, "dead", "late and dead"])
    assert events.index("next") < min(map(events.index, LATE))
    assert max(events.index("a"), events.index("b")) < events.index("next")

    def has_died() -> bool:
        has_failed()
        run = runs.get(met)
        return (run.state, run.progress.done, run.progress.failed) == ("done", 10, 2)

    site.eventually(has_died, "both dead members")
    assert not [key for key in site.client.keys("*-8*") if site.client.ttl(key) < 0]


def _start(broker: SidekiqBroker, tree: Any) -> str:
    return Workflow(as_messages(broker, tree), broker, on_failure=as_messages(broker, py("called"))).run()


def _names(site: Site, run_id: str) -> list[str]:
    events = (event for event in site.events(run_id) if not event["class"].endswith("NoopWorker"))
    return [event["args"][0] for event in events]


def _ended(site: Site, run_id: str, name: str) -> list[str]:
    return [each for each in _names(site, run_id) if each == name]
