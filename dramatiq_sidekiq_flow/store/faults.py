"""What an error of Redis means, decided once for every caller.

========== ============================================ ============================
kind       examples                                     what follows
========== ============================================ ============================
lost       connection refused, reset, timeout           workers wait and send again,
                                                        producers raise
server     BUSY, LOADING, READONLY, OOM, NOPERM ...     the same: the server refuses
                                                        now, and may accept later
command    WRONGTYPE, ERR ...                           a named error: the same
                                                        command fails again
========== ============================================ ============================

The first two are what ``except LOST`` catches.
"""

from __future__ import annotations

import re

import redis
from redis import exceptions

#: The server is away, or refuses commands of any kind for now: wait and try again.
LOST = (redis.ConnectionError, redis.TimeoutError)

#: Every error of a Redis or of the way to it.
FAULTS = (redis.RedisError, OSError)

#: Errors that redis-py has classes for, and whose code it cuts off.
_CLASSES = (
    exceptions.NoPermissionError,
    exceptions.NoScriptError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
)

#: The others begin with their code. Redis 6 puts "-CODE" into the middle of a
#: script's error.
_CODES = re.compile(
    r"(?:^|[ :]-)(?:BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOAUTH|NOMASTERLINK|NOPERM|NOREPLICAS|OOM|READONLY|"
    r"TRYAGAIN|UNBLOCKED|WRONGPASS)\b"
    r"|ACL failure in script|user executing the script can't"
)


class ServerUnavailable(redis.ConnectionError):
    """The server answered, and refuses for now: wait and try again.

    Attributes:
      reply: The error as redis-py gave it.
    """

    def __init__(self, reply: Exception) -> None:
        super().__init__(_text(reply))
        self.reply = reply


class PoolExhausted(redis.ConnectionError):
    """All connections that this process may open are in use."""


def classified(error: redis.ResponseError) -> redis.RedisError:
    """The error itself where it speaks of its command, else a :class:`ServerUnavailable`."""
    if isinstance(error, _CLASSES) or _CODES.search(str(error)):
        return ServerUnavailable(error)
    return error


def is_of_the_connection(error: Exception) -> bool:
    """Whether a new connection may lead to a server that accepts (a failover: READONLY, MASTERDOWN, UNBLOCKED)."""
    if isinstance(error, (exceptions.ReadOnlyError, exceptions.MasterDownError)):
        return True
    # A blocking command, when its server became a replica.
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
    """The error with its code, which redis-py cuts off."""
    text = str(reply)
    code = _NAMES.get(type(reply), "")
    return text if text.startswith(code) else f"{code} {text}"
