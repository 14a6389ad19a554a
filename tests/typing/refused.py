"""Lines that must be errors: where one becomes allowed, mypy calls its ``type: ignore`` unused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dramatiq_sidekiq_flow import (
    Chain,
    Job,
    JobLogging,
    Namespace,
    OpenTelemetry,
    Prometheus,
    RedisCallbackStorage,
    RedisHashMemory,
    Replication,
    RubyJob,
    SidekiqBroker,
    Templates,
    WithDelay,
    Workflow,
    WorkflowMiddleware,
    cancelled,
    current_run,
    extend_ttl,
    find_current_run,
    restart_remaining,
    send_many,
    template,
    templates,
)
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from dramatiq_sidekiq_flow.testing import FlowTest

from .actors import Extract, named, plain

# Actors of Dramatiq know their parameters.
plain.message()  # type: ignore[call-arg]
plain.message(42)  # type: ignore[arg-type]
plain.send("42", pages=3)  # type: ignore[call-arg]
plain.send(Extract("42"))  # type: ignore[arg-type]
number: int = named(Extract("42"))  # type: ignore[assignment]
named.input_schema["type"]  # type: ignore[index]
named.send_with_options(("42",))  # type: ignore[call-arg]
plain.send_many([("42",)])  # type: ignore[attr-defined]
send_many(plain, ("42",), 1000)  # type: ignore[call-arg]
send_many(plain, 42)  # type: ignore[arg-type]

# Nodes.
Job(7)  # type: ignore[arg-type]
Job()  # type: ignore[call-arg]
RubyJob(7)  # type: ignore[arg-type]
WithDelay(Job("A"), "5")  # type: ignore[arg-type]
WithDelay(Job("A"))  # type: ignore[call-arg]
Namespace(Job("A"), "left")  # type: ignore[arg-type]
Chain(children=[Job("A")])  # type: ignore[call-arg]
Chain().children = ()  # type: ignore[misc]

# Runs.
Workflow("A")  # type: ignore[arg-type]
Workflow([Job("A")])  # type: ignore[arg-type]
Workflow(Job("A"), Job("B"))  # type: ignore[arg-type]
Workflow(Job("A"), seed=["size"])  # type: ignore[arg-type]
Workflow(Job("A")).run(42)  # type: ignore[arg-type]
Workflow(Job("A")).run(seed={})  # type: ignore[call-arg]
restart_remaining("jid")  # type: ignore[call-arg, arg-type]


# Templates.
template(7)  # type: ignore[arg-type]
template("name", Extract)  # type: ignore[call-arg]
Templates().register("name", "no function")  # type: ignore[arg-type]
templates.run(7)  # type: ignore[arg-type]
templates.run("index", {}, "run-id")  # type: ignore[call-arg]


@template  # type: ignore[arg-type]
def without_a_name() -> Job:
    return Job("A")


# In an actor.
current_run().run_id = "other"  # type: ignore[misc]
current_run().memory.write(["text"])  # type: ignore[arg-type]
current_run().memory.read(7)  # type: ignore[arg-type]
current_run().memory.write(text="x")  # type: ignore[call-arg]
run_id = find_current_run().run_id  # type: ignore[union-attr]
extend_ttl("1 day")  # type: ignore[arg-type]
extend_ttl(60.5)  # type: ignore[arg-type]
cancelled("500")  # type: ignore[arg-type]


# Parts of one's own that lack something.
class ForgetsNothing:
    def write(self, run_id: str, values: Mapping[str, Any]) -> None: ...

    def read(self, run_id: str, keys: Iterable[str] | None = None) -> dict[str, Any]:
        return {}


class CountsUntold:
    def create(self, barrier_id: str, parties: int, ttl: int) -> None: ...

    def wait(self, barrier_id: str, unit: str) -> None: ...

    def extend(self, barrier_id: str, ttl: int) -> None: ...


WorkflowMiddleware(ForgetsNothing())  # type: ignore[arg-type]
WorkflowMiddleware(memory=RedisHashMemory)  # type: ignore[arg-type]
WorkflowMiddleware(barriers=CountsUntold())  # type: ignore[arg-type]
WorkflowMiddleware(callback_storage=RedisHashMemory())  # type: ignore[arg-type]
WorkflowMiddleware(RedisHashMemory(), {"A": {}})  # type: ignore[call-arg]
WorkflowMiddleware(inherits=["shop_id"])  # type: ignore[call-arg]
RedisHashMemory(ttl="1 day")  # type: ignore[arg-type]
RedisHashMemory(url="redis://localhost")  # type: ignore[call-arg]
RedisCallbackStorage(min_bytes="1000")  # type: ignore[arg-type]

# The broker, telemetry, tests.
SidekiqBroker(6379)  # type: ignore[arg-type]
SidekiqBroker(client="redis://localhost")  # type: ignore[arg-type]
SidekiqBroker(poll_interval=0.5)  # type: ignore[arg-type]
SidekiqBroker(replication=1)  # type: ignore[arg-type]
Replication("1")  # type: ignore[arg-type]
Prometheus(9191)  # type: ignore[call-arg, arg-type]
Prometheus(port="9191")  # type: ignore[arg-type]
OpenTelemetry(tracer_provider="provider")  # type: ignore[arg-type]
JobLogging(level="INFO")  # type: ignore[arg-type]
EmbeddedServer("redis-server")  # type: ignore[call-arg, arg-type]
FlowTest(max_jobs="many")  # type: ignore[arg-type]
FlowTest().ruby("Images::Thumbnail", 200)  # type: ignore[call-overload]
FlowTest().run(Chain(), 42)  # type: ignore[arg-type]
