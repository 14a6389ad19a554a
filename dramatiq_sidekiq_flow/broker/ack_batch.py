"""Group commit: batches acknowledgements of many threads into one round trip.

The thread that holds the sender lock sends all that has gathered meanwhile.

A job without a workflow, or a step of a group while more jobs are about to finish,
is acknowledged without waiting: its acknowledgement is queued
(``broker/handed_over.py``), and the thread continues with the next job.  After a
crash before it is sent the job runs again, as it may at any time until Redis has
replied.  All other operations wait for their reply.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from dramatiq.errors import ConnectionClosed

from ..process.availability import Availability
from ..process.events import Events
from ..store.connection import LOST, Connection
from ..store.group_steps import GroupStep
from ..store.outcomes import Operation
from ..store.replication import NO_WAIT, ReplicaWait
from ..store.scripts import Command
from .handed_over import Acknowledgement, Batch, HandedOver
from .replica_confirmation import ReplicaConfirmation

#: While more jobs are about to finish, a batch is sent when it has this many
#: acknowledgements, or is this old, in seconds.
BATCH = 32
BATCH_TIME = 0.005


T = TypeVar("T")


class _Entry:
    """An operation that a thread waits for."""

    __slots__ = ("command", "error", "reply", "settled")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.reply: Any = None
        self.error: BaseException | None = None
        self.settled = False


class GroupCommit:
    """Sends operations of many threads together.  Each must be safe to send twice.

    Parameters:
      replicas: How many replicas must confirm what is sent.
      events: Notified if too few do.
    """

    def __init__(
        self,
        connection: Connection,
        availability: Availability,
        replicas: ReplicaWait = NO_WAIT,
        events: Events | None = None,
    ) -> None:
        self.connection = connection
        self.availability = availability
        self._waiting: deque[_Entry] = deque()
        self._handed_over = HandedOver()
        self._queued_since = 0.0
        #: Send now: no other acknowledgement is expected soon.
        self._flush_now = False
        self._sender = threading.Lock()
        self._settler = threading.Lock()
        self._confirmation = ReplicaConfirmation(replicas, events or Events())
        self._replicated = replicas.wanted > 0

    def run(self, operation: Operation[T]) -> T:
        """Run an operation, and wait for its outcome.

        Raises:
          ConnectionClosed: if Redis cannot be reached; Dramatiq then tries
            again without running the actor again.
          FlowError: if the operation is refused; see its ``read``.
        """
        entry = _Entry(operation.command)
        self._waiting.append(entry)
        with self._sender:
            if not entry.settled:
                try:
                    self._send()
                except LOST:
                    # The error may be of acknowledgements only, which are kept.
                    if not entry.settled:
                        raise
        # Acknowledgements that were queued while this thread held the lock.
        if self._handed_over.queued or self._handed_over.left:
            self._go_on()
        if entry.error is not None:
            raise entry.error
        if not entry.settled:
            # The thread that took this entry was interrupted before sending it.
            raise ConnectionClosed(ConnectionResetError("the round trip was interrupted"))
        return operation.read(entry.reply)

    def waiting(self) -> list[tuple[str, str]]:
        """Member and receipt of finished jobs that are handed over, and not settled yet."""
        return self._handed_over.waiting()

    def ack(self, member: str, receipt: str, *, may_wait: bool = False) -> None:
        """Hand over the acknowledgement of a finished job.  One HDEL takes many out of flight.

        Parameters:
          may_wait: Other jobs of this process are about to finish, and their
            acknowledgements may be sent together with this one.
        """
        self._queue(Acknowledgement(member, receipt), may_wait)

    def ack_step(self, member: str, step: GroupStep, settle: Callable[[], None]) -> None:
        """Hand over the acknowledgement of a step of a group, to be sent with those of other jobs.

        Parameters:
          settle: Function that acknowledges the step by itself, in any thread.  Called
            if the step cannot be advanced with the others; raises ConnectionClosed if
            Redis cannot be reached, and is then called again.
        """
        self._queue(Acknowledgement(member, step.receipt, step, settle), may_wait=True)

    def _queue(self, acknowledgement: Acknowledgement, may_wait: bool) -> None:
        queued = self._handed_over.queued
        if not queued:
            self._queued_since = time.monotonic()
        queued.append(acknowledgement)
        if not may_wait:
            self._flush_now = True
        self._go_on()

    def flush_nowait(self) -> None:
        """Send queued acknowledgements, unless another thread holds the lock and will send them."""
        if self._handed_over.queued:
            self._flush_now = True
        self._go_on()

    def _go_on(self) -> None:
        """Send the queued acknowledgements if they are due, and settle the steps that are left.

        What Redis does not take now waits for a later call, or a flush.
        """
        handed_over = self._handed_over
        # Checked again after the lock is released: acknowledgements that were
        # queued meanwhile must not be left behind. Let them accumulate unless a
        # flush was requested; otherwise each round trip would carry only a few.
        while handed_over.queued and self._is_due():
            if not self._try_send():
                break
        if handed_over.left:
            try:
                self._settle_left()
            except ConnectionClosed as e:
                self.availability.lost(e)

    def _try_send(self) -> bool:
        """Send the queued acknowledgements; False if another thread sends, or if Redis does not take them now."""
        if not self._sender.acquire(blocking=False):
            return False
        try:
            self._flush_now = False
            self._send()
        except LOST as e:
            # They are sent with the next batch, or with the next heartbeat.
            self.availability.lost(e)
            return False
        finally:
            self._sender.release()
        return True

    def _is_due(self) -> bool:
        if self._flush_now or len(self._handed_over.queued) >= BATCH:
            return True
        return time.monotonic() - self._queued_since >= BATCH_TIME

    def flush(self) -> None:
        """Send queued acknowledgements, wait for the reply, and settle the steps that are left.

        Raises:
          ConnectionClosed: if Redis cannot be reached; all that is not settled stays queued.
        """
        try:
            with self._sender:
                if self._handed_over.queued:
                    self._send()
        except LOST as e:
            raise ConnectionClosed(e) from None
        self._settle_left()

    def _settle_left(self) -> None:
        """Acknowledge the steps that are left by themselves, unless another thread does.

        Raises:
          ConnectionClosed: if Redis cannot be reached; they stay.
        """
        left = self._handed_over.left
        # Checked again after the lock is released: see _go_on.
        while left and self._settler.acquire(blocking=False):
            try:
                while left:
                    settle = left[0].settle
                    assert settle is not None
                    settle()
                    left.popleft()
            finally:
                self._settler.release()

    def _send(self) -> None:
        """Send all that has gathered.  The lock is held.

        Raises:
          redis.ConnectionError, ServerUnavailable: if acknowledgements were not
            accepted; they stay queued.
        """
        entries = _drain(self._waiting)
        batches = self._handed_over.take()
        self._queued_since = time.monotonic()
        commands = [entry.command for entry in entries]
        if batches:
            commands += [batch.operation.command for batch in batches]
        asked = self._confirmation.commands() if self._replicated else ()
        try:
            replies = self.connection.send([*commands, *asked] if asked else commands)
        except BaseException as e:
            # An interrupt as well (a time limit that fires late): queued
            # acknowledgements stay, and threads that wait try again.
            self._handed_over.put_back()
            _settle_all(entries, ConnectionClosed(e))
            if entries and isinstance(e, LOST):
                return
            raise
        for entry, reply in zip(entries, replies):
            _settle(entry, reply)
        if batches:
            self._settle_batches(batches, replies[len(entries) : len(commands)])
        else:
            self.availability.back()
        if self._replicated:
            self._confirmation.check(replies[: len(commands)], replies[len(commands) :])

    def _settle_batches(self, batches: list[Batch], replies: list[Any]) -> None:
        refused = self._handed_over.settle(batches, replies)
        if refused is None:
            self.availability.back()
        else:
            self.availability.lost(refused)
            raise refused


def _drain(queue: deque[Any]) -> list[Any]:
    found = []
    while queue:
        found.append(queue.popleft())
    return found


def _settle(entry: _Entry, reply: Any) -> None:
    if isinstance(reply, LOST):
        entry.error = ConnectionClosed(reply)
    elif isinstance(reply, Exception):
        entry.error = reply
    entry.reply = reply
    entry.settled = True


def _settle_all(entries: list[_Entry], error: ConnectionClosed) -> None:
    for entry in entries:
        entry.error = error
        entry.settled = True
