"""The embedded server that the FlowTests of a process share."""

from __future__ import annotations

import atexit

from ..embedded import EmbeddedServer
from ..store.connection import connect

_server: EmbeddedServer | None = None


def empty_server() -> str:
    """Start the server, unless it runs, and delete all that it holds; returns its URL."""
    global _server
    if _server is None or not _server.running:
        _server = EmbeddedServer().start()
        atexit.register(_server.stop)
    connection = connect(_server.url)
    connection.call("FLUSHALL")
    connection.close()
    return _server.url
