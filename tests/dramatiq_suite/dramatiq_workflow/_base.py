"""A workflow that is planned as ever, and enqueued as dramatiq-workflow would."""

from __future__ import annotations

import json
import time
from typing import Any

import dramatiq
import dramatiq.brokers.stub

from dramatiq_sidekiq_flow.errors import ConfigurationError
from dramatiq_sidekiq_flow.wire.dialect import NOOP_CLASSES
from dramatiq_sidekiq_flow.wire.lifetimes import barrier_ttl
from dramatiq_sidekiq_flow.wire.nodes import dump, validate
from dramatiq_sidekiq_flow.workflow.engine import RANDOM_IDS
from dramatiq_sidekiq_flow.workflow.plan import Source, plan

from ._constants import OPTION_KEY_CALLBACKS


@dramatiq.actor(broker=dramatiq.brokers.stub.StubBroker())
def workflow_noop() -> None: ...


class Workflow:
    def __init__(self, workflow: Any, broker: Any = None) -> None:
        self.workflow = workflow
        self.broker = broker or dramatiq.get_broker()

    def run(self) -> None:
        # Each message travels as its number, and is found by it again.
        messages: list[Any] = []

        def leaf(value: Any) -> Any:
            if not isinstance(value, dramatiq.Message):
                return None
            messages.append(value)
            return {"__type__": "job", "class": "Step", "args": [len(messages) - 1], "queue": "default"}

        wire = dump(self.workflow, leaf)
        validate(wire)
        planned = plan(
            wire,
            (),
            Source(None, 0.0, lambda node: {}, RANDOM_IDS),
            barrier_ttl(wire, (), 0.0),
        )
        middleware = next(iter(self.broker.middleware), None)
        if middleware is None:
            raise ConfigurationError("The broker has no WorkflowMiddleware.", self.broker)
        if planned.completes:
            middleware._process_completion_callbacks(self.broker, [])
            return
        for barrier in planned.barriers:
            middleware.barrier_type(middleware.rate_limiter_backend, barrier.id, ttl=barrier.ttl * 1000).create(
                barrier.value
            )
        now = time.time() * 1000
        jobs: list[tuple[int | None, bytes]] = [(None, raw) for raws in planned.pushes.values() for raw in raws]
        jobs += [(round(at * 1000), raw) for at, raw in planned.scheduled]
        for delay, raw in jobs:
            fields = json.loads(raw)
            message = workflow_noop.message() if fields["class"] in NOOP_CLASSES else messages[fields["args"][0]]
            options = {}
            if OPTION_KEY_CALLBACKS in fields:
                stack = [(id, _tree(left, messages), flag) for id, left, flag in fields[OPTION_KEY_CALLBACKS]]
                options[OPTION_KEY_CALLBACKS] = stack
            self.broker.enqueue(message.copy(message_timestamp=now, options=options), delay=delay)


def _tree(wire: Any, messages: list[Any]) -> Any:
    """What remains, with messages in place of their numbers."""
    if wire is None:
        return None
    if wire["__type__"] == "job":
        return {"__type__": "message", **messages[wire["args"][0]].asdict()}
    if wire["__type__"] == "with_delay":
        return {**wire, "task": _tree(wire["task"], messages)}
    return {**wire, "children": [_tree(child, messages) for child in wire["children"]]}
