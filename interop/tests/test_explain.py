"""Explanations of runs that broke in Ruby with the plain gem."""

from __future__ import annotations

from dramatiq_sidekiq_flow import Chain, Job, Runs, SidekiqBroker
from dramatiq_sidekiq_flow.runs import Doctor, Explanation
from interop.tests.processes import Site
from interop.tests.workflows import py, rb, start
from tests.redis_values import raws


def cause(explanation: Explanation) -> str:
    return explanation.findings[0].cause if explanation.findings else ""


def test_a_worker_that_is_killed_between_release_and_push(site: Site, broker: SidekiqBroker) -> None:
    """The barrier has released, and the next step is nowhere."""
    worker = site.ruby_worker()
    run_id = start(site, broker, "python", Chain(rb("first"), Job("Rb::KilledBeforePush"), py("never")))
    worker.process.wait(60)
    site.workers.remove(worker)
    assert [event["args"] for event in site.events(run_id)] == [["first"], []]
    assert min(site.barriers().values()) == 0
    identities = [name.decode() for name in raws(site.client.smembers("processes"))]
    # As after a minute, when the record of the process has expired.
    site.client.delete("processes", *identities, *(f"{name}:work" for name in identities))
    explanation = Runs(broker).explain(run_id)
    assert (explanation.verdict, cause(explanation)) == ("stuck", "lost_in_ruby")
    assert explanation.findings[0].name in ("Rb::KilledBeforePush", "Rb::Step")
    (found,) = Doctor(Runs(broker)).examine()
    refused = [action.outcome for action in Doctor(Runs(broker)).fix(found, "rerun", dry=False)]
    assert set(refused) == {"refused"}
    Doctor(Runs(broker)).fix(found, "fail", dry=False)
    assert Runs(broker).get(run_id).state == "failed"


def test_a_class_that_ruby_does_not_have(site: Site, broker: SidekiqBroker) -> None:
    site.ruby_worker()
    run_id = start(site, broker, "python", Chain(Job("Rb::Stpe", "x", queue="ruby"), py("never")))
    site.eventually(lambda: site.members("retry", run_id), "the first failure")
    explanation = Runs(broker).explain(run_id)
    assert (explanation.verdict, cause(explanation)) == ("stuck", "unknown_class")
    assert "Rb::Stpe" in explanation.findings[0].why
