"""What people write by mistake, and the sentence that they get."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    Job,
    RedisCallbackStorage,
    RedisHashMemory,
    RubyJob,
    SidekiqBroker,
    WithDelay,
    Workflow,
    WorkflowMiddleware,
)
from dramatiq_sidekiq_flow.broker.unknown_actor import unknown_actor

from ..tree_reader import load

A, B = Job("A"), Job("B")


@pytest.fixture
def broker() -> Iterator[SidekiqBroker]:
    # Nothing here asks the server.
    broker = SidekiqBroker(url="redis://127.0.0.1:1")
    broker.add_middleware(WorkflowMiddleware())
    yield broker
    broker.close()


@pytest.fixture
def step(broker: SidekiqBroker) -> Any:
    return dramatiq.actor(actor_name="step", queue_name="python", broker=broker)(lambda: None)


def unset(call: Callable[[], Any]) -> Any:
    """Call where no broker was set."""
    before, dramatiq.broker.global_broker = dramatiq.broker.global_broker, None
    try:
        return call()
    finally:
        dramatiq.broker.global_broker = before


#: What is written, the kind of error, and what its text says to write.
MISSES: list[tuple[Callable[[Any, Any], Any], str, str]] = [
    (lambda broker, step: Workflow(A, B), "InvalidWorkflow", "Workflow(Chain(a, b))"),  # type: ignore[arg-type]
    (lambda broker, step: Group(job for job in (A, B)), "InvalidWorkflow", "Group(*nodes)"),
    (lambda broker, step: Chain([A, B]), "InvalidWorkflow", "Chain(*nodes)"),
    (lambda broker, step: Workflow([A, B], broker), "InvalidWorkflow", "Write Chain(*nodes)"),  # type: ignore[arg-type]
    (lambda broker, step: Workflow(Chain(step), broker), "InvalidWorkflow", "write step.message(...)"),
    (lambda broker, step: Workflow(Chain(Chain), broker), "InvalidWorkflow", "It is a class; call it"),
    (
        lambda broker, step: Workflow(dramatiq.pipeline([step.message()], broker=broker), broker),  # type: ignore[arg-type]
        "InvalidWorkflow",
        "write Chain(*messages)",
    ),
    (lambda broker, step: Chain(Workflow(A, broker)).children[0].nothing, "AttributeError", "nothing"),
    (lambda broker, step: Workflow(Chain(Workflow(A, broker)), broker), "InvalidWorkflow", "workflow.node"),
    (lambda broker, step: Job("A", queu="low"), "InvalidOptions", "write queue="),
    (lambda broker, step: Job("A", tag=["x"]), "InvalidOptions", "write tags="),
    (lambda broker, step: Job("A", delay=5), "InvalidOptions", "write WithDelay(Job(...), milliseconds)"),
    (lambda broker, step: Job("A", max_retries=5), "InvalidOptions", "write retry="),
    (lambda broker, step: RubyJob("A", queue_name="low"), "InvalidOptions", "write queue="),
    (lambda broker, step: RubyJob("A").send(1), "AttributeError", "Workflow(TheJob(...)).run()"),
    (lambda broker, step: RubyJob("A").perform_async(1), "AttributeError", "Workflow(TheJob(...)).run()"),
    (lambda broker, step: A.send(), "AttributeError", "Workflow(Job(...)).run()"),
    (lambda broker, step: WorkflowMiddleware(memory="redis://x"), "ConfigurationError", "RedisHashMemory()"),  # type: ignore[arg-type]
    (lambda broker, step: WorkflowMiddleware(memory=RedisHashMemory), "ConfigurationError", "RedisHashMemory()"),  # type: ignore[arg-type]
    (
        lambda broker, step: WorkflowMiddleware(callback_storage=RedisCallbackStorage),  # type: ignore[arg-type]
        "ConfigurationError",
        "callback_storage=RedisCallbackStorage()",
    ),
    (lambda broker, step: WorkflowMiddleware(inherit="tenant"), "ConfigurationError", "inherit=['tenant']"),
    (lambda broker, step: WorkflowMiddleware(inherit=["jid"]), "ConfigurationError", "'jid' belongs to one job"),
    (
        lambda broker, step: unset(lambda: Workflow(A)),
        "ConfigurationError",
        "call dramatiq.set_broker(broker) before the actors",
    ),
    (lambda broker, step: Workflow(A, StubBroker()), "ConfigurationError", "dramatiq.set_broker(broker)"),
    (
        lambda broker, step: Workflow(A, SidekiqBroker()),
        "ConfigurationError",
        "broker.add_middleware(WorkflowMiddleware())",
    ),
    (lambda broker, step: _raise(unknown_actor("stepp", broker.actors)), "ActorNotFound", "Do you mean 'step'?"),
]


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("write", "kind", "text"), MISSES, ids=[f"{text[:30]}-{n}" for n, (_, _, text) in enumerate(MISSES)]
)
def test_the_error_says_what_to_write(broker: SidekiqBroker, step: Any, write: Any, kind: str, text: str) -> None:
    with pytest.raises(Exception, match=re.escape(text)) as raised:
        write(broker, step)
    assert type(raised.value).__name__ == kind


def test_a_delay_of_seconds_in_milliseconds_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"30 milliseconds.*timedelta\(seconds=30\)"):
        WithDelay(A, 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for delay in (0, 100, timedelta(milliseconds=30)):
            WithDelay(A, delay)


def test_options_that_only_other_gems_know_are_kept() -> None:
    options = {"lock": "until_executed", "log_level": "debug", "expiry": 60, "retry_in": 5}
    assert Job("A", **options).options == options
    # What another program wrote is read, whatever it is called.
    assert load({"__type__": "job", "class": "A", "args": [], "tag": "x"}).options == {"tag": "x"}  # type: ignore[union-attr]


def test_a_workflow_prints_as_a_line_for_each_step(broker: SidekiqBroker, step: Any) -> None:
    tree = Chain(step.message(), Group(Job("Docs::Load", "x" * 80, queue="ruby"), WithDelay(Job("B"), 1500)), Chain())
    assert str(Workflow(tree, broker)).splitlines() == [
        "chain",
        "  step() in python",
        "  group",
        f"    Docs::Load('{'x' * 56}...) in ruby",
        "    after 1.5 s",
        "      B()",
        "  chain (empty)",
    ]


def test_keys_of_a_context_are_not_near_misses() -> None:
    job = Job("Docs::Load", **{"cattr_1": {"shop": 1}, "x-datadog-trace-id": "5"})
    assert set(job.options) == {"cattr_1", "x-datadog-trace-id"}
