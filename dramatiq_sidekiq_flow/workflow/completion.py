"""Acknowledgement of finished jobs on a SidekiqBroker, and the advance of their runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dramatiq.errors import ConnectionClosed

from ..broker.message import SidekiqMessage
from ..store.connection import LOST
from ..store.group_steps import GroupStep, StepGroup
from ..store.needs import Needs
from ..wire.callbacks import Callback
from ..wire.payload import Payload
from .advance import advance
from .engine import Engine
from .finished_job import FinishedJob


class Completion:
    """Acknowledger of jobs that belong to a workflow; ``SidekiqConsumer.ack`` calls it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        #: The last group that was advanced, and its callback stack.
        self._last_group: tuple[tuple[Callback, ...], StepGroup | None] = ((), None)

    @property
    def retrieve(self) -> Callable[[Any], Any] | None:
        """Function that turns the stored value of a payload into its callback stack; None if payloads hold stacks."""
        return self.engine.stacks.retrieve

    def advance(self, message: SidekiqMessage, *, may_wait: bool = False) -> GroupStep | None:
        """Acknowledge a job that succeeded, and advance its run.

        Parameters:
          may_wait: The acknowledgement may be sent later, together with others.

        Returns:
          The step, if the caller must hand it over, since it may wait; None if it is
          acknowledged.

        Raises:
          BarrierExpired, WrongType, InvalidOutput: if the run cannot continue;
            nothing is written, and the job stays in flight.
          ConnectionClosed: if Redis cannot be reached; calling again is safe.
        """
        engine, payload = self.engine, message.payload
        output = engine.outputs.of(payload, message.output)
        if not payload.stack and not output.memory.key:
            engine.broker.process.commit.ack(message.member, message.receipt, may_wait=may_wait)
            return None
        job = FinishedJob(payload, message.queue_name, output, message)
        if may_wait and engine.transport.hands_over and job.is_member:
            group = self._group_of(job)
            engine.stacks.extend(payload, group.ttl)
            return GroupStep(group, message.receipt, payload.jid, output.fields)
        try:
            advance(job, engine)
        except LOST as e:
            raise ConnectionClosed(e) from None
        return None

    def _group_of(self, job: FinishedJob) -> StepGroup:
        """Get the group of a step; the same object for steps that end one after the other."""
        stack, group = self._last_group
        if group is None or stack != job.payload.stack or group.memory != job.output.memory:
            group = StepGroup(job.walk, job.ttl, job.output.memory)
            self._last_group = (job.payload.stack, group)
        return group

    def prepare_wait(self, payload: Payload, *, waits: float) -> Needs:
        """List the keys that a failed job's run needs during the wait; the script that moves the job extends them.

        Custom barriers are extended at once.

        Parameters:
          waits: Seconds until the job may run again.
        """
        needs = self.engine.needs(payload, waits=waits)
        self.engine.extend_custom_barriers(payload, needs.ttl)
        return needs
