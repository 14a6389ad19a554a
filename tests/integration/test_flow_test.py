"""FlowTest: workflows run to their end in a test, without waiting."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import attrs
import dramatiq
import pytest
import redis
from dramatiq.brokers.stub import StubBroker

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    Job,
    RedisHashMemory,
    SidekiqBroker,
    WithDelay,
    Workflow,
    WorkflowMiddleware,
    current_run,
)
from dramatiq_sidekiq_flow.errors import ConfigurationError
from dramatiq_sidekiq_flow.testing import FlowTest
from dramatiq_sidekiq_flow.testing.run import disorder

DAY = 86_400_000


def thumbnail(size: int) -> dict[str, Any]:
    return {f"thumbnail {size}": current_run().memory.read("text")["text"]}


@pytest.fixture
def app() -> Any:
    """An application's module: a broker for a Redis that is not there, and its actors."""
    broker = SidekiqBroker(url="redis://127.0.0.1:1/0")
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))

    @dramatiq.actor(queue_name="python", broker=broker)
    def extract(doc: str) -> dict[str, str]:
        return {"text": f"text of {doc}"}

    @dramatiq.actor(queue_name="python", broker=broker)
    def measure(unit: str) -> dict[str, int]:
        return {unit: 1}

    extract.broker.extract, extract.broker.measure = extract, measure  # type: ignore[attr-defined]
    return broker


def test_a_quiet_process_runs_the_test_and_is_quiet_afterwards(app: Any) -> None:
    app.process.quiet = True
    with FlowTest(app) as flow:
        assert flow.run(app.extract.message("42")).order == ["extract"]
    assert app.process.quiet


def test_a_workflow_of_both_languages(app: Any) -> None:
    with FlowTest(app) as flow:
        flow.ruby("Images::Thumbnail", thumbnail)
        flow.ruby("Mailers::Notify")
        run = flow.run(
            Chain(
                app.extract.message("42"),
                Group(Job("Images::Thumbnail", 200, queue="ruby"), app.measure.message("words")),
                WithDelay(Job("Mailers::Notify", queue="ruby"), delay=30 * DAY),
            )
        )
        assert run.order[0] == "extract"
        assert sorted(run.order[1:3]) == ["Images::Thumbnail", "measure"]
        assert run.order[3] == "Mailers::Notify"
        assert run.memory == {"text": "text of 42", "thumbnail 200": "text of 42", "words": 1}
        assert [(job.name, job.queue, job.delay) for job in run.enqueued if job.name != "measure"] == [
            ("extract", "python", 0),
            ("Images::Thumbnail", "ruby", 0),
            ("Mailers::Notify", "ruby", 30 * DAY),
        ]
        assert not any("flow_test_place" in job.fields for job in run.enqueued)
        assert {step.name: step.language for step in run.steps} == {
            "extract": "python",
            "measure": "python",
            "Images::Thumbnail": "ruby",
            "Mailers::Notify": "ruby",
        }
        assert run.dead == () == tuple(run.failed)
        flow.assert_order(run)
        flow.assert_order(run, "extract", "Images::Thumbnail", "Mailers::Notify")
        with pytest.raises(AssertionError, match="extract is not where"):
            flow.assert_order(run, "Mailers::Notify", "extract")
    # Outside, the broker is the application's again.
    assert app.connection.url == "redis://127.0.0.1:1/0"
    with pytest.raises(dramatiq.errors.ConnectionClosed):
        app.extract.send("7")


def test_retries_are_run_without_waiting_and_then_dead(app: Any) -> None:
    tries: list[int] = []
    with FlowTest(app) as flow:

        @flow.ruby("Fragile")
        def fragile(until: int) -> None:
            tries.append(until)
            if tries.count(until) < until:
                raise OSError("not yet")

        run = flow.run(Chain(Job("Fragile", 3), app.measure.message("a")))
        assert run.order == ["Fragile", "measure"]
        assert [step.attempt for step in run.steps] == [1, 2, 3, 1]
        assert [str(step.error) for step in run.failed] == ["not yet", "not yet"]
        flow.assert_order(run)
        run = flow.run(Chain(Job("Fragile", 1000, retry=2), app.measure.message("a")))
        assert run.order == []
        assert len(run.failed) == 3
        (dead,) = run.dead
        assert (dead["class"], dead["error_class"]) == ("Fragile", "OSError")
        with pytest.raises(AssertionError, match=r"step 0, Fragile\(1000,\), was not done"):
            flow.assert_order(run)


def test_what_is_due_first_comes_first(app: Any) -> None:
    with FlowTest(app) as flow:
        later = [WithDelay(app.measure.message(str(days)), delay=days * DAY) for days in (3, 1, 2)]
        run = flow.run(Group(*later, app.measure.message("0")))
        assert [step.args[0] for step in run.steps] == ["0", "1", "2", "3"]


def test_actors_that_fail_and_send(app: Any) -> None:
    @dramatiq.actor(queue_name="other", broker=app, max_retries=1)
    def fails() -> None:
        app.measure.send("sent by it")
        raise ValueError("always")

    with FlowTest(app) as flow:
        run = flow.run(fails.message())
        assert [step.name for step in run.steps] == ["fails", "fails"]
        assert [(job.name, job.run_id is None) for job in run.enqueued] == [
            ("fails", False),
            ("measure", True),
            ("measure", True),
        ]
        assert run.dead[0]["error_class"] == "ValueError"


def test_async_actors_and_time_limits_have_what_they_need(app: Any) -> None:
    app.add_middleware(dramatiq.middleware.AsyncIO())

    @dramatiq.actor(queue_name="python", broker=app, time_limit=60_000)
    async def wait() -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"run": current_run().run_id}

    with FlowTest(app) as flow:
        run = flow.run(wait.message(), "a name")
        assert run.memory == {"run": "a name"}


def test_without_a_broker_there_is_one() -> None:
    before = dramatiq.broker.global_broker
    with FlowTest() as flow:

        @dramatiq.actor
        def step(n: int) -> dict[str, int]:
            return {str(n): n}

        run = flow.run(Chain(step.message(1), step.message(2)), seed={"seed": 0})
        assert run.memory == {"1": 1, "2": 2, "seed": 0}
    assert dramatiq.broker.global_broker is before


def test_runs_that_were_started_elsewhere(app: Any) -> None:
    with FlowTest(app) as flow:
        run_id = Workflow(Chain(app.extract.message("1"), app.measure.message("x")), app).run()
        run = flow.finish(run_id)
        assert run.order == ["extract", "measure"]
        flow.assert_order(run, "extract", "measure")
        with pytest.raises(ConfigurationError, match="pass the names"):
            flow.assert_order(run)


def test_a_seed_stands_for_an_order() -> None:
    def order(seed: int | None) -> list[Any]:
        with FlowTest(seed=seed) as flow:

            @dramatiq.actor
            def step(n: int) -> None: ...

            run = flow.run(Chain(Group(*(step.message(n) for n in range(6))), step.message(6)))
            flow.assert_order(run)
            return [step.args[0] for step in run.steps]

    assert order(None) == list(range(7))
    assert order(5) == order(5)
    assert len({tuple(order(seed)) for seed in range(6)}) > 1
    assert all(order(seed)[-1] == 6 for seed in range(3))


def test_each_block_begins_empty(app: Any) -> None:
    for _ in range(2):
        with FlowTest(app) as flow:
            assert flow.run(app.extract.message("1"), "the same").order == ["extract"]


def test_what_stands_for_nothing_is_said(app: Any) -> None:
    with FlowTest(app) as flow, pytest.raises(ConfigurationError, match=r"flow.ruby\('Docs::Fetch'"):
        flow.run(Chain(Job("Docs::Fetch")))


def test_an_assertion_in_a_step_is_the_tests_failure(app: Any) -> None:
    with FlowTest(app) as flow:

        @flow.ruby("Checks")
        def checks(size: int) -> None:
            assert size == 3, "a wrong size"

        with pytest.raises(AssertionError, match="a wrong size"):
            flow.run(Job("Checks", 2))


def test_jobs_without_end_are_an_error() -> None:
    with FlowTest(max_jobs=20) as flow:

        @dramatiq.actor
        def again() -> None:
            again.send()

        again.send()
        with pytest.raises(ConfigurationError, match="More than 20"):
            flow.drain()


def test_one_at_a_time_and_no_other_broker(app: Any) -> None:
    with FlowTest(app), pytest.raises(ConfigurationError, match="leave it first"), FlowTest(app):
        pass
    with pytest.raises(ConfigurationError, match="SidekiqBroker"):
        FlowTest(StubBroker())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="with FlowTest"):
        _ = FlowTest().broker


def test_the_redis_of_the_application_is_left_alone(redis_url: str, client: redis.Redis) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware())

    @dramatiq.actor(broker=broker)
    def step() -> None: ...

    step.send()
    before = {key: client.dump(key) for key in client.keys()}
    with FlowTest(broker) as flow:
        assert flow.run(Chain(step.message(), step.message())).order == ["step", "step"]
    assert {key: client.dump(key) for key in client.keys()} == before
    broker.close()


def test_what_is_out_of_order_is_found(app: Any) -> None:
    with FlowTest(app) as flow:
        run = flow.run(Chain(app.measure.message("a"), Group(app.measure.message("b"), Chain()), WithDelay(Chain(), 5)))
        assert list(disorder(run)) == []
        assert len(list(disorder(attrs.evolve(run, steps=run.steps[::-1])))) == 1
        assert len(list(disorder(attrs.evolve(run, steps=(*run.steps, run.steps[0]))))) == 1
        assert len(list(disorder(attrs.evolve(run, steps=run.steps[:1])))) == 1


def test_nothing_is_left_in_the_environment() -> None:
    before = dict(os.environ)
    with FlowTest():
        pass
    assert dict(os.environ) == before


def test_a_run_is_shown_in_one_line() -> None:
    with FlowTest() as flow:

        @dramatiq.actor(max_retries=0)
        def fails() -> None:
            raise ValueError("no")

        flow.ruby("R")
        run = flow.run(Chain(*[Job("R", number) for number in range(12)], fails.message()), "run-1")
    assert repr(run) == f"Run('run-1': {' > '.join(['R'] * 10)} > ...; 1 failed, 1 dead)"
