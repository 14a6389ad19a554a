"""Group commit: acknowledgements that meet share one round trip.

Whoever holds the line sends what has gathered meanwhile.

A job without a workflow is *done* without waiting: its acknowledgement is
handed to whoever has the line, and the thread goes on with the next job.  A
crash before it is sent means that the job runs again, which is what may
happen anyway until Redis has answered.  Everything else waits for its reply.

Where replicas are to have the acknowledgements, each round trip waits for them
once, however many jobs it acknowledges.  With too few of them the worker goes
on: the jobs are done, and Redis has it.  It then asks again after ten times as
long as it has waited, so that missing replicas cost a worker a tenth of its time
at most.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, TypeVar

from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from ..store import queues
from ..store.connection import LOST, Connection
from ..store.outcomes import Operation
from ..store.replication import NO_WAIT, ReplicaWait, Shortage
from ..store.scripts import Command
from .availability import Availability
from .events import Events, Unreplicated
from .log_limit import LogLimit

#: While more jobs are about to finish, this many are acknowledged together,
#: or as many as have gathered within this time, in seconds.
BATCH = 32
BATCH_TIME = 0.005

#: Where too few replicas have confirmed a round trip, how many times as long as
#: was waited for them the next ones do not wait.
PATIENCE = 10


T = TypeVar("T")


class _Entry:
    __slots__ = ("command", "error", "reply", "settled")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.reply: Any = None
        self.error: BaseException | None = None
        self.settled = False


class GroupCommit:
    """Sends commands of many threads together.  Each must be safe to send twice.

    Parameters:
      replicas: Those that are to have what is sent.
      events: Told when too few of them do.
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
        #: Nobody else may come soon to take along what is done.
        self._pressing = False
        self._line = threading.Lock()
        self._replicas = replicas
        self._events = events or Events()
        self._log_limit = LogLimit()
        #: What was wrong when replicas were asked last, and when to ask again.
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
        with self._line:
            if not entry.settled:
                try:
                    self._send()
                except LOST:
                    # Of acknowledgements that went along: they are kept.
                    if not entry.settled:
                        raise
        # What was handed over while this thread had the line.
        self._send_due()
        if entry.error is not None:
            raise entry.error
        if not entry.settled:
            # Whoever took this entry along was interrupted before sending it.
            raise ConnectionClosed(ConnectionResetError("the round trip was interrupted"))
        return operation.read(entry.reply)

    def waiting(self) -> list[tuple[str, str]]:
        """Member and receipt of finished jobs whose acknowledgement waits, or is being sent."""
        return [*list(self._sending), *list(self._done)]

    def done(self, member: str, receipt: str, *, more: bool = False) -> None:
        """Take a finished job out of flight, soon.  Those that meet become one HDEL.

        Parameters:
          more: Other jobs of this process are about to finish, whose
            acknowledgement may take this one along.
        """
        if not self._done:
            self._done_since = time.monotonic()
        self._done.append((member, receipt))
        if not more:
            self._pressing = True
        self._send_due()

    def hand_over(self) -> None:
        """Send what is done, unless another thread has the line: that one takes it along."""
        if self._done:
            self._pressing = True
            self._send_due()

    def _send_due(self) -> None:
        # Looked at again after the line is free: what was handed over while
        # this thread held it must not be left lying. What is not pressing is
        # left to gather: sent at once, each round trip would carry only what
        # has come during the one before.
        while self._done and self._is_due():
            if not self._line.acquire(blocking=False):
                return
            try:
                self._pressing = False
                self._send()
            except LOST as e:
                # They are sent with the next ones, or with the next heartbeat.
                self.availability.lost(e)
                return
            finally:
                self._line.release()

    def _is_due(self) -> bool:
        return self._pressing or len(self._done) >= BATCH or time.monotonic() - self._done_since >= BATCH_TIME

    def flush(self) -> None:
        """Send what is left, and wait for it.

        Raises:
          ConnectionClosed: when Redis cannot be reached; nothing is forgotten.
        """
        try:
            with self._line:
                if self._done:
                    self._send()
        except LOST as e:
            raise ConnectionClosed(e) from None

    def _send(self) -> None:
        """Send all that has gathered.  The line is held."""
        entries, done = _drain(self._waiting), self._sending
        while self._done:
            # At each instant in one of the two: `waiting` is asked by other threads.
            done.append(self._done[0])
            self._done.popleft()
        self._done_since = time.monotonic()
        finished: dict[str, list[str]] = {}
        for member, receipt in done:
            finished.setdefault(member, []).append(receipt)
        commands = [entry.command for entry in entries]
        commands += [queues.done(member, receipts) for member, receipts in finished.items()]
        try:
            replies, asked = self._exchange(commands)
        except BaseException as e:
            # Also an interrupt (a time limit that fires late): what others
            # handed over stays, and who waits tries again.
            self._done.extendleft(reversed(done))
            done.clear()
            for entry in entries:
                entry.error = ConnectionClosed(e)
                entry.settled = True
            if entries and isinstance(e, LOST):
                return
            raise
        done.clear()
        for entry, reply in zip(entries, replies):
            if isinstance(reply, LOST):
                entry.error = ConnectionClosed(reply)
            elif isinstance(reply, Exception):
                entry.error = reply
            entry.reply = reply
            entry.settled = True
        if self._replicas.wanted and not any(isinstance(reply, LOST) for reply in replies):
            self._look_at_replicas(asked)
        self._keep_refused(finished, replies[len(entries) :])

    def _exchange(self, commands: list[Command]) -> tuple[list[Any], list[Any]]:
        """Send commands; their replies, and those of the question to the replicas."""
        if not self._replicas.wanted or (self._shortage is not None and time.monotonic() < self._ask_again):
            return self.connection.send(commands), []
        replies = self.connection.send([*commands, *self._replicas.commands])
        return replies[: len(commands)], replies[len(commands) :]

    def _look_at_replicas(self, asked: list[Any]) -> None:
        """Say when too few replicas have what was sent, and when they have it again.

        Parameters:
          asked: What they have answered; empty where they were not asked, for now.
        """
        before, shortage = self._shortage, self._shortage
        if asked:
            shortage = self._shortage = self._replicas.shortage(asked)
            self._ask_again = time.monotonic() + PATIENCE * self._replicas.timeout / 1000
        if shortage is None:
            if before is not None:
                self.logger.info("Acknowledgements are confirmed by enough replicas again.")
            return
        if self._log_limit.allows("replicas"):
            self.logger.warning(
                "Acknowledgements are confirmed by %s. The worker goes on; if Redis fails over now, jobs that are "
                "done run again. Look at the replicas.",
                shortage,
            )
        self._events.tell(Unreplicated(shortage))

    def _keep_refused(self, finished: dict[str, list[str]], replies: list[Any]) -> None:
        """Acknowledge again, later, what the server refused for now."""
        refused: BaseException | None = None
        for (member, receipts), reply in zip(finished.items(), replies):
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


def _drain(queue: deque[Any]) -> list[Any]:
    found = []
    while queue:
        found.append(queue.popleft())
    return found
