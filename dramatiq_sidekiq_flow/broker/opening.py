"""Opens the connection that the parameters of a SidekiqBroker describe."""

from __future__ import annotations

import os
from typing import Any

from ..errors import ConfigurationError, FlowError
from ..store.connection import Connection, RedisClient, connect
from ..store.replication import OFF, Replication

#: Without a url and REDIS_URL.
DEFAULT_URL = "redis://localhost:6379/0"


def open_connection(url: str | None, client: RedisClient | None, options: dict[str, Any]) -> Connection:
    """The connection to a client, or to a URL: unless given, that of ``REDIS_URL``.

    Raises:
      ConfigurationError: if the URL, or an option, cannot be used.
    """
    if client is not None:
        return Connection(client)
    url = url or os.environ.get("REDIS_URL") or DEFAULT_URL
    try:
        if url.startswith("embedded://"):
            from .. import embedded  # only demos and tests need it

            url = embedded.resolve_url(url)
        return connect(url, **options)
    except FlowError:
        # A log that shows the locals of a traceback is not to show the password in it.
        url, options = None, {}
        raise


def checked(replication: Replication | None, connection: Connection) -> Replication:
    """The replication to use; none unless given.

    Raises:
      ConfigurationError: if it is not a Replication, or waits longer than the socket.
    """
    if replication is None:
        return OFF
    if not isinstance(replication, Replication):
        raise ConfigurationError(
            f"replication must be a Replication, such as Replication(push=1), not {replication!r}.", replication
        )
    longest = int(connection.longest_wait * 1000)
    if replication.timeout > longest:
        raise ConfigurationError(
            f"Replication(timeout={replication.timeout}) is longer than half of the socket's time limit, so the "
            f"connection would count as lost: make it {longest} or less, or pass a longer socket_timeout.",
            replication.timeout,
        )
    return replication
