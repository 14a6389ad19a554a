"""Paused runs with steps in Ruby: with the companion, and with the plain gem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, Runs, SidekiqBroker
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop.tests import companions
from interop.tests.processes import Site
from interop.tests.workflows import py, rb, start
from tests.redis_values import raws


def names(site: Site, run_id: str) -> list[Any]:
    # Without the jobs that do nothing, which fire what the plain gem has released.
    return sorted(event["args"][0] for event in site.events(run_id) if event["args"])


def begun(site: Site, gates: int) -> bool:
    """Whether Ruby runs steps that wait for their gates."""
    return sum(one["cmd"] == "blpop" for one in site.client.client_list()) == gates


@pytest.mark.parametrize("ruby", ["companion", "plain"])
def test_nothing_starts_during_a_pause_and_all_runs_once(
    server: EmbeddedServer, container: None, site: Site, broker: SidekiqBroker, tmp_path: Path, ruby: str
) -> None:
    """One step of Ruby ends during the pause, and one after it."""
    site.python_worker()
    if ruby == "plain":
        site.ruby_worker()
        # It may take its first job before its first beat: until then, a pause knows nothing of it.
        site.eventually(lambda: site.client.scard("processes") == 2, "the first beat of each worker")
        _check(site, broker)
        return
    with companions.installed(tmp_path, before=("steps.rb",)) as environment:
        companions.worker(site, INTEROP_PYTHON_CLASSES=",".join(site.stubs), **environment)
        _check(site, broker)


def _check(site: Site, broker: SidekiqBroker) -> None:
    first = Chain(Job("Rb::Gate", "a"), Group(rb("a-ruby"), py("a-python")), rb("a-last"))
    second = Chain(Job("Rb::Gate", "b"), rb("b-ruby"), py("b-python"))
    run_id = start(site, broker, "python", Chain(Group(first, second, py("beside")), py("last")))
    runs = Runs(broker)
    site.eventually(lambda: begun(site, 2), "Ruby runs both gates")
    site.eventually(lambda: names(site, run_id) == ["beside"], "the step beside them")
    run = runs.pause(run_id, "a fault")
    assert (run.state, run.reason) == ("paused", "a fault")
    site.client.rpush("a", "open")
    site.eventually(lambda: names(site, run_id) == ["a", "beside"], "the end of the first gate")
    site.eventually(lambda: _has_advanced(site, run_id), "nothing follows")
    assert not site.client.exists("queue:ruby", "queue:python", "schedule", "retry", "dead")
    assert runs.resume(run_id).state == "running"
    site.eventually(lambda: {"a-ruby", "a-python", "a-last"} <= set(names(site, run_id)), "what waited")
    site.client.rpush("b", "open")
    assert runs.wait(run_id, timeout=60_000).state == "done"
    everything = ["a", "a-last", "a-python", "a-ruby", "b", "b-python", "b-ruby", "beside", "last"]
    site.eventually(lambda: names(site, run_id) == everything, "each step once")
    assert not site.client.exists(f"swf:parked:{run_id}", f"swf:flow:{run_id}:disarmed", "queue:ruby", "dead")


def _has_advanced(site: Site, run_id: str) -> bool:
    """Whether the next steps are parked, or the plain gem has released a barrier and started nothing."""
    held = raws(site.client.hkeys(f"swf:flow:{run_id}:disarmed"))
    released = [barrier for barrier in held if site.client.get(barrier + b"_ran") not in (None, b"-1", b"0")]
    return bool(released) or site.client.llen(f"swf:parked:{run_id}") > 0
