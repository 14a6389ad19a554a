"""A fetch that stands at the server until its queue has a job.

Two commands are sent in one write: ``BLMOVE`` of the queue's end to the list
``swf:arrived:QUEUE``, which blocks while the queue is empty, and the fetch.  The
server runs the fetch by itself as soon as the first one ends: when a job is pushed, it
is put in flight and sent here, without a further round trip.

A push wakes one process for each job, in the order in which they began to wait.  With
``BLMOVE`` of the end onto itself it would wake all.

The reply of ``BLMOVE`` is the job as well.  It is skipped while each fetch brings jobs;
after one that brought none it is read, since it may be an error.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import Any

import redis
from redis.exceptions import ResponseError

from . import keys
from .connection import Connection
from .faults import classified
from .packing import pack
from .resp3 import ErrorReply, Replies
from .scripts import Command, with_source

#: Seconds that a fetch stands before it is sent again; this finds out about a lost server, too.
STANDS = 10.0

_READ_SIZE = 65_536


class StandingRefused(Exception):
    """The server, a proxy or an access rule does not allow a command of a standing fetch."""


class StandingFetch:
    """One connection, and the fetch that stands on it.  For one thread, except :meth:`ring` and :meth:`close`.

    Attributes:
      refused: The error of the server that would not wait for the last fetch; "" if it waited.

    Raises:
      StandingRefused: if the server refuses a command of it.
      redis.ConnectionError, redis.TimeoutError: if it cannot be reached.
    """

    def __init__(self, connection: Connection) -> None:
        self._opener = connection
        #: The command that the server runs when a job is there; None if nothing stands.
        self._command: Command | None = None
        self.refused = ""
        #: The last fetch has brought jobs, so the server does wait.
        self._waits = False
        self._skips = False
        self._replies = Replies()
        self._overdue = 0.0
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        try:
            self._connection = connection.exclusive()
        except BaseException:
            self._close_bell()
            raise
        self._socket: socket.socket = self._connection._sock
        try:
            self._id = self._request("CLIENT", "ID")
            # It is not blocked: 0.  Asked now, since a fetch that cannot be ended must not begin.
            self._request("CLIENT", "UNBLOCK", self._id)
            self._request("CLIENT", "REPLY", "ON")
        except BaseException:
            self.close()
            raise
        # Not select(), which does not take file descriptors above 1023.
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self._bell, select.POLLIN)
        self._bell_number = self._bell.fileno()

    @property
    def stands(self) -> bool:
        """True if a fetch was sent, and its reply was not read."""
        return self._command is not None

    def send(self, queue: str, command: Command) -> None:
        """Let a fetch of a queue stand at the server."""
        wait: Command = ("BLMOVE", keys.queue(queue), keys.arrived(queue), "RIGHT", "RIGHT", STANDS)
        self._skips = self._waits
        self._send((("CLIENT", "REPLY", "SKIP"), wait, command) if self._skips else (wait, command))
        self._command = command
        self._overdue = time.monotonic() + STANDS + self._opener.longest_wait

    def wait(self, seconds: float) -> bool:
        """Wait for the reply; returns False after ``seconds``, or if the bell was rung.

        Raises:
          redis.TimeoutError: if the reply is overdue.
        """
        ready = {number for number, _ in self._poll.poll(max(0.0, seconds) * 1000)}
        if self._bell_number in ready:
            with contextlib.suppress(BlockingIOError):
                self._bell.recv(4096)
            ready.discard(self._bell_number)
        if not ready and time.monotonic() > self._overdue:
            raise redis.TimeoutError("The connection on which a fetch stands is silent.")
        return bool(ready)

    def read(self) -> Any:
        """Read the reply of the fetch; waits until it is there.

        Raises:
          redis.ResponseError: the error of the fetch.
          redis.ConnectionError, redis.TimeoutError: if the connection is lost, or the server refuses.
        """
        command = self._command
        assert command is not None
        waited, reply = (None, *self._receive(1)) if self._skips else self._receive(2)
        self.refused = waited.text if isinstance(waited, ErrorReply) else ""
        if isinstance(reply, ErrorReply) and reply.text.startswith("NOSCRIPT"):
            self._send((with_source(command),))
            (reply,) = self._receive(1)
        self._command = None
        self._waits = isinstance(reply, list) and reply[0] not in (b"", b"TYPE") and not self.refused
        if isinstance(reply, ErrorReply):
            raise classified(ResponseError(reply.text))
        return reply

    def end(self) -> Any:
        """End the standing fetch, and read its reply; see :meth:`read`."""
        self._opener.call("CLIENT", "UNBLOCK", self._id)
        return self.read()

    def ring(self) -> None:
        """Let :meth:`wait` return.  Any thread may call it."""
        # Full: it was rung before.  Closed: nothing waits.
        with contextlib.suppress(OSError):
            self._ringer.send(b"!")

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(Exception):
            self._opener.drop(self._connection)
        self._close_bell()

    def _close_bell(self) -> None:
        self._bell.close()
        self._ringer.close()

    def _send(self, commands: tuple[Command, ...]) -> None:
        self._connection.send_packed_command(pack(commands), check_health=False)

    def _request(self, *command: str | int) -> Any:
        self._send((command,))
        (reply,) = self._receive(1)
        if isinstance(reply, ErrorReply):
            raise StandingRefused(reply.text)
        return reply

    def _receive(self, count: int) -> list[Any]:
        """Receive so many replies.  In less time than redis-py, which reads for each of them."""
        replies = self._replies.take()
        while len(replies) < count:
            self._replies.feed(self._read(self._replies.missing))
            replies += self._replies.take()
        return replies

    def _read(self, size: int) -> bytes:
        """Read at least so many bytes.  A large payload is put together once."""
        parts: list[bytes] = []
        while size > 0:
            try:
                data = self._socket.recv(_READ_SIZE)
            except TimeoutError:
                raise redis.TimeoutError("No reply to a fetch.") from None
            except OSError as e:
                raise redis.ConnectionError(f"Error while reading from socket: {e}") from None
            if not data:
                raise redis.ConnectionError("Connection closed by server.")
            parts.append(data)
            size -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)
