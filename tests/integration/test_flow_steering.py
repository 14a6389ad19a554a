"""What a FlowTest can do to runs: deaths, callbacks, pauses, cancellations, deadlines, without time passing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dramatiq
import pytest

from dramatiq_sidekiq_flow import (
    Catch,
    Chain,
    Group,
    MayFail,
    RedisHashMemory,
    SidekiqBroker,
    Workflow,
    WorkflowMiddleware,
)
from dramatiq_sidekiq_flow.errors import ConfigurationError
from dramatiq_sidekiq_flow.testing import FlowTest

DAY = timedelta(days=1)


class App:
    """An application: its broker is for a Redis that is not there."""

    def __init__(self) -> None:
        self.broker = broker = SidekiqBroker(url="redis://127.0.0.1:1/0")
        broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
        self.told: list[Any] = []
        self.broken = True

        @dramatiq.actor(queue_name="python", broker=broker)
        def step(name: str) -> None: ...

        @dramatiq.actor(queue_name="python", max_retries=1, broker=broker)
        def dies() -> None:
            if self.broken:
                raise ValueError("no")

        @dramatiq.actor(queue_name="python", broker=broker)
        def tell(run: Any) -> None:
            self.told.append((run["state"], run.get("error_class")))

        self.step, self.dies, self.tell = step, dies, tell


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def flow(app: App) -> Iterator[FlowTest]:
    with FlowTest(app.broker) as flow:
        yield flow


def test_a_step_may_die_and_its_fallback_runs(app: App, flow: FlowTest) -> None:
    tree = Chain(MayFail(app.dies.message()), Catch(app.dies.message(), app.step.message("instead")))
    run = flow.run(tree)
    assert (run.state, run.order, len(run.failed), len(run.dead)) == ("done", ["step"], 4, 2)
    flow.assert_order(run)
    app.broken = False
    flow.retry(run.run_id, "failed_and_after")
    assert flow.finish(run.run_id).order == ["step", "dies", "dies"]


def test_a_step_that_dies_for_good_stops_its_run_until_it_is_retried(app: App, flow: FlowTest) -> None:
    run = flow.run(Chain(app.dies.message(), app.step.message("next")))
    assert (run.state, run.order) == ("failed", [])
    app.broken = False
    assert flow.retry(run.run_id) == run.run_id
    assert flow.finish(run.run_id).order == ["dies", "step"]


def test_the_callbacks_of_a_run_are_called(app: App, flow: FlowTest) -> None:
    calls: dict[str, Any] = {"on_failure": app.tell, "on_complete": app.tell}
    failed = flow.run(Workflow(app.dies.message(), app.broker, **calls))
    assert app.told == [("failed", "ValueError"), ("failed", "ValueError")]
    assert failed.order == ["tell", "tell"]
    done = flow.run(Workflow(app.step.message("a"), app.broker, on_success=app.step.message("b"), **calls))
    assert (app.told[2:], done.order) == ([("done", None)], ["step", "step", "tell"])
    flow.assert_order(done)


def test_a_run_is_paused_and_resumed(app: App, flow: FlowTest) -> None:
    run_id = flow.start(Chain(app.step.message("a"), app.step.message("b")))
    flow.pause(run_id)
    run = flow.finish(run_id)
    assert (run.state, run.order) == ("paused", [])
    flow.resume(run_id)
    assert flow.finish(run_id).state == "done"


def test_a_step_cancels_its_run(app: App, flow: FlowTest) -> None:
    @dramatiq.actor(queue_name="python", broker=app.broker)
    def cancels() -> None:
        flow.cancel("it", "no need")

    tree = Chain(cancels.message(), Group(app.step.message("a"), app.step.message("b")))
    run = flow.run(Workflow(tree, app.broker, on_complete=app.tell), "it")
    assert (run.state, run.order, app.told) == ("cancelled", ["cancels", "tell"], [("cancelled", None)])


def test_a_deadline_passes(app: App, flow: FlowTest) -> None:
    late = flow.start(Workflow(app.step.message("a"), app.broker, deadline=DAY))
    flow.pass_deadline(late)
    assert (flow.finish(late).state, flow.finish(late).order) == ("cancelled", [])
    in_time = flow.run(Workflow(app.step.message("a"), app.broker, deadline=DAY))
    with pytest.raises(ConfigurationError, match="No deadline"):
        flow.pass_deadline(in_time.run_id)
