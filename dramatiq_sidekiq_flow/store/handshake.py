"""Opens connections with the settings of a redis-py client."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from .faults import classified

#: Seconds until a silent connection counts as lost, if the client has no time limit.
SOCKET_TIMEOUT = 5.0

#: Errors of OpenSSL and of the system when the server closes a connection during the TLS handshake.
_CLOSED_BY_TLS = ("EOF occurred", "CERTIFICATE_REQUIRED", "reset by peer", "closed by server", "Broken pipe")


def open_connection(client: redis.Redis, **settings: Any) -> Any:
    """Open a connection of redis-py.

    Parameters:
      **settings: Settings of the connection that replace the client's.

    Raises:
      ServerUnavailable: if the server refuses the handshake for now.
      redis.ConnectionError, redis.TimeoutError: if it cannot be reached.
    """
    connection = client.connection_pool.connection_class(**{**settings_of(client), **settings})
    try:
        connection.connect()
    except redis.RedisError as e:
        error: Exception = _with_cure(client, _without_password(client, e))
        if isinstance(error, ResponseError):
            error = classified(error)
        # Without redis-py's frames: their locals hold the password, and a log may show them.
        raise error.with_traceback(None) from None
    return connection


def settings_of(client: redis.Redis) -> dict[str, Any]:
    """Settings of a client's connections, with a time limit, and without redis-py's own retries."""
    settings = dict(client.connection_pool.connection_kwargs)
    settings["retry"] = Retry(NoBackoff(), 0)
    if not settings.get("socket_timeout"):
        settings["socket_timeout"] = SOCKET_TIMEOUT
    if "path" not in settings:
        settings.setdefault("socket_keepalive", True)
    return settings


def url_of(client: redis.Redis) -> str:
    """URL of a client's server, without the password."""
    pool = client.connection_pool
    options = pool.connection_kwargs
    database = options.get("db", 0) or 0
    if "path" in options:
        return f"unix://{options['path']}"
    if hasattr(pool, "service_name"):
        return f"sentinel://{pool.service_name}/{database}"
    scheme = "rediss" if issubclass(pool.connection_class, redis.SSLConnection) else "redis"
    return f"{scheme}://{options.get('host', '?')}:{options.get('port', '?')}/{database}"


def _with_cure(client: redis.Redis, error: redis.RedisError) -> redis.RedisError:
    """Add a hint: with TLS 1.3 a server that misses a certificate closes the connection without a reason."""
    pool, text = client.connection_pool, str(error)
    if not issubclass(pool.connection_class, redis.SSLConnection) or pool.connection_kwargs.get("ssl_certfile"):
        return error
    if not isinstance(error, redis.ConnectionError) or not any(sign in text for sign in _CLOSED_BY_TLS):
        return error
    return type(error)(f"{text} If the server asks for a client's certificate, set ssl_certfile and ssl_keyfile.")


def _without_password(client: redis.Redis, error: redis.RedisError) -> redis.RedisError:
    """Remove the password: a server that does not know AUTH or HELLO repeats their arguments in its error."""
    password = client.connection_pool.connection_kwargs.get("password")
    text = str(error)
    if not password or str(password) not in text:
        return error
    return type(error)(text.replace(str(password), "***"))
