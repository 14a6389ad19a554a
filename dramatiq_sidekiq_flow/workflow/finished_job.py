"""FinishedJob: a job that succeeded, as input of an advance."""

from __future__ import annotations

from functools import cached_property

import attrs

from ..broker.message import SidekiqMessage
from ..store.runs import Output, Walk
from ..wire.lifetimes import stack_ttl
from ..wire.payload import Payload


# Without slots, for the cached properties: most steps of a group need none of them.
@attrs.frozen(slots=False)
class FinishedJob:
    """A job that succeeded.

    Attributes:
      queue: The queue that it was fetched from.
      output: Values that it sets in the memory of its run.
      message: The message in flight on a SidekiqBroker; None on another broker.
    """

    payload: Payload
    queue: str
    output: Output
    message: SidekiqMessage | None = None

    @cached_property
    def ttl(self) -> int:
        """Seconds that the barriers of its callback stack must live."""
        return stack_ttl(self.payload)

    @cached_property
    def walk(self) -> tuple[Walk, ...]:
        """Its callback stack, from the top."""
        return tuple(Walk(callback.barrier, callback.kind) for callback in reversed(self.payload.stack))

    @property
    def first_due(self) -> int:
        """Number of the callback that certainly fires: 1 (the top) after a step of a chain, else 0 (not known yet)."""
        return 1 if self.walk and self.walk[0].kind == "f" else 0
