"""Acknowledgement of finished jobs on a SidekiqBroker, and the advance of their runs."""

from __future__ import annotations

from typing import Any

from dramatiq.errors import ConnectionClosed

from ..broker.message import SidekiqMessage
from ..store.connection import LOST
from ..store.group_steps import GroupStep, StepGroup
from ..store.needs import Needs
from ..store.runs import Output
from ..store.step_records import Death
from ..wire import codec
from ..wire.callbacks import Callback
from ..wire.need import is_needing
from ..wire.payload import Payload
from ..wire.payload_fields import CALLBACK_KEY
from ..wire.replace import Changes, Replace, output_of
from . import death_policy
from .advance import advance
from .engine import Engine
from .finished_job import SETTLED, FinishedJob, Settled


class Completion:
    """Acknowledger of jobs that belong to a workflow; ``SidekiqConsumer.ack`` calls it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        #: Function that turns the stored value of a payload into its callback stack; None if payloads hold stacks.
        self.retrieve = engine.stacks.retrieve
        #: The last group that was advanced, and its callback stack.
        self._last_group: tuple[tuple[Callback, ...], StepGroup | None] = ((), None)

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
        if message.changes is not None or isinstance(message.output, Replace):
            value = self._changed(message)
            return None if isinstance(value, Settled) else self._finish(message, value, may_wait)
        return self._finish(message, message.output, may_wait)

    def _changed(self, message: SidekiqMessage) -> Any:
        """Let a step wait, or replace it; return its output if it ends as any other step, else Settled."""
        changes, returned = message.changes or Changes(), message.output
        if changes.waits:
            return self._arrive(message)
        node = changes.with_returned(returned)
        if node is not None and self._replace(message, node):
            return SETTLED
        return output_of(returned)

    def _finish(self, message: SidekiqMessage, value: Any, may_wait: bool) -> GroupStep | None:
        engine, payload = self.engine, message.payload
        if CALLBACK_KEY in payload.fields:
            engine.broker.process.commit.ack(message.member, message.receipt, may_wait=may_wait)
            return None
        output = engine.outputs.of(payload, value)
        record = engine.records.of_step(payload, message.began)
        if not payload.stack and not output.memory.key and not record.key:
            engine.broker.process.commit.ack(message.member, message.receipt, may_wait=may_wait)
            return None
        if may_wait and payload.is_member and engine.transport.hands_over:
            group = self._group_of(message, output)
            engine.stacks.extend(payload, group.ttl)
            return GroupStep(group, message.receipt, payload.jid, output.fields, record)
        try:
            advance(FinishedJob(payload, message.queue_name, output, message, record), engine)
        except LOST as e:
            raise ConnectionClosed(e) from None
        return None

    def _replace(self, message: SidekiqMessage, node: Any) -> bool:
        """End a step that a tree replaces; return False if the tree has nothing to run.

        Raises:
          InvalidWorkflow, InvalidArguments, InvalidOptions: if the tree cannot run.
          ConfigurationError: if steps of this broker cannot be replaced.
          BarrierExpired, WrongType, ConnectionClosed: as :meth:`advance`.
        """
        # Few processes replace steps.
        from .replacement import replace_step

        engine, payload = self.engine, message.payload
        output = engine.outputs.of(payload, output_of(message.output))
        record = engine.records.of_step(payload, message.began)
        try:
            return replace_step(FinishedJob(payload, message.queue_name, output, message, record), node, engine)
        except LOST as e:
            raise ConnectionClosed(e) from None

    def _arrive(self, message: SidekiqMessage) -> Any:
        """Let a step wait for its signal, or start a group; return its output if it goes on, else Settled.

        See :func:`waiting.arrive` and :func:`need_groups.start_group`.
        """
        # Few processes have such steps.
        from .need_groups import start_group
        from .waiting import arrive

        self.engine.stacks.extend(message.payload, self.engine.needs(message.payload).ttl)
        try:
            if is_needing(message.actor_name):
                start_group(message, self.engine)
                return SETTLED
            return arrive(message, self.engine)
        except LOST as e:
            raise ConnectionClosed(e) from None

    def _group_of(self, message: SidekiqMessage, output: Output) -> StepGroup:
        """Get the group of a step; the same object for steps that end one after the other."""
        stack, group = self._last_group
        if group is None or stack != message.payload.stack or group.memory != output.memory:
            job = FinishedJob(message.payload, message.queue_name, output, message)
            group = StepGroup(job.walk, job.ttl, output.memory)
            self._last_group = (message.payload.stack, group)
        return group

    def record_of_death(self, payload: Payload, raw: bytes, now: float) -> Death:
        """Make what the record of a run holds of a step that goes to ``dead``; see :meth:`Records.of_death`.

        Parameters:
          raw: The payload as it goes to ``dead``.
          now: Epoch seconds.
        """
        return self.engine.records.of_death(payload, codec.decode(raw, limited=False), now)

    def replacement(self, payload: Payload, raw: bytes, now: float) -> death_policy.Replacement | None:
        """Plan what takes the place of a step that is dead; see :func:`death_policy.replacement`."""
        return death_policy.replacement(self.engine, payload, raw, now)

    def record_of(self, payload: Payload) -> str:
        """Get the key of the record of a job's run; "" for none."""
        return self.engine.records.key_of(payload)

    def prepare_wait(self, payload: Payload, *, waits: float) -> Needs:
        """List the keys that a failed job's run needs during the wait; the script that moves the job extends them.

        Custom barriers are extended at once.

        Parameters:
          waits: Seconds until the job may run again.
        """
        needs = self.engine.needs(payload, waits=waits)
        self.engine.extend_custom_barriers(payload, needs.ttl)
        return needs
