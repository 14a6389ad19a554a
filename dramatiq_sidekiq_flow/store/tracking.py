"""Learn over one connection which lists are filled, without taking from them.

Redis remembers for a connection with ``CLIENT TRACKING ON`` which keys it has
read, and sends one ``invalidate`` when such a key changes, whoever changes it.
Reading the length of a list registers it, also from inside a script.  Nothing is
sent while nothing happens.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Any

import attrs
from redis.exceptions import ResponseError

from .connection import Connection
from .faults import LOST, classified

#: Reads, and so registers, any number of lists in one command. A key of another
#: type counts as empty.
_LENGTHS = """
local lengths = {}
for i, key in ipairs(KEYS) do
  local length = redis.pcall('LLEN', key)
  lengths[i] = type(length) == 'number' and length or 0
end
return lengths
"""


class TrackingRefused(Exception):
    """The server, a proxy or an access rule does not allow client tracking."""


@attrs.frozen
class _Invalidated:
    """What the server pushes: the keys that changed; None for all of them (FLUSHDB)."""

    keys: Sequence[bytes] | None


class Tracking:
    """A connection of its own, in RESP3, that tracks lists.  For one thread.

    Raises:
      TrackingRefused: if the server refuses to track.
      redis.ConnectionError, redis.TimeoutError: if it cannot be reached.
    """

    def __init__(self, connection: Connection) -> None:
        self._asked: deque[Sequence[str]] = deque()
        self._opener = connection
        try:
            self._connection = connection.exclusive(protocol=3)
        except ResponseError as e:
            raise TrackingRefused(str(e)) from None
        try:
            self._connection._parser.set_invalidation_push_handler(_invalidated)
            self._connection.send_command("CLIENT", "TRACKING", "ON")
            self._connection.read_response()
        except (ResponseError, AttributeError) as e:
            self.close()
            raise TrackingRefused(str(e)) from None
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """The socket, to be waited on."""
        number: int = self._connection._sock.fileno()
        return number

    def ask(self, keys: Sequence[str]) -> None:
        """Ask for the lengths of lists, and to be told when they change."""
        self._connection.send_packed_command(
            self._connection.pack_command("EVAL", _LENGTHS, len(keys), *keys), check_health=False
        )
        self._asked.append(keys)

    @property
    def waiting(self) -> bool:
        """Whether an answer is due."""
        return bool(self._asked)

    def read(self) -> tuple[list[str], list[str] | None]:
        """Read what has arrived; does not wait.

        Returns:
          Keys whose list holds something, and keys that are no longer tracked
          because they changed; None for all of them.

        Raises:
          redis.ConnectionError, redis.TimeoutError: if the connection is lost,
            or the server refuses.
        """
        filled: list[str] = []
        changed: list[str] | None = []
        while self._connection.can_read(timeout=0):
            try:
                reply = self._connection.read_response(push_request=True)
            except LOST:
                raise
            except ResponseError as e:
                raise classified(e) from None
            if not isinstance(reply, _Invalidated):
                keys = self._asked.popleft()
                filled += [key for key, length in zip(keys, reply) if length]
            elif reply.keys is None:
                changed = None
            elif changed is not None:
                changed += [key.decode("utf-8", "replace") for key in reply.keys]
        return filled, changed

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(Exception):
            self._opener.drop(self._connection)


def _invalidated(response: Any) -> _Invalidated:
    return _Invalidated(response[1])
