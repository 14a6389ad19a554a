"""Steps are enqueued, for other middleware, too."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq import Middleware

from dramatiq_sidekiq_flow import Chain, Group, Job, SidekiqBroker, WithDelay, Workflow, WorkflowMiddleware

from ..running import eventually, members, working

request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


class Trace(Middleware):
    """As Sentry's: writes into the options, and is in the trace while the actor runs."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.tokens: list[Any] = []
        self.broken = False

    def before_enqueue(self, broker: Any, message: Any, delay: Any) -> None:
        if self.broken:
            raise ValueError("no trace today")
        message.options["trace"] = request.get()
        message.options["tags"] = ["traced"]
        self.log.append(("before", message.actor_name, message.args, message.message_id, delay))

    def after_enqueue(self, broker: Any, message: Any, delay: Any) -> None:
        self.log.append(("after", message.actor_name, message.args, message.message_id, delay))

    def before_process_message(self, broker: Any, message: Any) -> None:
        request.set(message.options.get("trace", "lost"))

    def after_process_message(self, broker: Any, message: Any, *, result: Any = None, exception: Any = None) -> None:
        request.set("ended")


@pytest.fixture
def trace() -> Trace:
    return Trace()


@pytest.fixture
def broker(redis_url: str, trace: Trace) -> Iterator[SidekiqBroker]:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(trace)
    broker.add_middleware(WorkflowMiddleware())
    yield broker
    broker.close()


@pytest.fixture
def seen(broker: SidekiqBroker) -> list[Any]:
    return []


@pytest.fixture
def step(broker: SidekiqBroker, seen: list[Any]) -> Any:
    @dramatiq.actor(queue_name="python", broker=broker)
    def step(name: str) -> None:
        seen.append((name, request.get()))

    return step


def test_each_step_is_announced_once_and_in_the_trace_of_the_one_before(
    broker: SidekiqBroker, trace: Trace, step: Any, seen: list[Any]
) -> None:
    messages = {name: step.message(name) for name in "abcd"}
    tree = Chain(messages["a"], Group(messages["b"], messages["c"]), messages["d"])
    contextvars.Context().run(lambda: (request.set("web"), Workflow(tree, broker).run()))
    with working(broker):
        eventually(lambda: len(seen) == 4)
        broker.join("python", timeout=10_000)
    assert sorted(seen) == [(name, "web") for name in "abcd"]
    for when in ("before", "after"):
        told = sorted(entry[1:] for entry in trace.log if entry[0] == when)
        assert told == [("step", (name,), messages[name].message_id, None) for name in "abcd"]


def test_what_a_hook_adds_is_in_the_payload(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    Workflow(WithDelay(step.message("a"), 60_000), broker).run()
    (job,) = members(client, "schedule")
    assert job["dramatiq"] == {"trace": "none"}
    assert job["tags"] == ["traced"]


def test_delays_are_told(broker: SidekiqBroker, trace: Trace, step: Any) -> None:
    message = step.message("a")
    Workflow(WithDelay(message, 60_000), broker).run()
    assert [entry[3:] for entry in trace.log] == [(message.message_id, 60_000)] * 2


def test_carriers_are_announced_and_jobs_of_ruby_are_not(
    broker: SidekiqBroker, client: redis.Redis, trace: Trace, step: Any
) -> None:
    Workflow(Group(Job("Docs::Load", queue="ruby"), step.message("a")), broker).run()
    assert [entry[:3] for entry in trace.log] == [("before", "step", ("a",)), ("after", "step", ("a",))]
    (carrier,) = members(client, "python")
    assert (carrier["wrapped"], carrier["dramatiq"]) == ("step", {"trace": "none"})
    (job,) = members(client, "ruby")
    assert "dramatiq" not in job


def test_a_hook_that_raises_is_logged_and_the_run_goes_on(
    broker: SidekiqBroker, trace: Trace, step: Any, seen: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    Workflow(Chain(step.message("a"), step.message("b")), broker).run()
    trace.broken = True
    with working(broker):
        eventually(lambda: [name for name, _ in seen] == ["a", "b"])
    assert "no trace today" in caplog.text


def test_a_step_is_announced_before_it_can_run(broker: SidekiqBroker, trace: Trace, step: Any) -> None:
    """Another thread may take it at once, and note that it is done."""

    class Slow(dramatiq.Middleware):
        def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
            if message.args == ("b",):
                trace.log.append(("in queue", broker.connection.call("LLEN", "queue:python")))

    broker.add_middleware(Slow())
    Workflow(Chain(step.message("a"), step.message("b")), broker).run()
    with working(broker):
        eventually(lambda: [entry for entry in trace.log if entry[0] == "in queue"])
        broker.join("python", timeout=10_000)
    assert ("in queue", 0) in trace.log


def test_a_run_that_was_started_before_announces_nothing_after(broker: SidekiqBroker, trace: Trace, step: Any) -> None:
    workflow = Workflow(step.message("a"), broker)
    workflow.run("r")
    workflow.run("r")
    assert [entry[0] for entry in trace.log].count("after") == 1


def test_without_hooks_nothing_is_called(redis_url: str) -> None:
    broker = SidekiqBroker(url=redis_url)
    assert not broker.has_enqueue_hooks
    broker.add_middleware(WorkflowMiddleware())
    assert not broker.has_enqueue_hooks
    broker.add_middleware(Trace())
    assert broker.has_enqueue_hooks
    broker.close()
