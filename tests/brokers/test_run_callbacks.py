"""Callbacks of runs whose steps are on another broker."""

from __future__ import annotations

import json
from typing import Any

import dramatiq

from dramatiq_sidekiq_flow import Chain, Job, Replace, Runs, Workflow

from ..redis_values import raws
from ..running import eventually
from .conftest import App, Make

CALL = Job("Tell", queue="calls")


def told(app: App) -> list[dict[str, Any]]:
    return [json.loads(job)["args"][-1] for job in raws(app.client.lrange("queue:calls", 0, -1))]


def test_a_death_is_told_once(make: Make) -> None:
    app = make(max_retries=0)
    app.trouble.update(b=1)
    tree = Chain(app.step.message("a"), app.step.message("b"), app.step.message("c"))
    run_id = Workflow(tree, app.broker, on_failure=CALL, on_complete=CALL).run()
    with app.working():
        eventually(app.dead)
        (mapping,) = told(app)
        assert (mapping["run_id"], mapping["state"], mapping["step"]) == (run_id, "failed", 2)
        assert mapping["error_message"] == "trouble in b"
        app.retry_dead()
        eventually(lambda: app.client.hget(f"swf:flow:{run_id}", "state") == b"done")
    assert [mapping["state"] for mapping in told(app)] == ["done", "failed"]


def test_a_callback_in_python_comes_through_the_bridge(app: App) -> None:
    """And it is not a step of its run, there, too."""
    seen: list[dict[str, Any]] = []

    @dramatiq.actor(queue_name="python", broker=app.broker)
    def tell(run: dict[str, Any] | None = None) -> dict[str, str]:
        seen.append(run or {})
        return {"tell": "is not kept"}

    run_id = Workflow(app.step.message("a"), app.broker, on_complete=tell.message()).run()
    with app.working():
        assert Runs(app.broker).wait(run_id, timeout=20_000).state == "done"
        eventually(lambda: seen)
        eventually(app.settled)
    assert seen == [{"run_id": run_id, "template": None, "state": "done"}]
    run = Runs(app.broker).get(run_id)
    assert (run.progress.done, run.memory) == (1, {"a": 1})


def test_a_callback_is_not_replaced(app: App) -> None:
    @dramatiq.actor(queue_name="python", broker=app.broker)
    def tell(run: dict[str, Any] | None = None) -> Replace:
        return Replace(app.step.message("never"))

    Workflow(app.step.message("a"), app.broker, on_complete=tell.message()).run()
    with app.working():
        eventually(app.dead)
    assert b"A callback of a run is not a step" in raws(app.client.zrange("dead", 0, -1))[0]
