"""Trees in wire form, whose steps are messages."""

from __future__ import annotations

from typing import Any

import dramatiq

from dramatiq_sidekiq_flow import Chain, Group, WithDelay
from dramatiq_sidekiq_flow.wire.nodes import dump


def serialize_workflow(workflow: Any) -> Any:
    return dump(workflow, _leaf)


def _leaf(value: Any) -> Any:
    return {"__type__": "message", **value.asdict()} if isinstance(value, dramatiq.Message) else None


def unserialize_workflow(wire: Any) -> Any:
    if callable(wire):
        wire = wire()
    if wire["__type__"] == "message":
        return dramatiq.Message(**{name: value for name, value in wire.items() if name != "__type__"})
    if wire["__type__"] == "with_delay":
        return WithDelay(unserialize_workflow(wire["task"]), wire["delay"])
    children = map(unserialize_workflow, wire["children"])
    return Chain(*children) if wire["__type__"] == "chain" else Group(*children)
