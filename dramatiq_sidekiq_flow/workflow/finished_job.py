"""A job that succeeded, as an advance takes it."""

from __future__ import annotations

from typing import Literal

import attrs

from ..broker.message import SidekiqMessage
from ..store.runs import Output, Walk
from ..wire.callbacks import Callback
from ..wire.lifetimes import stack_ttl
from ..wire.nodes import completes_at_once
from ..wire.payload import Payload


@attrs.frozen
class FinishedJob:
    """A job that succeeded.

    Attributes:
      queue: Where it came from.
      output: What it sets in the memory of its run.
      ttl: Seconds that the barriers of its callback stack must live.
      walk: Its callback stack, from the top.
      message: As it is in flight on a SidekiqBroker; None on another broker.
    """

    payload: Payload
    queue: str
    output: Output
    ttl: int
    walk: tuple[Walk, ...]
    message: SidekiqMessage | None = None

    @property
    def first_due(self) -> int:
        """1 if the top of the stack fires as soon as it is counted, as after a step of a chain; else 0."""
        return 1 if self.walk and self.walk[0].kind == "f" else 0


def finished(payload: Payload, queue: str, output: Output, message: SidekiqMessage | None = None) -> FinishedJob:
    """A job that succeeded, from its payload."""
    walk = tuple(Walk(callback.barrier, kind_of(callback)) for callback in reversed(payload.stack))
    return FinishedJob(payload, queue, output, stack_ttl(payload), walk, message)


def kind_of(callback: Callback) -> Literal["f", "n", "s"]:
    """What happens when a callback's barrier releases, as :class:`Walk` names it."""
    if callback.remaining is None:
        return "n" if callback.propagate else "s"
    # What remains may be empty: then it completes at once, and the walk goes on.
    return "n" if completes_at_once(callback.remaining) else "f"
