"""Embedded server of a process, for which ``embedded://`` stands."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import threading

from ..errors import EmbeddedServerError
from .server import EmbeddedServer

#: Environment variable with the URL of a running server, for which ``embedded://`` stands.
URL_VARIABLE = "DRAMATIQ_SIDEKIQ_FLOW_EMBEDDED_URL"

_lock = threading.Lock()


def resolve_url(url: str) -> str:
    """Replace ``embedded://`` by the URL of a server; any other URL stays as it is.

    The first use in a process starts a server that ends with the process, says
    so on standard error, and sets the environment variable for child processes.

    Raises:
      EmbeddedServerError: if the server does not start; or in a worker of the
        ``dramatiq`` command, since each process would have its own server.
    """
    if not url.startswith("embedded://"):
        return url
    if url != "embedded://":
        # The rest may be a password: keep it out of the message, and of logs that show locals.
        url = ""
        raise EmbeddedServerError("Write embedded:// alone, with nothing after it.")
    with _lock:
        running = os.environ.get(URL_VARIABLE)
        if running:
            return running
        if multiprocessing.parent_process() is not None:
            raise EmbeddedServerError(
                "embedded:// in a worker process: each process would have a server of its own, and its jobs would be"
                " lost at exit. Give the broker the URL of a Redis, or, to try things out, run:"
                " python -m dramatiq_sidekiq_flow.embedded -- dramatiq app"
            )
        server = EmbeddedServer().start()
        atexit.register(server.stop)
        os.environ[URL_VARIABLE] = server.url
        print(f"embedded:// is {server.url}; its data is discarded when this process ends.", file=sys.stderr)
        return server.url
