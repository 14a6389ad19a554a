"""Kinds of Redis errors, and what callers do about each.

========== ============================================ ============================
kind       examples                                     reaction
========== ============================================ ============================
lost       connection refused, reset, timeout           workers wait and send again,
                                                        producers raise
server     BUSY, LOADING, READONLY, OOM, NOPERM ...     the same: the server refuses
                                                        for now
command    WRONGTYPE, ERR ...                           a named error: the same
                                                        command fails again
========== ============================================ ============================

``except LOST`` catches the first two.
"""

from __future__ import annotations

import re

import redis
from redis import exceptions

#: The server is unreachable, or refuses all commands for now: wait and try again.
LOST = (redis.ConnectionError, redis.TimeoutError)

#: All errors of Redis and of the network.
FAULTS = (redis.RedisError, OSError)

#: Errors that have a class in redis-py, which removes their code.
_CLASSES = (
    exceptions.NoPermissionError,
    exceptions.NoScriptError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
)

#: All others begin with their code.  Redis 6 puts "-CODE" into the middle of a
#: script's error.
_CODES = re.compile(
    r"(?:^|[ :]-)(?:BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOAUTH|NOMASTERLINK|NOPERM|NOREPLICAS|OOM|READONLY|"
    r"TRYAGAIN|UNBLOCKED|WRONGPASS)\b"
    r"|ACL failure in script|user executing the script can't"
)


class ServerUnavailable(redis.ConnectionError):
    """The server answered that it refuses for now: wait and try again.

    Attributes:
      reply: The error of redis-py.
    """

    def __init__(self, reply: Exception) -> None:
        super().__init__(_text(reply))
        self.reply = reply


class PoolExhausted(redis.ConnectionError):
    """All connections that this process may open are in use."""


def classified(error: redis.ResponseError) -> redis.RedisError:
    """Classify an error: a :class:`ServerUnavailable`, or the error itself if its cause is the command."""
    if isinstance(error, _CLASSES) or _CODES.search(str(error)):
        return ServerUnavailable(error)
    return error


def is_of_the_connection(error: Exception) -> bool:
    """Return True if a new connection may help (after a failover: READONLY, MASTERDOWN, UNBLOCKED)."""
    if isinstance(error, (exceptions.ReadOnlyError, exceptions.MasterDownError)):
        return True
    # The reply to a blocking command whose server became a replica.
    return str(error).startswith("UNBLOCKED")


_NAMES = {
    exceptions.NoPermissionError: "NOPERM",
    exceptions.NoScriptError: "NOSCRIPT",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
}


def _text(reply: Exception) -> str:
    """Text of an error with its code, which redis-py removes."""
    text = str(reply)
    code = _NAMES.get(type(reply), "")
    return text if text.startswith(code) else f"{code} {text}"
