"""Paused runs on every kind of broker: steps for Sidekiq's queues wait, and those on the other broker go on."""

from __future__ import annotations

import threading

import dramatiq

from dramatiq_sidekiq_flow import Chain, Group, Job, Runs, Workflow

from ..running import eventually
from .conftest import App


def test_the_steps_of_ruby_wait(app: App) -> None:
    begun, go = threading.Event(), threading.Event()

    @dramatiq.actor(queue_name="python", broker=app.broker)
    def holds() -> None:
        begun.set()
        assert go.wait(20)

    runs = Runs(app.broker)
    following = Group(Job("Docs::Step", "in Ruby", queue="ruby"), app.step.message("beside"))
    run_id = Workflow(Chain(holds.message(), following, app.step.message("last")), broker=app.broker).run()
    with app.working():
        assert begun.wait(20)
        assert runs.pause(run_id, "a fault").state == "paused"
        go.set()
        eventually(lambda: app.log == ["beside"])
        eventually(lambda: app.client.llen(f"swf:parked:{run_id}") == 1)
        assert not app.client.exists("queue:ruby")
        assert runs.get(run_id).state == "paused"
        runs.resume(run_id)
        with app.ruby():
            eventually(lambda: runs.get(run_id).state == "done")
    assert app.log == ["beside", "in Ruby", "last"]
    assert app.dead() == []
