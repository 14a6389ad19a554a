"""The actor that runs the gem's NoopWorker: a delayed empty chain or group, of which only the callbacks matter.

It also runs a step that waits for a signal: its acknowledgement lets it wait.
"""

from __future__ import annotations

from typing import Any

import dramatiq


def noop_actor(broker: dramatiq.Broker, actor_name: str) -> dramatiq.Actor[Any, Any]:
    """An actor that does nothing, and declares neither itself nor its queue.

    A declared one would make Python consume Ruby's queue ``default``.
    """
    return _Undeclared(_noop, broker=broker, actor_name=actor_name, queue_name="default", priority=0, options={})


class _Undeclared(dramatiq.Actor[Any, Any]):
    def __init__(self, fn: Any, *, broker: Any, **attributes: Any) -> None:
        nowhere: Any = _Nowhere()
        super().__init__(fn, broker=nowhere, **attributes)
        self.broker = broker


class _Nowhere:
    """A broker that declares nothing."""

    def __init__(self) -> None:
        self.actors: dict[str, Any] = {}

    def declare_actor(self, actor: Any) -> None:
        pass


def _noop(*args: Any) -> None:
    pass
