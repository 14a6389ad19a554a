"""Actors of steps that the package runs itself: the gem's NoopWorker, WaitFor, and carriers of groups."""

from __future__ import annotations

from typing import Any

import dramatiq

from ..context import current_run
from ..wire.own_steps import is_own


def noop_actor(broker: dramatiq.Broker, actor_name: str) -> dramatiq.Actor[Any, Any]:
    """An actor that does nothing itself, and declares neither itself nor its queue.

    A declared one would make Python consume Ruby's queue ``default``.
    """
    function = _wait if is_own(actor_name) else _noop
    return _Undeclared(function, broker=broker, actor_name=actor_name, queue_name="default", priority=0, options={})


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


def _noop() -> None:
    """Of a delayed empty chain or group only the callbacks matter."""


def _wait(*args: Any) -> None:
    """A step waits, and a group starts, when it is acknowledged."""
    current_run().wait()
