"""The redis-server of a column, which is cut off, killed, and made sick.

With an append-only file that is written before each reply, nothing that it has
accepted is lost when it is killed.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import redis

from tests.running import eventually

from .disturbances import Disturbance

#: Who the workers and the producer are; the administrator is another user, whose connections are not cut.
USER = "soak"

#: Longest wait for an answer after a start, in seconds.
BOOT = 30.0


class Server:
    """A redis-server on a free port.

    Parameters:
      folder: Where its files go.
    """

    def __init__(self, folder: Path) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            raise SystemExit("redis-server is missing. Install it, on Debian and Ubuntu: apt-get install redis-server")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        folder.mkdir(parents=True, exist_ok=True)
        options = {"port": self.port, "bind": "127.0.0.1", "dir": folder, "logfile": folder / "redis.log"}
        options |= {"appendonly": "yes", "appendfsync": "always", "save": "", "busy-reply-threshold": 50}
        self.command = [binary]
        for name, value in options.items():
            self.command += [f"--{name}", str(value)]
        self.command += ["--user", USER, "on", f">{USER}", "~*", "&*", "+@all"]
        self.admin = redis.Redis(port=self.port, socket_timeout=10)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{USER}:{USER}@127.0.0.1:{self.port}/0"

    @property
    def version(self) -> str:
        return str(self.admin.info("server")["redis_version"])

    def start(self) -> None:
        """Start it, and wait for its answer."""
        # In a session of its own: an interrupt from the terminal is not for it.
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        eventually(self._answers, BOOT, "an answer of redis-server")

    def _answers(self) -> bool:
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError, redis.exceptions.BusyLoadingError):
            return bool(self.admin.ping())
        return False

    def kill(self) -> None:
        """At once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    # -- disturbances: each returns when it is over ---------------------------------

    def disturb(self, disturbance: Disturbance) -> None:
        """Do one that is not done to workers."""
        getattr(self, f"_{disturbance.kind}")(disturbance.degree)

    def _cut(self, degree: float) -> None:
        """All connections of workers and producer, or some of them."""
        if degree < 0.5:
            self._kill_clients("USER", USER)
            return
        mine = [client["id"] for client in self.admin.client_list() if client.get("user") == USER]
        for number in random.Random(degree).sample(mine, round(len(mine) * degree)):
            with contextlib.suppress(redis.ResponseError):  # closed by its owner since
                self._kill_clients("ID", number)

    def _kill_clients(self, *which: str) -> None:
        execute: Any = self.admin.execute_command
        execute("CLIENT", "KILL", *which)

    def _restart(self, degree: float) -> None:
        self.kill()
        time.sleep(0.1 + degree)
        self.start()

    def _flush(self, degree: float) -> None:
        self.admin.script_flush()

    def _oom(self, degree: float) -> None:
        self.admin.config_set("maxmemory", 1)
        time.sleep(1 + degree)
        self.admin.config_set("maxmemory", 0)

    def _readonly(self, degree: float) -> None:
        """A replica of a master that is not there: a failover that has lost its way."""
        self.admin.replicaof("127.0.0.1", "1")
        time.sleep(1 + degree)
        self.admin.replicaof("NO", "ONE")

    def _busy(self, degree: float) -> None:
        """A script that does not end; it has written nothing, so it can be killed."""
        loop = threading.Thread(target=self._loop)
        loop.start()
        time.sleep(1 + degree)
        eventually(self._script_killed, 5, "the end of the busy script")
        loop.join()

    def _script_killed(self) -> bool:
        try:
            return bool(self.admin.script_kill())
        except redis.ResponseError as e:
            return "NOTBUSY" in str(e)

    def _loop(self) -> None:
        with contextlib.suppress(redis.RedisError), redis.Redis(port=self.port, socket_timeout=60) as client:
            client.eval("while true do end", 0)
