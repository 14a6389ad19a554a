"""Group commit: batches acknowledgements of many threads into one round trip.

The thread that holds the sender lock sends all that has gathered meanwhile.

A job without a workflow is acknowledged without waiting: its acknowledgement is
queued, and the thread continues with the next job.  After a crash before it is
sent the job runs again, as it may at any time until Redis has replied.  All
other operations wait for their reply.

Where replicas must confirm acknowledgements, each round trip waits for them
once, for all its jobs.  If too few confirm, the worker continues: the jobs are
done, and the primary has that.  It asks again after ten times as long as it has
waited, so that missing replicas cost a worker at most a tenth of its time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, TypeVar

from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from ..process.availability import Availability
from ..process.events import Events, Unreplicated
from ..process.log_limit import LogLimit
from ..store import queues
from ..store.connection import LOST, Connection
from ..store.outcomes import Operation
from ..store.replication import NO_WAIT, ReplicaWait, Shortage
from ..store.scripts import Command

#: While more jobs are about to finish, a batch is sent when it has this many
#: acknowledgements, or is this old, in seconds.
BATCH = 32
BATCH_TIME = 0.005

#: After a round trip that too few replicas confirmed, how many times as long as
#: it waited the next ones do not wait.
PATIENCE = 10


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
        self.logger = get_logger(__name__, type(self))
        self.connection = connection
        self.availability = availability
        self._waiting: deque[_Entry] = deque()
        self._done: deque[tuple[str, str]] = deque()
        #: Those of ``_done`` that are being sent.
        self._sending: deque[tuple[str, str]] = deque()
        self._done_since = 0.0
        #: Send now: no other acknowledgement is expected soon.
        self._flush_now = False
        self._sender = threading.Lock()
        self._replicas = replicas
        self._events = events or Events()
        self._log_limit = LogLimit()
        #: The last shortage of replicas, and when to ask again (monotonic).
        self._shortage: Shortage | None = None
        self._ask_again = 0.0

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
        self._send_due()
        if entry.error is not None:
            raise entry.error
        if not entry.settled:
            # The thread that took this entry was interrupted before sending it.
            raise ConnectionClosed(ConnectionResetError("the round trip was interrupted"))
        return operation.read(entry.reply)

    def waiting(self) -> list[tuple[str, str]]:
        """Member and receipt of finished jobs whose acknowledgement is queued, or being sent."""
        return [*list(self._sending), *list(self._done)]

    def ack(self, member: str, receipt: str, *, may_wait: bool = False) -> None:
        """Queue the acknowledgement of a finished job.  One HDEL takes many out of flight.

        Parameters:
          may_wait: Other jobs of this process are about to finish, and their
            acknowledgements may be sent together with this one.
        """
        if not self._done:
            self._done_since = time.monotonic()
        self._done.append((member, receipt))
        if not may_wait:
            self._flush_now = True
        self._send_due()

    def flush_nowait(self) -> None:
        """Send queued acknowledgements, unless another thread holds the lock and will send them."""
        if self._done:
            self._flush_now = True
            self._send_due()

    def _send_due(self) -> None:
        # Checked again after the lock is released: acknowledgements that were
        # queued meanwhile must not be left behind. Let them accumulate unless a
        # flush was requested; otherwise each round trip would carry only a few.
        while self._done and self._is_due():
            if not self._sender.acquire(blocking=False):
                return
            try:
                self._flush_now = False
                self._send()
            except LOST as e:
                # They are sent with the next batch, or with the next heartbeat.
                self.availability.lost(e)
                return
            finally:
                self._sender.release()

    def _is_due(self) -> bool:
        return self._flush_now or len(self._done) >= BATCH or time.monotonic() - self._done_since >= BATCH_TIME

    def flush(self) -> None:
        """Send queued acknowledgements, and wait for the reply.

        Raises:
          ConnectionClosed: if Redis cannot be reached; all stay queued.
        """
        try:
            with self._sender:
                if self._done:
                    self._send()
        except LOST as e:
            raise ConnectionClosed(e) from None

    def _send(self) -> None:
        """Send all that has gathered.  The lock is held.

        Raises:
          redis.ConnectionError, ServerUnavailable: if acknowledgements were not
            accepted; they stay queued.
        """
        entries = _drain(self._waiting)
        acks = self._take_acks()
        try:
            replies, asked = self._exchange(_commands(entries, acks))
        except BaseException as e:
            # An interrupt as well (a time limit that fires late): queued
            # acknowledgements stay, and threads that wait try again.
            self._requeue_acks()
            _settle_all(entries, ConnectionClosed(e))
            if entries and isinstance(e, LOST):
                return
            raise
        self._sending.clear()
        for entry, reply in zip(entries, replies):
            _settle(entry, reply)
        self._check_replicas(replies, asked)
        self._keep_refused(acks, replies[len(entries) :])

    def _take_acks(self) -> dict[str, list[str]]:
        """Move queued acknowledgements to those being sent: member -> receipts."""
        sending = self._sending
        while self._done:
            # At each instant in one of the two: `waiting` is called by other threads.
            sending.append(self._done[0])
            self._done.popleft()
        self._done_since = time.monotonic()
        acks: dict[str, list[str]] = {}
        for member, receipt in sending:
            acks.setdefault(member, []).append(receipt)
        return acks

    def _requeue_acks(self) -> None:
        self._done.extendleft(reversed(self._sending))
        self._sending.clear()

    def _exchange(self, commands: list[Command]) -> tuple[list[Any], list[Any]]:
        """Send commands; their replies, and the replies of the replicas' confirmation."""
        if not self._replicas.wanted or (self._shortage is not None and time.monotonic() < self._ask_again):
            return self.connection.send(commands), []
        replies = self.connection.send([*commands, *self._replicas.commands])
        return replies[: len(commands)], replies[len(commands) :]

    def _check_replicas(self, replies: list[Any], asked: list[Any]) -> None:
        """Look whether enough replicas confirm, if the primary has accepted everything."""
        if self._replicas.wanted and not any(isinstance(reply, LOST) for reply in replies):
            self._look_at_replicas(asked)

    def _look_at_replicas(self, asked: list[Any]) -> None:
        """Log when too few replicas confirm what was sent, and when enough do again.

        Parameters:
          asked: Their replies; empty if they were not asked this time.
        """
        before, shortage = self._shortage, self._shortage
        if asked:
            shortage = self._shortage = self._replicas.shortage(asked)
            self._ask_again = time.monotonic() + PATIENCE * self._replicas.timeout / 1000
        if shortage is not None:
            self._report_shortage(shortage)
        elif before is not None:
            self.logger.info("Acknowledgements are confirmed by enough replicas again.")

    def _report_shortage(self, shortage: Shortage) -> None:
        if self._log_limit.allows("replicas"):
            self.logger.warning(
                "Acknowledgements are confirmed by %s. The worker continues; if Redis fails over now, finished jobs "
                "run again. Check the replicas.",
                shortage,
            )
        self._events.emit(Unreplicated(shortage))

    def _keep_refused(self, acks: dict[str, list[str]], replies: list[Any]) -> None:
        """Queue again what the server has refused for now."""
        refused: BaseException | None = None
        for (member, receipts), reply in zip(acks.items(), replies):
            if isinstance(reply, LOST):
                refused = reply
                self._done.extend((member, receipt) for receipt in receipts)
            elif isinstance(reply, Exception):
                self.logger.error(
                    "%d finished jobs of %s stay in flight, and run again when this process is gone: %s",
                    len(receipts),
                    member,
                    reply,
                )
        if refused is None:
            self.availability.back()
        else:
            self.availability.lost(refused)
            raise refused


def _commands(entries: list[_Entry], acks: dict[str, list[str]]) -> list[Command]:
    """The commands of waiting operations, then one for the acknowledgements of each member."""
    commands = [entry.command for entry in entries]
    commands += [queues.done(member, receipts) for member, receipts in acks.items()]
    return commands


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
