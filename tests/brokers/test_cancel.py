"""Cancelled runs on every kind of broker: what runs, ends, and nothing new starts."""

from __future__ import annotations

import threading

import dramatiq

from dramatiq_sidekiq_flow import Chain, Job, Runs, Workflow

from ..running import eventually
from .conftest import App


def test_nothing_follows_the_step_that_runs(app: App) -> None:
    begun, go = threading.Event(), threading.Event()

    @dramatiq.actor(queue_name="python", broker=app.broker)
    def holds() -> dict[str, int]:
        begun.set()
        assert go.wait(20)
        return {"held": 1}

    runs = Runs(app.broker)
    following = Chain(Job("Docs::Step", "in Ruby", queue="ruby"), app.step.message("after"))
    run_id = Workflow(Chain(holds.message(), app.step.message("next"), following), broker=app.broker).run()
    with app.working():
        assert begun.wait(20)
        assert runs.cancel(run_id, "no need").state == "cancelled"
        go.set()
        eventually(lambda: app.client.hexists(f"swf:flow:{run_id}:times", "1"), what="the end of the step")
    run = runs.get(run_id)
    assert (run.state, run.progress.done, run.memory) == ("cancelled", 1, {"held": 1})
    assert app.log == []
    assert app.dead() == []
    assert not app.client.exists("queue:ruby")


def test_a_step_that_waits_at_the_broker_does_not_run(app: App) -> None:
    run_id = Workflow(Chain(app.step.message("a"), app.step.message("b")), broker=app.broker).run()
    Runs(app.broker).cancel(run_id)
    other = Workflow(Chain(app.step.message("c"), app.step.message("d")), broker=app.broker).run()
    with app.working(threads=1):
        eventually(lambda: Runs(app.broker).get(other).state == "done")
    assert app.log == ["c", "d"]
    assert app.dead() == []
