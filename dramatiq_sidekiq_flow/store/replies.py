"""Reads the replies to commands, of RESP2 and RESP3.

Most replies arrive whole and are short, and none of them is decoded to text, so this
takes less time than redis-py's parser in Python.  A number, the reply to a push, takes
less than with hiredis; an array takes more.  The protocol:
https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import redis
from redis.connection import DefaultParser
from redis.exceptions import ResponseError

#: Bytes to receive at once.
_SIZE = 65_536

#: First bytes of a number and of a string.
_NUMBER, _STRING = b":$"

#: Stands for a message that is not the reply to a command.
_PUSH: Any = object()


def read_replies(source: socket.socket, count: int) -> list[Any]:
    """Read the replies to ``count`` commands.  The error of a command is returned in place of its reply.

    Messages that the server sends unasked are dropped.

    Raises:
      redis.ConnectionError, redis.TimeoutError: if the connection is lost, or if a
        reply says that the server does not accept commands.
    """
    data = _receive(source)
    if count == 1 and data[:1] == b":" and data[-2:] == b"\r\n" and data.count(b"\n") == 1:
        return [int(data[1:-2])]
    return _Replies(source, data).take(count)


def _receive(source: socket.socket) -> bytes:
    try:
        data = source.recv(_SIZE)
    except TimeoutError:
        raise redis.TimeoutError("Timeout reading from socket") from None
    except OSError as e:
        raise redis.ConnectionError(f"Error while reading from socket: {e.args}") from None
    if not data:
        raise redis.ConnectionError("Connection closed by server.")
    return data


class _Replies:
    """Parser of the bytes that a socket receives.

    Parameters:
      data: Bytes that are received already.
    """

    def __init__(self, source: socket.socket, data: bytes) -> None:
        self._source = source
        self._data = data
        self._at = 0

    def take(self, count: int) -> list[Any]:
        """Read as many replies, and the messages around them."""
        replies: list[Any] = []
        while len(replies) < count or self._at < len(self._data):
            reply = self.value()
            if reply is _PUSH:
                continue
            if isinstance(reply, redis.ConnectionError):
                raise reply
            replies.append(reply)
        if len(replies) > count:
            raise redis.ConnectionError("Error while reading from socket: more replies than commands")
        return replies

    def value(self) -> Any:
        """Read one value."""
        line = self._line()
        read_rest = _TYPES.get(line[:1])
        if read_rest is None:
            raise redis.InvalidResponse(f"Protocol Error: {line[:100]!r}")
        return read_rest(self, line[1:])

    def _line(self) -> bytes:
        while True:
            end = self._data.find(b"\r\n", self._at)
            if end >= 0:
                break
            self._data = self._data[self._at :] + _receive(self._source)
            self._at = 0
        line = self._data[self._at : end]
        self._at = end + 2
        return line

    def bulk(self, line: bytes) -> bytes | None:
        """Read the rest of a string."""
        length = int(line)
        if length < 0:
            return None
        end = self._at + length
        if len(self._data) < end + 2:
            self._fill(length + 2)
            end = length
        value = self._data[self._at : end]
        self._at = end + 2
        return value

    def _fill(self, size: int) -> None:
        """Receive until so many bytes are there."""
        parts = [self._data[self._at :]]
        missing = size - len(parts[0])
        while missing > 0:
            parts.append(_receive(self._source))
            missing -= len(parts[-1])
        self._data, self._at = b"".join(parts), 0

    def array(self, line: bytes) -> list[Any] | None:
        """Read the rest of an array or a set."""
        length = int(line)
        return None if length < 0 else [self._element() for _ in range(length)]

    def _element(self) -> Any:
        """As :meth:`value`, with fewer calls for a number or a string that has arrived."""
        data, start = self._data, self._at
        end = data.find(b"\r\n", start)
        if end > 0:
            kind = data[start]
            if kind == _NUMBER:
                self._at = end + 2
                return int(data[start + 1 : end])
            if kind == _STRING:
                stop = end + 2 + int(data[start + 1 : end])
                if end + 2 <= stop <= len(data) - 2:
                    self._at = stop + 2
                    return data[end + 2 : stop]
        return self.value()

    def map(self, line: bytes) -> dict[Any, Any]:
        """Read the rest of a map."""
        return {self.value(): self.value() for _ in range(int(line))}

    def attribute(self, line: bytes) -> Any:
        """Drop what is said about a value; read the value."""
        self.map(line)
        return self.value()

    def push(self, line: bytes) -> Any:
        """Drop a message."""
        self.array(line)
        return _PUSH


def _error(text: bytes | None) -> ResponseError | redis.ConnectionError:
    parse: Callable[[str], ResponseError | redis.ConnectionError] = DefaultParser.parse_error
    return parse((text or b"").decode("utf-8", "replace"))


_TYPES: dict[bytes, Callable[[_Replies, bytes], Any]] = {
    b"+": lambda replies, line: line,
    b"-": lambda replies, line: _error(line),
    b"!": lambda replies, line: _error(replies.bulk(line)),
    b":": lambda replies, line: int(line),
    b"(": lambda replies, line: int(line),
    b",": lambda replies, line: float(line),
    b"#": lambda replies, line: line == b"t",
    b"_": lambda replies, line: None,
    b"$": _Replies.bulk,
    b"=": lambda replies, line: (replies.bulk(line) or b"")[4:],
    b"*": _Replies.array,
    b"~": _Replies.array,
    b"%": _Replies.map,
    b"|": _Replies.attribute,
    b">": _Replies.push,
}
