"""Where one command, or one reply, of Redis's protocol ends."""

from __future__ import annotations

from collections.abc import Iterator


class Frames:
    """Cuts a stream into whole commands or replies, RESP2 or RESP3."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are complete now."""
        self._buffer += data
        found = []
        at = 0
        while (end := end_of(self._buffer, at)) > 0:
            found.append(bytes(self._buffer[at:end]))
            at = end
        del self._buffer[:at]
        return found

    def rest(self) -> bytes:
        """What is left of an incomplete frame; it is forgotten here."""
        left = bytes(self._buffer)
        self._buffer.clear()
        return left


def end_of(buffer: bytearray | bytes, at: int) -> int:
    """Where the frame that begins at ``at`` ends; -1 while it is incomplete."""
    pending = 1
    while pending:
        line = buffer.find(b"\r\n", at)
        if line < 0:
            return -1
        kind = buffer[at : at + 1]
        count = _count(buffer[at + 1 : line]) if kind in b"$=!*~>%" else 0
        at = line + 2
        if kind in b"$=!" and count >= 0:
            at += count + 2
        elif kind in b"*~>":
            pending += max(count, 0)
        elif kind == b"%":
            pending += 2 * max(count, 0)
        if at > len(buffer):
            return -1
        pending -= 1
    return at


def _count(text: bytes | bytearray) -> int:
    return int(text) if text != b"?" else -1


def is_push(reply: bytes) -> bool:
    """Whether a reply answers no command."""
    return reply.startswith(b">")


def words(command: bytes, most: int = 1 << 30) -> list[bytes]:
    """The first words of a command."""
    return list(_words(command, most))


def _words(command: bytes, most: int) -> Iterator[bytes]:
    line = command.find(b"\r\n")
    count = int(command[1:line])
    at = line + 2
    for _ in range(min(count, most)):
        line = command.find(b"\r\n", at)
        size = int(command[at + 1 : line])
        yield command[line + 2 : line + 2 + size]
        at = line + 2 + size + 2
