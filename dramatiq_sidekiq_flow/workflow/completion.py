"""Where a job that ended leaves flight: the workflow's side of a SidekiqBroker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dramatiq.errors import ConnectionClosed

from ..broker.message import SidekiqMessage
from ..store.connection import LOST
from ..store.needs import Needs
from ..wire.payload import Payload
from .advance import advance
from .engine import Engine
from .finished_job import FinishedJob


class Completion:
    """Advances runs when their jobs end; ``Consumer.ack`` calls it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def retrieve(self) -> Callable[[Any], Any] | None:
        """Gives the callback stack for what a payload holds in its place; None where it holds the stack."""
        return self.engine.stacks.retrieve

    def advance(self, message: SidekiqMessage) -> None:
        """Acknowledge a job that succeeded, and go on with its run.

        Raises:
          BarrierExpired, WrongType, InvalidOutput: if the run cannot go on;
            nothing is written, the job is still in flight.
          ConnectionClosed: if Redis cannot be reached; calling again is safe.
        """
        engine, payload = self.engine, message.payload
        output = engine.outputs.of(payload, message.output)
        if not payload.stack and not output.memory.key:
            engine.broker.process.commit.ack(message.member, message.receipt)
            return
        try:
            advance(FinishedJob(payload, message.queue_name, output, message), engine)
        except LOST as e:
            raise ConnectionClosed(e) from None

    def prepare_wait(self, payload: Payload, *, waits: float) -> Needs:
        """Prepare the run of a failed job for a wait: what the script that moves the job keeps alive.

        Barriers of the application's own are extended at once.

        Parameters:
          waits: Seconds until the job may run again.
        """
        needs = self.engine.needs(payload, waits=waits)
        self.engine.extend_custom_barriers(payload, needs.ttl)
        return needs
