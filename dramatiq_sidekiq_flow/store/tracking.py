"""Client tracking: watches many lists over one connection, without popping from them.

Redis remembers which keys a connection with ``CLIENT TRACKING ON`` has read, and
sends one ``invalidate`` when any client changes such a key.  Reading the length
of a list registers it, also inside a script.  Idle lists cause no traffic.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import ResponseError

from .connection import Connection
from .faults import ServerUnavailable, classified
from .packing import pack
from .resp3 import ErrorReply, Push, Replies
from .scripts import Command

#: Reads the lengths of any number of lists in one command, and so registers them.
#: A key of another type counts as empty.
_LENGTHS = """
local lengths = {}
for i, key in ipairs(KEYS) do
  local length = redis.pcall('LLEN', key)
  lengths[i] = type(length) == 'number' and length or 0
end
return lengths
"""

_READ_SIZE = 65_536


class TrackingRefused(Exception):
    """The server, a proxy or an access rule does not allow client tracking."""


class TrackingLost(redis.ConnectionError):
    """The tracking connection is lost, or does not answer."""


class Tracking:
    """Separate RESP3 connection that tracks lists.  For one thread.

    redis-py opens it (address, TLS, password, database); this class reads the replies.

    Raises:
      TrackingRefused: if the server refuses tracking.
      redis.ConnectionError, redis.TimeoutError: if it cannot be reached.
    """

    def __init__(self, connection: Connection) -> None:
        self._asked: deque[Sequence[str]] = deque()
        self._replies = Replies()
        self._opener = connection
        try:
            self._connection = connection.exclusive()
        except ResponseError as e:
            raise classified(e) from None
        self._socket: socket.socket = self._connection._sock
        # Not select(), which does not take file descriptors above 1023.
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        try:
            self._begin(("HELLO", 3))
            self._begin(("CLIENT", "TRACKING", "ON"))
        except BaseException:
            self.close()
            raise

    def _begin(self, command: tuple[str | int, ...]) -> None:
        """Send a command of the handshake and wait for its reply."""
        self._send(command)
        while True:
            if not self.wait(self._opener.longest_wait):
                raise redis.TimeoutError(f"No reply to {command[0]}.")
            for reply in self._receive():
                if isinstance(reply, ErrorReply):
                    raise TrackingRefused(reply.text)
                if not isinstance(reply, Push):
                    return

    def wait(self, seconds: float) -> bool:
        """Wait until data arrives; returns False after ``seconds``."""
        return bool(self._poll.poll(max(0.0, seconds) * 1000))

    def ask(self, keys: Sequence[str]) -> None:
        """Ask for the lengths of lists, and register them for notices of changes."""
        self._send(("EVAL", _LENGTHS, len(keys), *keys))
        self._asked.append(keys)

    @property
    def waiting(self) -> bool:
        """True if a reply to :meth:`ask` is still due."""
        return bool(self._asked)

    def read(self) -> tuple[list[str], list[str] | None]:
        """Read the replies and notices that have arrived; does not wait.

        Returns:
          Keys of lists that are not empty, and keys that changed, whose
          tracking has ended; None for all of them.

        Raises:
          redis.ConnectionError, redis.TimeoutError: if the connection is lost,
            or the server refuses.
        """
        filled: list[str] = []
        changed: list[str] | None = []
        for reply in self._receive():
            if isinstance(reply, ErrorReply):
                raise ServerUnavailable(ResponseError(reply.text))
            if not isinstance(reply, Push):
                keys = self._asked.popleft()
                filled += [key for key, length in zip(keys, reply) if length]
            elif reply.parts[0] == b"invalidate":
                changed = _with_invalidated(changed, reply.parts[1])
        return filled, changed

    def _send(self, command: Command) -> None:
        self._connection.send_packed_command(pack((command,)), check_health=False)

    def _receive(self) -> list[Any]:
        """Receive and parse all data that has arrived."""
        limit = self._socket.gettimeout()
        self._socket.settimeout(0)
        try:
            while True:
                data = self._socket.recv(_READ_SIZE)
                if not data:
                    raise redis.ConnectionError("Connection closed by server.")
                self._replies.feed(data)
        except (TimeoutError, BlockingIOError):
            pass
        except OSError as e:
            if "did not complete" not in str(e):  # an SSL socket with nothing to read yet
                raise redis.ConnectionError(f"Error while reading from socket: {e}") from None
        finally:
            with contextlib.suppress(OSError):
                self._socket.settimeout(limit)
        return self._replies.take()

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(Exception):
            self._opener.drop(self._connection)


def _with_invalidated(changed: list[str] | None, keys: list[bytes] | None) -> list[str] | None:
    """Add the keys of a notice; None stands for all keys, which FLUSHDB and FLUSHALL send."""
    if changed is None or keys is None:
        return None
    changed += [key.decode("utf-8", "replace") for key in keys]
    return changed
