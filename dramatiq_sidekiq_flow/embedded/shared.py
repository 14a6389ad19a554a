"""The one server of a process that ``embedded://`` stands for."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import threading

from ..errors import EmbeddedServerError
from .server import EmbeddedServer

#: Names the URL that ``embedded://`` stands for, where somebody runs the server already.
URL_VARIABLE = "DRAMATIQ_SIDEKIQ_FLOW_EMBEDDED_URL"

_lock = threading.Lock()


def resolve_url(url: str) -> str:
    """The URL to connect to: what ``embedded://`` stands for; any other URL as it is.

    The first use in a process starts a server that ends with the process, says
    so on standard error, and names it in the environment for its children.

    Raises:
      EmbeddedServerError: when the server does not start; and in a worker of the
        ``dramatiq`` command, where each process would have a server of its own.
    """
    if not url.startswith("embedded://"):
        return url
    if url != "embedded://":
        # What follows is not repeated, nor left to a log that shows locals: it may be a password.
        url = ""
        raise EmbeddedServerError("Write embedded:// alone: nothing follows it.")
    with _lock:
        if given := os.environ.get(URL_VARIABLE):
            return given
        if multiprocessing.parent_process() is not None:
            raise EmbeddedServerError(
                "embedded:// in a worker process: each process would have a server of its own, and its jobs would be"
                " lost at exit. Give the broker the URL of a Redis, or, to try things out, run:"
                " python -m dramatiq_sidekiq_flow.embedded -- dramatiq app"
            )
        server = EmbeddedServer().start()
        atexit.register(server.stop)
        os.environ[URL_VARIABLE] = server.url
        print(f"embedded:// is {server.url}; its data is thrown away when this process ends.", file=sys.stderr)
        return server.url
