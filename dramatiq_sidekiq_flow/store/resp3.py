"""RESP3 parser for the connection that receives invalidation messages.

redis-py and hiredis pass such messages on in ways that differ between their
versions.  This parser knows the types that the tracking connection receives,
and is meant for short replies.  The protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs


@attrs.frozen
class Push:
    """A message that is not the reply to a command."""

    parts: list[Any]


@attrs.frozen
class ErrorReply:
    """A reply that is an error."""

    text: str


class _Incomplete(Exception):
    """More bytes are needed."""


class Replies:
    """Parses received bytes into complete replies."""

    def __init__(self) -> None:
        #: At least so many bytes are needed for the next reply.
        self.missing = 1
        self._buffer = b""
        self._at = 0

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._buffer += data

    def take(self) -> list[Any]:
        """Take all complete replies."""
        replies: list[Any] = []
        self._at, self.missing = 0, 1
        while self._at < len(self._buffer):
            start = self._at
            try:
                replies.append(self._value())
            except _Incomplete:
                self._at = start
                break
        self._buffer = self._buffer[self._at :]
        return replies

    def _value(self) -> Any:
        at = self._at
        end = self._buffer.find(b"\r\n", at)
        if end < 0:
            raise _Incomplete
        kind, line = self._buffer[at : at + 1], self._buffer[at + 1 : end]
        self._at = end + 2
        read = _TYPES.get(kind)
        if read is None:
            raise ValueError(f"This is not RESP3: {(kind + line)[:100]!r}")
        return read(self, line)

    def _bulk(self, line: bytes) -> bytes | None:
        length = int(line)
        if length < 0:
            return None
        end = self._at + length
        if len(self._buffer) < end + 2:
            self.missing = end + 2 - len(self._buffer)
            raise _Incomplete
        data = self._buffer[self._at : end]
        self._at = end + 2
        return data

    def _array(self, line: bytes) -> list[Any] | None:
        length = int(line)
        return None if length < 0 else [self._value() for _ in range(length)]

    def _push(self, line: bytes) -> Push:
        return Push([self._value() for _ in range(int(line))])

    def _map(self, line: bytes) -> list[Any]:
        return [self._value() for _ in range(2 * int(line))]


def _error(replies: Replies, line: bytes) -> ErrorReply:
    return ErrorReply(line.decode("utf-8", "replace"))


def _bulk_error(replies: Replies, line: bytes) -> ErrorReply:
    return ErrorReply((replies._bulk(line) or b"").decode("utf-8", "replace"))


_TYPES: dict[bytes, Callable[[Replies, bytes], Any]] = {
    b"+": lambda replies, line: line,
    b"-": _error,
    b"!": _bulk_error,
    b":": lambda replies, line: int(line),
    b",": lambda replies, line: float(line),
    b"#": lambda replies, line: line == b"t",
    b"_": lambda replies, line: None,
    b"(": lambda replies, line: int(line),
    b"$": Replies._bulk,
    b"=": Replies._bulk,
    b"*": Replies._array,
    b"~": Replies._array,
    b"%": Replies._map,
    b">": Replies._push,
}
