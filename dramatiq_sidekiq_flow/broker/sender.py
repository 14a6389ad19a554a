"""Pushes the messages of a broker as Sidekiq jobs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypeGuard

from dramatiq import Message
from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from ..context import current_job
from ..errors import NotReplicated
from ..store import queues
from ..store.connection import LOST
from ..store.queues import Batch, Pushed
from ..store.replication import Unconfirmed
from ..wire import codec
from ..wire.payload import DEFAULTS
from ..wire.payload_frame import PayloadFrame
from .message import to_fields
from .worker_process import WorkerProcess

#: Actors and queues whose frames are kept, at most.
MOST_FRAMES = 1_000

#: Reason of a push: ``send``, ``start`` (the first jobs of a run) or ``advance``.
Why = Literal["send", "start", "advance"]


def is_later(delay: int | None) -> TypeGuard[int]:
    """Return True if a job with this delay goes to ``schedule``, and not to its queue."""
    return delay is not None and delay > 0


class Sender:
    """Pushes the jobs of one broker.

    Attributes:
      stamps: Functions called with the keys of each job before it is pushed, and the reason.
    """

    def __init__(self, process: WorkerProcess) -> None:
        self.logger = get_logger(__name__, type(self))
        self.process = process
        self.stamps: list[Callable[[dict[str, Any], Why], None]] = []
        self._frames: dict[tuple[str, str, bool], tuple[Mapping[str, Any], PayloadFrame]] = {}

    def fields(
        self, message: Message[Any], of_actor: Mapping[str, Any], inherit: Collection[str], *, now: float
    ) -> dict[str, Any]:
        """Make the payload of a message, with the context of the current job, and stamp it.

        Parameters:
          of_actor: The job options of its actor.
          inherit: Further keys of the context.
          now: Epoch seconds.

        Raises:
          InvalidArguments, InvalidOptions: at the caller.
        """
        fields = to_fields(message, of_actor, now=now)
        job = current_job()
        if job is not None:
            fields = {**job.inherited(inherit), **fields}
        if self.stamps:
            self.stamp(fields, "send")
        return fields

    def stamp(self, fields: dict[str, Any], why: Why) -> None:
        """Call each of :attr:`stamps`, which add keys such as a trace context; an error is logged."""
        for stamp in self.stamps:
            try:
                stamp(fields, why)
            except Exception:
                self.logger.warning("%r failed, so the job is pushed without what it adds.", stamp, exc_info=True)

    def payload(
        self, message: Message[Any], of_actor: Mapping[str, Any], inherit: Collection[str], *, queued: bool, now: float
    ) -> tuple[str, bytes]:
        """Make the payload of a message as :meth:`fields` does, and encode it.

        Parameters:
          queued: Whether it goes to its queue, and not to ``schedule``.

        Returns:
          Its queue, and the payload.

        Raises:
          InvalidArguments, InvalidOptions: at the caller.
        """
        if message.options or message.kwargs or self.stamps or of_actor is DEFAULTS or current_job() is not None:
            fields = self.fields(message, of_actor, inherit, now=now)
            if queued:
                fields["enqueued_at"] = now
            return fields["queue"], codec.encode_payload(fields)
        frame = self._frame(message, of_actor, queued)
        codec.check(message.args, "args")
        payload = frame.payload(message.args, message.message_id, now)
        codec.check_size(len(payload), message.actor_name)
        return message.queue_name, payload

    def _frame(self, message: Message[Any], of_actor: Mapping[str, Any], queued: bool) -> PayloadFrame:
        """Find what the messages of an actor that have no options have in common."""
        key = (message.actor_name, message.queue_name, queued)
        known = self._frames.get(key)
        # An actor that is declared again has other options.
        if known is not None and known[0] is of_actor:
            return known[1]
        if len(self._frames) >= MOST_FRAMES:
            self._frames.clear()
        frame = PayloadFrame.of(to_fields(message, of_actor, now=0.0), queued=queued)
        self._frames[key] = (of_actor, frame)
        return frame

    def push(self, queue: str, payload: bytes, delay: int | None, jid: str, *, now: float) -> NotReplicated | None:
        """Push a payload to its queue, or to ``schedule``.

        Parameters:
          delay: Milliseconds.
          jid: Its id, for errors.
          now: Epoch seconds.

        Returns:
          The error to raise after all other work, if the job was pushed but too
          few replicas confirm it; else None.

        Raises:
          ConnectionClosed: if Redis cannot be reached.
        """
        try:
            if is_later(delay):
                self.process.poller.nudge(delay / 1000)
                queues.schedule(self.process.connection, now + delay / 1000, payload)
            else:
                queues.push(self.process.connection, queue, (payload,))
        except Unconfirmed as e:
            return e.of_job(jid)
        except LOST as e:
            raise ConnectionClosed(e) from None
        return None

    def push_all(self, batches: Sequence[Batch], delay: int | None) -> Pushed:
        """Push batches of jobs in one write, in their order; those after a failed one are not pushed.

        Parameters:
          delay: Milliseconds, the same for all.

        Raises:
          ConnectionClosed: if Redis cannot be reached; each batch may be there or not.
        """
        try:
            pushed = queues.push_all(self.process.connection, batches)
        except LOST as e:
            raise ConnectionClosed(e) from None
        if is_later(delay):
            self.process.poller.nudge(delay / 1000)
        if isinstance(pushed.error, LOST):
            return Pushed(pushed.count, ConnectionClosed(pushed.error))
        return pushed
