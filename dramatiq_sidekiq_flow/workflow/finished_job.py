"""FinishedJob: a job that succeeded, as input of an advance."""

from __future__ import annotations

import attrs

from ..broker.message import SidekiqMessage
from ..store.runs import Output, Walk
from ..store.step_records import NO_STEP, StepRecord
from ..wire.lifetimes import stack_ttl
from ..wire.payload import Payload


@attrs.frozen
class FinishedJob:
    """A job that succeeded.

    Attributes:
      queue: The queue that it was fetched from.
      output: Values that it sets in the memory of its run.
      message: The message in flight on a SidekiqBroker; None on another broker.
      record: What the record of its run holds of it.
      ttl: Seconds that the barriers of its callback stack must live.
      walk: Its callback stack, from the top.
    """

    payload: Payload
    queue: str
    output: Output
    message: SidekiqMessage | None = None
    record: StepRecord = NO_STEP
    ttl: int = attrs.field(init=False)
    walk: tuple[Walk, ...] = attrs.field(init=False)

    @ttl.default
    def _ttl(self) -> int:
        return stack_ttl(self.payload)

    @walk.default
    def _walk(self) -> tuple[Walk, ...]:
        return tuple([Walk(callback.barrier, callback.kind) for callback in reversed(self.payload.stack)])

    @property
    def first_due(self) -> int:
        """Number of the callback that certainly fires: 1 (the top) after a step of a chain, else 0 (not known yet)."""
        return 1 if self.walk and self.walk[0].kind == "f" else 0


@attrs.frozen
class Settled:
    """In place of an output: the step waits, or was acknowledged in another way than by an advance."""


SETTLED = Settled()
