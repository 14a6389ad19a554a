"""The access rules of docs/security.md, and what the users of a server have sent."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
import redis

from .processes import ROOT

Command = tuple[str, ...]

#: A line of MONITOR: the client's address, or ``lua``; and the command.
_LINE = re.compile(r"[\d.]+ \[\d+ (\S+)\] (.*)", re.S)
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"', re.S)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b"}


@attrs.frozen
class Role:
    """A user as the page has it.

    Attributes:
      name: ``worker``, ``producer`` ...
      lines: The words of each of its lines, the first one not among them.
    """

    name: str
    lines: tuple[tuple[str, ...], ...]

    @property
    def grants(self) -> list[str]:
        return [grant for line in self.lines for grant in line]

    @property
    def user(self) -> str:
        return f"flow-{self.name}"

    def password(self) -> str:
        return f"{self.name}-password"

    def rules(self, without: Iterable[str] = ()) -> list[str]:
        """Of ACL SETUSER: all that the role has, but for some grants."""
        return ["reset", "on", f">{self.password()}", *(grant for grant in self.grants if grant not in set(without))]


def roles() -> dict[str, Role]:
    """The roles of the page, as it is printed."""
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    found: dict[str, list[tuple[str, ...]]] = {}
    for user, words in re.findall(r"^ACL SETUSER flow-(\w+) (.+)$", text, re.M):
        found.setdefault(user, []).append(tuple(words.split()))
    for user, (first, *_) in found.items():
        assert first == ("reset", "on", f">{user.upper()}-PASSWORD"), first
    return {user: Role(user, tuple(lines)) for user, (_, *lines) in found.items()}


class Listener:
    """What each user sends to a server, and what its scripts call, from MONITOR."""

    def __init__(self, port: int) -> None:
        self.sent: dict[str, list[Command]] = {}
        self._users: dict[str, str] = {}
        self._looking: Any = redis.Redis(port=port)
        self._listening = redis.Redis(port=port, socket_timeout=None)
        self._lines = self._begin()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _begin(self) -> Iterator[str]:
        connection: Any = self._listening.connection_pool.get_connection()
        connection.send_command("MONITOR")
        assert connection.read_response() in (b"OK", "OK")

        def lines() -> Iterator[str]:
            while True:
                line = connection.read_response()
                yield line.decode("latin-1") if isinstance(line, bytes) else str(line)

        return lines()

    def _listen(self) -> None:
        user = ""
        for line in self._lines:
            match = _LINE.match(line)
            assert match is not None, line
            address, rest = match.groups()
            command = tuple(_unescaped(word) for word in _WORD.findall(rest))
            if command == ("ECHO", "the end"):
                return
            if address != "lua":
                user = self._user(address)
            self.sent.setdefault(user, []).append(command)

    def _user(self, address: str) -> str:
        if address not in self._users:
            self._users |= {client["addr"]: client["user"] for client in self._looking.client_list()}
        return self._users.get(address, "")

    def stop(self) -> dict[str, list[Command]]:
        """The commands of each user, those of its scripts among them."""
        self._looking.echo("the end")
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._looking.close()
        return self.sent


def _unescaped(word: str) -> str:
    return re.sub(r"\\(?:x([0-9a-f]{2})|(.))", _character, word)


def _character(match: re.Match[str]) -> str:
    code, other = match.groups()
    return chr(int(code, 16)) if code else _ESCAPES.get(other, other)


def kinds(commands: Iterable[Command]) -> list[Command]:
    """Some of each kind: alike but for digits, and with few of many arguments."""
    found: dict[Command, Command] = {}
    for command in commands:
        form = tuple(re.sub(r"[0-9a-f]{6,}|\d+", "N", word.lower())[:24] for word in command[:8])
        found.setdefault(form, command)
    return list(found.values())


def refused(client: Any, user: str, commands: Sequence[Command]) -> list[Command]:
    """Those commands that a user may not send."""
    with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command("ACL", "DRYRUN", user, *(word.encode("latin-1") for word in command))
        replies = pipe.execute(raise_on_error=False)
    return [command for command, reply in zip(commands, replies) if reply not in (b"OK", "OK", True)]
