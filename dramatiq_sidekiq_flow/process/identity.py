"""The identity of a worker process, as Sidekiq forms it (``component.rb``)."""

from __future__ import annotations

import os
import secrets
import socket


def hostname() -> str:
    """The name of this host: ``DYNO``, or the system's."""
    return (os.environ.get("DYNO") or socket.gethostname()).replace(":", "-")


class Identity:
    """``HOST:PID:NONCE``.  A forked child has an identity of its own."""

    def __init__(self) -> None:
        self._pid = 0
        self._name = ""

    @property
    def name(self) -> str:
        """The identity of the process that asks."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._name = f"{hostname()}:{self._pid}:{secrets.token_hex(6)}"
        return self._name
