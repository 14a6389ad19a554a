"""One way to Redis: commands out in one write, replies back in one read.

Everything sent here is safe to send twice, so a lost reply is answered by
sending again.  A connection whose replies were not all read (an interrupt in
the middle) is dropped, never reused.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import redis
from redis.exceptions import BusyLoadingError, NoScriptError, ReadOnlyError, ResponseError

from ..errors import ConfigurationError
from . import scripts
from .scripts import Command

#: What is answered by trying again on a new connection.
LOST = (redis.ConnectionError, redis.TimeoutError, ReadOnlyError, BusyLoadingError)

#: All that a Redis, or the way to it, can say: also out of memory, or a disk that is full.
FAULTS = (redis.RedisError, OSError)


class Connection:
    """Sends commands to the server of a redis-py client.

    Safe to share between threads and to inherit by a fork: each call has a
    connection of its own.  They are kept here rather than given back to the
    client's pool after each call, which would poll the socket every time.

    Parameters:
      client: Any redis-py client of one server (also ``Sentinel.master_for``).
    """

    def __init__(self, client: redis.Redis) -> None:
        if client.get_encoder().decode_responses:
            raise ConfigurationError(
                "The Redis client decodes replies to text; payloads are bytes. Pass one with decode_responses=False.",
                client,
            )
        self.client = client
        self._pool = client.connection_pool
        self._idle: deque[Any] = deque()
        self._pid = os.getpid()

    @property
    def url(self) -> str:
        """Where it leads, without the password."""
        options = self._pool.connection_kwargs
        if "path" in options:
            return f"unix://{options['path']}"
        return f"redis://{options.get('host', '?')}:{options.get('port', '?')}/{options.get('db', 0) or 0}"

    @property
    def longest_wait(self) -> float:
        """How many seconds a command may block before the socket gives up."""
        timeout = self._pool.connection_kwargs.get("socket_timeout")
        return float(timeout) / 2 if timeout else 60.0

    def call(self, *command: scripts.Argument) -> Any:
        """Send one command; its error is raised."""
        reply = self.send((command,))[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one write.  Errors of single ones are returned in place.

        Raises:
          redis.ConnectionError, redis.TimeoutError: when the server cannot be
            reached twice in a row.
        """
        try:
            return self._send(commands)
        except LOST:
            self.close()
            return self._send(commands)

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        if self._pid != os.getpid():
            self._idle, self._pid = deque(), os.getpid()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._pool.get_connection()
        clean = False
        try:
            replies = self._exchange(connection, commands)
            if any(isinstance(reply, NoScriptError) for reply in replies):
                self._exchange(connection, [("SCRIPT", "LOAD", script.source) for script in scripts.ALL])
                again = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
                for i, reply in zip(again, self._exchange(connection, [commands[i] for i in again])):
                    replies[i] = reply
            clean = True
            return replies
        finally:
            if clean:
                self._idle.append(connection)
            else:
                connection.disconnect()
                self._pool.release(connection)

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

    def close(self) -> None:
        """Drop the connections that are not in use now."""
        idle = self._idle
        while idle:
            try:
                connection = idle.pop()
            except IndexError:
                return
            connection.disconnect()
            self._pool.release(connection)

    @contextlib.contextmanager
    def redirected(self, url: str) -> Iterator[None]:
        """Lead to another server for as long as the block.  For tests, while nobody else uses it."""
        before = self.client, self._pool, self._idle
        client = redis.Redis.from_url(url)
        self.client, self._pool, self._idle = client, client.connection_pool, deque()
        try:
            yield
        finally:
            self.close()
            client.close()
            self.client, self._pool, self._idle = before

    def inspect(self) -> list[str]:
        """Look at the server once, at start.

        Returns:
          Warnings for the log.

        Raises:
          ConfigurationError: for a server that cannot be used: Redis Cluster,
            or older than 6.2 (LMOVE, RPOP with a count).
        """
        info: dict[str, Any] = self.client.info()
        if info.get("redis_mode") == "cluster":
            raise ConfigurationError(
                "This is a Redis Cluster. Sidekiq needs a single Redis (or Sentinel), and so do we.", "cluster"
            )
        version = tuple(int(part) for part in str(info.get("redis_version", "7.0")).split(".")[:2])
        if version < (6, 2):
            raise ConfigurationError(f"Redis {info['redis_version']} is too old; 6.2 or newer is needed.", version)
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            return [f"maxmemory-policy is {policy!r}: Redis may throw jobs away. Set it to noeviction."]
        return []


def connect(url: str, **options: Any) -> Connection:
    """A connection to a URL (``redis://``, ``rediss://``, ``unix://``)."""
    return Connection(redis.Redis.from_url(url, **options))


def scrub(url: str) -> str:
    """A URL without its password, for logs and errors."""
    scheme, separator, rest = url.partition("://")
    credentials, at, host = rest.rpartition("@")
    if not at:
        return url
    user = credentials.partition(":")[0]
    return f"{scheme}{separator}{user}:***@{host}"
