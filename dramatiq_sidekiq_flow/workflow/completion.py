"""Acknowledgement of finished jobs on a SidekiqBroker, and the advance of their runs."""

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
    """Acknowledger of jobs that belong to a workflow; ``SidekiqConsumer.ack`` calls it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def retrieve(self) -> Callable[[Any], Any] | None:
        """Function that turns the stored value of a payload into its callback stack; None if payloads hold stacks."""
        return self.engine.stacks.retrieve

    def advance(self, message: SidekiqMessage) -> None:
        """Acknowledge a job that succeeded, and advance its run.

        Raises:
          BarrierExpired, WrongType, InvalidOutput: if the run cannot continue;
            nothing is written, and the job stays in flight.
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
        """List the keys that a failed job's run needs during the wait; the script that moves the job extends them.

        Custom barriers are extended at once.

        Parameters:
          waits: Seconds until the job may run again.
        """
        needs = self.engine.needs(payload, waits=waits)
        self.engine.extend_custom_barriers(payload, needs.ttl)
        return needs
