"""Server of the pages alone: ``sidekiq-flow web``."""

from __future__ import annotations

import dramatiq
import uvicorn

from ..errors import ConfigurationError
from .access import is_loopback
from .runs_app import RunsApp

#: Seconds after which a stream that a browser still reads is cut off when the server ends.
LAST_WORDS = 2


def serve(
    broker: dramatiq.Broker,
    host: str,
    port: int,
    *,
    credentials: tuple[str, str] | None,
    root_path: str,
    read_only: bool,
) -> None:
    """Serve the pages until SIGTERM or SIGINT.

    Raises:
      ConfigurationError: if other machines could reach it without a password; or if the broker runs no workflows.
    """
    check_address(host, credentials)
    app = RunsApp(broker, credentials=credentials, read_only=read_only)
    uvicorn.run(
        app,
        host=host,
        port=port,
        root_path=root_path,
        log_level="warning",
        access_log=False,
        server_header=False,
        # The address of the browser is that of the connection: a header must not say that it is of this machine.
        proxy_headers=False,
        timeout_graceful_shutdown=LAST_WORDS,
    )


def check_address(host: str, credentials: tuple[str, str] | None) -> None:
    """Refuse an address that other machines can reach, unless there is a password.

    Raises:
      ConfigurationError: if it is one.
    """
    if credentials is None and not is_loopback(host):
        raise ConfigurationError(
            f"{host} can be reached by other machines: give a password with --password-file or in "
            "SIDEKIQ_FLOW_WEB_PASSWORD, or serve on 127.0.0.1.",
            host,
        )
