"""Stands between one process and Redis, counts its commands, and hurts one of them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from typing import Any

import attrs

from dramatiq_sidekiq_flow.store import scripts

from . import modes
from .modes import Mode
from .resp import Frames, is_push, words

#: Seconds that the proxy waits for a reply of Redis.
PATIENCE = 20.0

_READ = 262_144


@attrs.define
class Harm:
    """Which command is hurt, how, and what became of it.

    Attributes:
      number: 1 is the first command; 0 hurts none and only counts.
      kill: Kills the process whose commands these are.
      handshakes: Whether what opens a connection counts as well.
      seen: Commands so far.
      hit: Name of the command that was hurt; empty while it has not come.
      error: What it was refused with.
      over: Nothing more is to be done about it.
      log: Told of each command, where that is asked for.
    """

    mode: Mode
    number: int
    kill: Callable[[], None] = lambda: None
    handshakes: bool = True
    seen: int = 0
    hit: str = ""
    error: str = ""
    over: bool = False
    log: Callable[[str], None] | None = None
    #: Of a late command: its bytes with all that came behind it.
    held: bytes = b""
    repeats: Callable[[bytes], bool] = lambda command: False
    #: How many commands were repetitions of it.
    repeated: int = 0
    delivered: bool = False

    @property
    def watching(self) -> bool:
        """Whether commands still have to be looked at one by one."""
        return not self.over or self.log is not None


class Proxy:
    """One listening socket in front of a server."""

    def __init__(self, port: int) -> None:
        self.upstream_port = port
        self.harm = Harm(modes.DROP, 0)
        self._sessions: set[_Session] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen, on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 22)

    @property
    def url(self) -> str:
        """Where the process is to connect to."""
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def arm(self, harm: Harm) -> None:
        """Begin a new count; connections of the one before are closed."""
        await self.disconnect()
        self.harm = harm

    async def disconnect(self) -> None:
        """Close all connections."""
        for session in list(self._sessions):
            session.close()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
        await self.disconnect()

    async def deliver(self) -> bool:
        """Let a command that was held back arrive now; False where none was."""
        harm = self.harm
        if not harm.held or harm.delivered:
            return False
        harm.delivered = True
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream_port, limit=1 << 22)
        writer.write(harm.held)
        expected = len(Frames().feed(harm.held))
        replies = Frames()
        with contextlib.suppress(asyncio.TimeoutError, OSError):
            while expected > 0:
                data = await asyncio.wait_for(reader.read(_READ), 2.0)
                if not data:
                    break
                expected -= sum(not is_push(reply) for reply in replies.feed(data))
        writer.close()
        harm.over = True
        return True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self.upstream_port, limit=1 << 22)
            session = _Session(self, (reader, writer), upstream)
            self._sessions.add(session)
            try:
                await session.run()
            finally:
                self._sessions.discard(session)
                session.close()
        except OSError:
            writer.close()
        finally:
            self._tasks.discard(task)


class _Session:
    """One connection of the process, and its own one to Redis."""

    def __init__(self, proxy: Proxy, client: tuple[Any, Any], upstream: tuple[Any, Any]) -> None:
        self.proxy = proxy
        self.harm = proxy.harm
        self.from_client, self.to_client = client
        self.from_redis, self.to_redis = upstream
        self.commands, self.replies = Frames(), Frames()
        #: Commands that Redis has not answered yet.
        self.due = 0
        self._answered = asyncio.Event()
        self._answered.set()
        #: Replies are kept from the process.
        self.swallow = False
        self.closed = False

    async def run(self) -> None:
        """Until one side closes."""
        tasks = [asyncio.ensure_future(self._requests()), asyncio.ensure_future(self._responses())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """Close both sides; what was written before still goes out."""
        self.closed = True
        self.to_client.close()
        self.to_redis.close()

    async def _requests(self) -> None:
        while not self.closed:
            data = await self.from_client.read(_READ)
            if not data:
                # Redis reads on what was written before a process died.
                return
            if not self.harm.watching:
                self.to_redis.write(self.commands.rest() + data)
                await self.to_redis.drain()
                continue
            frames = self.commands.feed(data)
            while frames and not self.closed:
                await self._command(frames.pop(0), frames)
            await self.to_redis.drain()

    async def _responses(self) -> None:
        while True:
            data = await self.from_redis.read(_READ)
            if not data:
                return
            if not self.harm.watching:
                self.to_client.write(self.replies.rest() + data)
                await self.to_client.drain()
                continue
            for reply in self.replies.feed(data):
                if not self.swallow:
                    self.to_client.write(reply)
                if not is_push(reply):
                    self.due -= 1
                    if self.due <= 0:
                        self._answered.set()
            if not self.closed:
                await self.to_client.drain()

    def _forward(self, command: bytes) -> None:
        self.due += 1
        self._answered.clear()
        self.to_redis.write(command)

    async def _all_answered(self) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._answered.wait(), PATIENCE)

    async def _command(self, command: bytes, behind: list[bytes]) -> None:
        harm = self.harm
        if not harm.handshakes and is_handshake(command):
            self._forward(command)
            return
        harm.seen += 1
        if harm.log is not None:
            harm.log(f"{harm.seen:5} {describe(command)}")
        if harm.seen == harm.number:
            harm.hit = name_of(command)
            await self._all_answered()
            await self._hurt(command, behind)
            return
        self._forward(command)
        if harm.held and not harm.delivered and harm.repeats(command):
            harm.repeated += 1
            await self._all_answered()
            await self.proxy.deliver()

    async def _hurt(self, command: bytes, behind: list[bytes]) -> None:
        harm, mode = self.harm, self.harm.mode
        if mode is modes.REFUSE:
            harm.error = modes.error_of(harm.number, of_script=is_by_sha(command))
            self.to_client.write(f"-{harm.error}\r\n".encode())
            harm.over = True
            # What has arrived behind it is forwarded like any other.
            for other in behind:
                harm.seen += 1
                self._forward(other)
            behind.clear()
            return
        if mode is modes.LATE:
            harm.held = b"".join((command, *behind))
            harm.repeats = repetition_of(command)
            behind.clear()
            self.close()
            return
        if mode in (modes.KILL_AFTER, modes.DROP):
            self.swallow = True
            self._forward(command)
            await self.to_redis.drain()
            await self._all_answered()
        elif mode in (modes.CUT, modes.CUT_KILL):
            self.swallow = True
            self.to_redis.write(command[: len(command) // 2])
            await self.to_redis.drain()
        behind.clear()
        if mode.kills:
            harm.kill()
        self.close()
        harm.over = True


_NAMES = {script.sha.encode(): script.name for script in scripts.ALL}


def is_by_sha(command: bytes) -> bool:
    """Whether a command runs a script by its SHA."""
    return words(command, 1)[0].upper() == b"EVALSHA"


#: What redis-py opens a connection with.
_HANDSHAKE = frozenset(("HELLO", "AUTH", "SELECT", "CLIENT SETNAME", "CLIENT SETINFO", "CLIENT MAINT_NOTIFICATIONS"))


def is_handshake(command: bytes) -> bool:
    """Whether a command only opens a connection."""
    return len(command) < 500 and name_of(command) in _HANDSHAKE


def name_of(command: bytes) -> str:
    """Name of the script or the command."""
    first, *more = words(command, 2)
    name = first.decode("utf-8", "replace").upper()
    if name == "EVALSHA":
        return _NAMES.get(more[0], more[0].decode("utf-8", "replace")[:12])
    if name == "EVAL":
        sha = hashlib.sha1(more[0]).hexdigest().encode()  # noqa: S324 - Redis names scripts so
        return f"{_NAMES.get(sha, 'lengths')} (source)"
    if name in ("CLIENT", "CONFIG", "SCRIPT") and more:
        name += f" {more[0].decode('utf-8', 'replace').upper()}"
    return name


def describe(command: bytes) -> str:
    """A line about a command, for the log."""
    given = words(command)
    skip = 2 if given[0].upper() in (b"EVALSHA", b"EVAL") else 1
    text = " ".join(word.decode("utf-8", "replace") for word in given[skip:])
    return f"{name_of(command)} {text[:400]}"


def repetition_of(command: bytes) -> Callable[[bytes], bool]:
    """Whether another command is this one again: the same script or command about the same thing.

    What it carries along may differ: a plan that was made anew has new ids.
    """

    def start(command: bytes) -> tuple[Any, ...]:
        given = words(command)
        if given[0].upper() not in (b"EVALSHA", b"EVAL"):
            return tuple(given)
        count = int(given[2])
        arguments = given[3 + count :]
        return (name_of(command).removesuffix(" (source)"), given[3 : 3 + min(count, 1)], arguments[:1])

    wanted = start(command)
    return lambda other: start(other) == wanted
