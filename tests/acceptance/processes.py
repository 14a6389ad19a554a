"""Real ``dramatiq`` processes, started, killed and replaced."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..running import eventually

ROOT = Path(__file__).parent.parent.parent


class Workers:
    """Some ``dramatiq`` commands of one worker process each."""

    def __init__(self, redis_url: str, log: Path, module: str, **environment: str) -> None:
        self.command = [sys.executable, "-m", "dramatiq", module, "--processes", "1", "--threads", "4"]
        self.environment = {**os.environ, "REDIS_URL": redis_url, "dramatiq_worker_timeout": "100", **environment}
        self.log = log
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, count: int = 1) -> None:
        with self.log.open("ab") as log:
            for _ in range(count):
                self.running.append(
                    subprocess.Popen(
                        self.command, env=self.environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
                    )
                )

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL to a command and its worker process."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.running.remove(process)

    def stop(self) -> None:
        """The gentle way: SIGTERM, and wait."""
        for process in self.running:
            if process.poll() is None:
                process.terminate()
        for process in self.running:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        self.running = []


@contextlib.contextmanager
def workers(
    redis_url: str, log: Path, count: int = 2, module: str = "tests.acceptance.app", **environment: str
) -> Iterator[Workers]:
    """Workers for as long as the block; what they logged is shown when it fails."""
    log.touch()
    running = Workers(redis_url, log, module, **environment)
    running.start(count)
    try:
        yield running
    except BaseException:
        print(log.read_text("utf-8", "replace")[-5000:])
        raise
    finally:
        for process in list(running.running):
            running.kill(process)


def registered(client: Any, count: int) -> None:
    """Wait until so many workers consume."""
    eventually(lambda: client.zcard("swf:workers") >= count, what=f"{count} workers at work")
