"""A redis-server of a test's own, which may be late, fall ill, be killed and come back on its port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import redis

from dramatiq_sidekiq_flow.embedded import find_binary

from ..running import eventually

#: A redis-server; where there is none, the embedded server's program.
BINARY = os.environ.get("DSF_TEST_REDIS_SERVER") or shutil.which("redis-server") or str(find_binary())


class Server:
    """One server.  It is not started yet.

    Parameters:
      folder: Its working directory, and its log.
      options: Of its command line.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.log = folder / "redis.log"
        command = [BINARY, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)]
        self.command = [*command, "--logfile", str(self.log), *options]
        self.client = redis.Redis(port=self.port)
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, user: str = "") -> str:
        """Its URL, for a user of that name (and password)."""
        return f"redis://{f'{user}:{user}@' if user else ''}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        eventually(self._answers, what=f"an answer of {BINARY}, whose log is {self.log}")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text() if self.log.exists() else "it ended"
        try:
            return bool(self.client.ping())
        except (redis.ConnectionError, redis.exceptions.BusyLoadingError):
            return False

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """At once, and wait until it is gone."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
