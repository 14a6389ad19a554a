"""Acknowledgements that go with the mark of the thread's next job.

A thread that has finished a job without a workflow, and whose next job waits in
the process to be marked as begun (``broker/begin.py``), sends both in one round
trip.  If no mark follows, the acknowledgement is sent as usual.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..store import queues
from ..store.connection import Connection
from ..store.scripts import Argument

#: Sends an acknowledgement: member and receipt (``GroupCommit.ack``).
Send = Callable[[str, str], None]


class OwedAcks:
    """The acknowledgements that threads of one process owe, one for each thread at most.

    Parameters:
      send: Function that sends one without a mark.
    """

    def __init__(self, connection: Connection, send: Send) -> None:
        self.connection = connection
        self._send = send
        #: Thread -> member and receipt.  An item stays until the reply is there, or it is handed on.
        self._owed: dict[int, tuple[str, str]] = {}
        #: Guards the removal by another thread, while the owner goes on with its next job.
        self._lock = threading.Lock()

    def waiting(self) -> list[tuple[str, str]]:
        """Member and receipt of each."""
        return list(self._owed.copy().values())

    def owe(self, member: str, receipt: str) -> None:
        """Keep the acknowledgement of this thread for :meth:`call`; :meth:`send` must follow if that does not."""
        self.send()
        with self._lock:
            self._owed[threading.get_ident()] = (member, receipt)

    def call(self, *command: Argument) -> Any:
        """Send a command, with the acknowledgement that this thread owes; returns the reply to the command.

        Raises:
          redis.ConnectionError, redis.TimeoutError: if Redis cannot be reached; the
            acknowledgement stays owed.
        """
        thread = threading.get_ident()
        owed = self._owed.get(thread)
        if owed is None:
            return self.connection.call(*command)
        member, receipt = owed
        acknowledged, reply = self.connection.send((queues.done(member, (receipt,)), command))
        if isinstance(acknowledged, Exception):
            self.send()
        else:
            self._owed.pop(thread, None)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def send(self) -> None:
        """Send the acknowledgement that this thread owes, if any."""
        if self._owed:
            self._hand_on(threading.get_ident())

    def send_all(self) -> None:
        """Send what threads owe that do not come to it: they are paused, or have ended.  Twice does no harm."""
        for thread in list(self._owed):
            self._hand_on(thread)

    def _hand_on(self, thread: int) -> None:
        owed = self._owed.get(thread)
        if owed is not None:
            self._send(*owed)
            with self._lock:
                # The thread may owe the next one by now.
                if self._owed.get(thread) is owed:
                    self._owed.pop(thread, None)
