"""One way to Redis: commands out in one write, replies back in one read.

Everything sent here is safe to send twice, so a lost reply is answered by
sending again, once.  A connection whose replies were not all read (an interrupt
in the middle) is dropped, never reused.  What an error means is decided in
``store/faults.py``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ResponseError
from redis.retry import Retry

from ..errors import ConfigurationError
from . import scripts
from .faults import FAULTS, LOST, PoolExhausted, ServerUnavailable, classified, is_of_the_connection
from .replication import NO_WAIT, ReplicaWait, question_in
from .scripts import Command

#: How a connection ends, in OpenSSL's words and the system's, when the other side wants no more of it.
_CLOSED_BY_TLS = ("EOF occurred", "CERTIFICATE_REQUIRED", "reset by peer", "closed by server", "Broken pipe")

#: Seconds until a silent connection counts as lost, where the client says nothing.
SOCKET_TIMEOUT = 5.0

#: A client that may open no more connections than this shares them among all parts of a worker.
FEW = 5

#: Seconds between two looks for a free connection.
_PAUSE = 0.002


class Connection:
    """Sends commands to the server of a redis-py client.

    Safe to share between threads and to inherit by a fork: each call has a
    connection of its own.  Connections are opened with the client's settings and
    kept here, not in the client's pool, which would poll a socket before each use.
    The client's ``max_connections`` holds for this process as a whole; with none
    free, a call waits for one.

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
        """How many connections this process may open; None: any number."""
        most: int = self.client.connection_pool.max_connections
        return None if most >= 1 << 16 else most

    def lane(self, limit: int = 1) -> Connection:
        """A Connection to the same server that keeps ``limit`` connections to itself.

        What must not wait for others (the acknowledgements, the heartbeat) has its
        own.  Where the client may open very few, this very Connection.
        """
        if self.most is not None and self.most <= FEW:
            return self
        lane = _Lane(self, limit)
        self._lanes.append(lane)
        return lane

    def _forget(self) -> None:
        """Begin without connections.  Those of a parent process are its own, and not shut down."""
        self._pid = os.getpid()
        self._idle: deque[Any] = deque()
        # A permit for each connection that may still be opened. No deque needs a
        # lock, which a fork or a green thread could find held.
        self._permits: deque[None] | None = None
        if self.most is not None:
            self._permits = deque([None] * self.most)

    @property
    def url(self) -> str:
        """Where it leads, without the password."""
        pool = self.client.connection_pool
        options = pool.connection_kwargs
        database = options.get("db", 0) or 0
        if "path" in options:
            return f"unix://{options['path']}"
        if hasattr(pool, "service_name"):
            return f"sentinel://{pool.service_name}/{database}"
        scheme = "rediss" if issubclass(pool.connection_class, redis.SSLConnection) else "redis"
        return f"{scheme}://{options.get('host', '?')}:{options.get('port', '?')}/{database}"

    @property
    def longest_wait(self) -> float:
        """How many seconds a command may block before the socket gives up."""
        timeout: float = self._settings()["socket_timeout"]
        return timeout / 2

    def call(self, *command: scripts.Argument) -> Any:
        """Send one command; its error is raised."""
        reply = self.send((command,))[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def write(self, *command: scripts.Argument) -> Any:
        """As :meth:`call`, for what makes jobs: waits for :attr:`replicas`, in the same round trip.

        Raises:
          Unconfirmed: if fewer replicas have confirmed it in time.
        """
        reply, *asked = self.send((command, *self.replicas.commands))
        if isinstance(reply, Exception):
            raise reply
        if asked:
            self.replicas.check(reply, asked)
        return reply

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one write.  Errors of single ones are returned in place.

        Raises:
          redis.ConnectionError, redis.TimeoutError: if the server cannot be
            reached twice in a row.
        """
        return self.send_counted(commands)[0]

    def send_counted(self, commands: Sequence[Command]) -> tuple[list[Any], int]:
        """As :meth:`send`; also how often the commands were sent, 1 or 2."""
        try:
            replies = self._send(commands)
        except PoolExhausted:
            raise
        except LOST:
            self._close_all()
            return self._send(commands), 2
        if any(isinstance(reply, ServerUnavailable) and is_of_the_connection(reply.reply) for reply in replies):
            # After a failover the old connection leads to what is now a replica.
            self._close_all()
            return self._send(commands), 2
        return replies, 1

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        connection = self._take()
        clean = False
        try:
            replies = self._exchange(connection, commands)
            unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if unknown:
                whole = [scripts.with_source(commands[i]) for i in unknown]
                # What the replicas were asked was not about these scripts.
                question = question_in(commands)
                whole += [commands[i] for i in question]
                unknown += question
                for i, reply in zip(unknown, self._exchange(connection, whole)):
                    replies[i] = reply
            clean = True
        finally:
            if clean:
                self._idle.append(connection)
            else:
                self.drop(connection)
        return [classified(reply) if isinstance(reply, ResponseError) else reply for reply in replies]

    @staticmethod
    def _exchange(connection: Any, commands: Sequence[Command]) -> list[Any]:
        connection.send_packed_command(connection.pack_commands(commands))
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
        """An open connection that no other thread uses; waits for one where all are in use."""
        self._mind_fork()
        deadline = time.monotonic() + SOCKET_TIMEOUT
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
        """Drop what is idle: a server that is lost to one connection is lost to all."""
        self.close()

    def _mind_fork(self) -> None:
        if self._pid != os.getpid():
            self._forget()

    def exclusive(self, **settings: Any) -> Any:
        """Open a connection that is the caller's own, until it is given to :meth:`drop`.

        Parameters:
          **settings: Of redis-py's connection, in place of the client's.
        """
        # The place of another one, so that no more are open than are allowed.
        self._take().disconnect()
        try:
            return self.open(**settings)
        except BaseException:
            self._give_permit()
            raise

    def drop(self, connection: Any) -> None:
        """Close a connection; another one may take its place."""
        connection.disconnect()
        self._give_permit()

    def open(self, **settings: Any) -> Any:
        """Open a connection with the client's settings, and these in place of some of them.

        Raises:
          ServerUnavailable: if the server refuses the handshake for now.
        """
        connection = self.client.connection_pool.connection_class(**{**self._settings(), **settings})
        try:
            connection.connect()
        except redis.RedisError as e:
            error: Exception = self._with_cure(self._without_password(e))
            if isinstance(error, ResponseError):
                error = classified(error)
            # Without redis-py's frames, whose locals have the password, and which a log may show.
            raise error.with_traceback(None) from None
        return connection

    def _with_cure(self, error: redis.RedisError) -> redis.RedisError:
        """The error; with TLS 1.3 a server that misses a certificate closes the connection without a reason."""
        pool, text = self.client.connection_pool, str(error)
        if not issubclass(pool.connection_class, redis.SSLConnection) or pool.connection_kwargs.get("ssl_certfile"):
            return error
        if not isinstance(error, redis.ConnectionError) or not any(sign in text for sign in _CLOSED_BY_TLS):
            return error
        return type(error)(f"{text} If the server asks for a client's certificate, set ssl_certfile and ssl_keyfile.")

    def _without_password(self, error: redis.RedisError) -> redis.RedisError:
        """The error; a server that does not know AUTH or HELLO repeats their arguments in it."""
        password = self.client.connection_pool.connection_kwargs.get("password")
        text = str(error)
        if not password or str(password) not in text:
            return error
        return type(error)(text.replace(str(password), "***"))

    def _settings(self) -> dict[str, Any]:
        """The client's settings; a time limit where it has none, and no retries beside ours."""
        settings = dict(self.client.connection_pool.connection_kwargs)
        settings["retry"] = Retry(NoBackoff(), 0)
        if not settings.get("socket_timeout"):
            settings["socket_timeout"] = SOCKET_TIMEOUT
        if "path" not in settings:
            settings.setdefault("socket_keepalive", True)
        return settings

    def close(self) -> None:
        """Drop the connections that are not in use now."""
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
        """Lead to another server for as long as the block.  For tests, while nothing else uses it."""
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


class _Lane(Connection):
    """Keeps connections of another Connection to itself."""

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
    """A connection to a URL (``redis://``, ``rediss://``, ``unix://``).

    Raises:
      ConfigurationError: for what is not such a URL; it may hold a password, and is not repeated.
    """
    try:
        client = redis.Redis.from_url(url, **options)
    except (ValueError, TypeError) as e:
        url, options = "", {}
        raise ConfigurationError(f"The URL of the Redis cannot be used: {e}") from None
    return Connection(client)


__all__ = ["FAULTS", "LOST", "Connection", "ServerUnavailable", "connect"]
