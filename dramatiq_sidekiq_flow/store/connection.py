"""Connection to Redis: sends commands in one write, reads their replies in one read.

All commands are safe to send twice, so after a lost reply they are sent
again, once.  A connection with unread replies (after an interrupt) is dropped,
never reused.  ``store/faults.py`` decides what an error means.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import redis
from redis.exceptions import NoScriptError, ResponseError

from ..errors import ConfigurationError
from . import packing, scripts
from .faults import FAULTS, LOST, PoolExhausted, ServerUnavailable, classified, is_of_the_connection
from .handshake import open_connection, settings_of, url_of
from .replication import NO_WAIT, ReplicaWait, question_in
from .scripts import Command

#: Seconds to wait for a free connection.
POOL_TIMEOUT = 5.0

#: If the client may open at most so many connections, all parts of a worker share them.
FEW = 5

#: Seconds between two checks for a free connection.
_PAUSE = 0.002


#: A client of redis-py, as applications pass one.
RedisClient = redis.Redis


class Caller(Protocol):
    """Sends one command, and returns its reply."""

    def call(self, *command: scripts.Argument) -> Any: ...


class Connection:
    """Sends commands to the server of a redis-py client.

    Threads may share it, and a forked child may go on using it: each call takes
    a connection that no other call uses.  Connections are opened with the
    client's settings, but kept here: the client's pool would poll a socket
    before each use.  The client's ``max_connections`` is the limit of this
    process as a whole; if none is free, a call waits for one.

    Parameters:
      client: Any redis-py client of one server (also ``Sentinel.master_for``).
    """

    #: The replicas that :meth:`write` waits for.
    replicas: ReplicaWait = NO_WAIT

    def __init__(self, client: redis.Redis) -> None:
        if client.get_encoder().decode_responses:
            raise ConfigurationError(
                "The Redis client decodes replies to text; payloads are bytes. Pass one with decode_responses=False.",
                client,
            )
        self.client = client
        self._lanes: list[_Lane] = []
        self._forget()

    @property
    def most(self) -> int | None:
        """Number of connections that this process may open; None if unlimited."""
        most: int = self.client.connection_pool.max_connections
        return most if most < 1 << 16 else None

    def lane(self, limit: int = 1) -> Connection:
        """Make a Connection to the same server that reserves ``limit`` connections.

        For acknowledgements and the heartbeat, which must not wait for other
        calls.  Returns this Connection itself if the client may open very few.
        """
        if self.most is not None and self.most <= FEW:
            return self
        lane = _Lane(self, limit)
        self._lanes.append(lane)
        return lane

    def _forget(self) -> None:
        """Begin without connections.  Those of a parent process stay open, since it uses them."""
        self._pid = os.getpid()
        self._idle: deque[Any] = deque()
        # A permit for each connection that may still be opened. A deque, since a
        # fork or a green thread could find a lock held.
        self._permits: deque[None] | None = None
        if self.most is not None:
            self._permits = deque([None] * self.most)

    @property
    def url(self) -> str:
        """URL of the server, without the password."""
        return url_of(self.client)

    @property
    def longest_wait(self) -> float:
        """Most seconds that a command may block, so that the socket does not time out."""
        timeout: float = settings_of(self.client)["socket_timeout"]
        return timeout / 2

    def call(self, *command: scripts.Argument) -> Any:
        """Send one command and return its reply; raises its error."""
        reply = self.send((command,))[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def write(self, *command: scripts.Argument) -> Any:
        """As :meth:`call`, for commands that create jobs: also waits for :attr:`replicas`, in the same round trip.

        Raises:
          Unconfirmed: if too few replicas confirm it in time.
        """
        reply, *asked = self.send((command, *self.replicas.commands))
        if isinstance(reply, Exception):
            raise reply
        if asked:
            self.replicas.check(reply, asked)
        return reply

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one write.  The error of a command is returned in place of its reply.

        Raises:
          redis.ConnectionError, redis.TimeoutError: if the server cannot be
            reached twice in a row.
        """
        return self.send_counted(commands)[0]

    def send_counted(self, commands: Sequence[Command]) -> tuple[list[Any], int]:
        """As :meth:`send`; also returns how often the commands were sent, 1 or 2."""
        try:
            replies = self._send(commands)
        except PoolExhausted:
            raise
        except LOST:
            self._close_all()
            return self._send(commands), 2
        if ServerUnavailable in map(type, replies) and any(map(_needs_new_connection, replies)):
            # After a failover the server of the old connection may be a replica.
            self._close_all()
            return self._send(commands), 2
        return replies, 1

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        connection = self._take()
        clean = False
        try:
            replies = self._exchange(connection, commands)
            if NoScriptError in map(type, replies):
                unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
                self._send_sources(connection, commands, unknown, replies)
            clean = True
        finally:
            if clean:
                self._idle.append(connection)
            else:
                self.drop(connection)
        for i, reply in enumerate(replies):
            if isinstance(reply, ResponseError):
                replies[i] = classified(reply)
        return replies

    def _send_sources(
        self, connection: Any, commands: Sequence[Command], unknown: Sequence[int], replies: list[Any]
    ) -> None:
        """Send scripts that the server does not know again, with their source, and put in their replies."""
        # WAIT is sent again, too: its first answer did not cover these scripts.
        question = question_in(commands)
        repeated = [scripts.with_source(commands[i]) for i in unknown]
        repeated += [commands[i] for i in question]
        for i, reply in zip([*unknown, *question], self._exchange(connection, repeated)):
            replies[i] = reply

    @staticmethod
    def _exchange(connection: Any, commands: Sequence[Command]) -> list[Any]:
        connection.send_packed_command(packing.parts(commands))
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(connection.read_response())
            except LOST:
                raise
            except ResponseError as e:
                replies.append(e)
        return replies

    # -- connections ----------------------------------------------------------

    def _take(self) -> Any:
        """Take an open connection out of the pool; waits if all are in use.

        Raises:
          PoolExhausted: if none becomes free in time.
        """
        self._mind_fork()
        try:
            return self._idle.pop()
        except IndexError:
            return self._wait_for_one()

    def _wait_for_one(self) -> Any:
        deadline = time.monotonic() + POOL_TIMEOUT
        while True:
            with contextlib.suppress(IndexError):
                return self._idle.pop()
            if self._has_permit():
                try:
                    return self._make()
                except BaseException:
                    self._give_permit()
                    raise
            if time.monotonic() >= deadline:
                raise PoolExhausted(
                    f"All {self.most} connections to Redis are in use. Raise max_connections of the broker's client."
                )
            time.sleep(_PAUSE)

    def _make(self) -> Any:
        return self.open()

    def _has_permit(self) -> bool:
        if self._permits is None:
            return True
        try:
            self._permits.pop()
        except IndexError:
            return False
        return True

    def _give_permit(self) -> None:
        if self._permits is not None:
            self._permits.append(None)

    def _close_all(self) -> None:
        """Close the idle connections: if one has lost the server, so have the others."""
        self.close()

    def _mind_fork(self) -> None:
        if self._pid != os.getpid():
            self._forget()

    def exclusive(self, **settings: Any) -> Any:
        """Open a connection for the caller alone, who ends it with :meth:`drop`.

        Parameters:
          **settings: Settings of redis-py's connection that replace the client's.
        """
        # It takes the place of another one, to keep within the limit.
        self._take().disconnect()
        try:
            return self.open(**settings)
        except BaseException:
            self._give_permit()
            raise

    def drop(self, connection: Any) -> None:
        """Close a connection; another one may be opened in its place."""
        connection.disconnect()
        self._give_permit()

    def open(self, **settings: Any) -> Any:
        """Open a connection; see :func:`open_connection`."""
        return open_connection(self.client, **settings)

    def close(self) -> None:
        """Close the connections that are not in use."""
        for lane in self._lanes:
            lane.close()
        self._mind_fork()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return
            self.drop(connection)

    @contextlib.contextmanager
    def redirected(self, url: str) -> Iterator[None]:
        """Connect to another server inside a ``with`` block.  For tests, while nothing else uses this Connection."""
        before = self.client
        client = redis.Redis.from_url(url)
        self.close()
        for connection in (self, *self._lanes):
            connection.client = client
        try:
            yield
        finally:
            self.close()
            client.close()
            for connection in (self, *self._lanes):
                connection.client = before


def _needs_new_connection(reply: Any) -> bool:
    return isinstance(reply, ServerUnavailable) and is_of_the_connection(reply.reply)


class _Lane(Connection):
    """Reserves some connections of another Connection."""

    def __init__(self, parent: Connection, limit: int) -> None:
        self._parent = parent
        self._limit = limit
        super().__init__(parent.client)

    @property
    def most(self) -> int | None:
        return self._limit

    def _make(self) -> Any:
        return self._parent._take()

    def drop(self, connection: Any) -> None:
        """See Connection."""
        self._parent.drop(connection)
        self._give_permit()

    def _close_all(self) -> None:
        self._parent._close_all()


def connect(url: str, **options: Any) -> Connection:
    """Connect to a URL (``redis://``, ``rediss://``, ``unix://``).

    Raises:
      ConfigurationError: if it is not such a URL; the error does not repeat it, since it may hold a password.
    """
    try:
        client = redis.Redis.from_url(url, **options)
    except (ValueError, TypeError) as e:
        url, options = "", {}
        raise ConfigurationError(f"The URL of the Redis cannot be used: {e}") from None
    return Connection(client)


__all__ = ["FAULTS", "LOST", "Connection", "ServerUnavailable", "connect"]
