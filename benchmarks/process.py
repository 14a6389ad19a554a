"""A worker process, as the measuring process holds it."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from .peers import Peer

ROOT = Path(__file__).resolve().parent.parent

#: Seconds that a worker has to answer an order that needs no waiting.
PATIENCE = 30.0


class WorkerFailed(Exception):
    """A worker that died, hung, or did not run each job once."""


class WorkerProcess:
    """One worker process of a peer; see ``worker.py`` for what it is told.

    It is killed at the end, not stopped: its server is emptied anyway.
    """

    def __init__(self, peer: type[Peer], url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", peer.name, "--url", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            # An interrupt from the terminal is for the measuring process alone.
            start_new_session=True,
        )
        self.jobs = 0
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _order(self, order: dict[str, Any], patience: float = PATIENCE) -> dict[str, Any]:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            line = self._lines.get(timeout=patience)
        except OSError:
            line = None
        except queue.Empty:
            raise WorkerFailed(f"the worker did not answer within {patience:.0f} s") from None
        if line is None:
            raise WorkerFailed(f"the worker ended with exit code {self.process.wait(PATIENCE)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def expect(self, jobs: int) -> None:
        """These are to come, numbered from 0."""
        self.jobs = jobs
        self._order({"do": "expect", "jobs": jobs})

    def start(self) -> None:
        """Begin to consume."""
        self._order({"do": "start"})

    def wait(self, *, ordered: bool = False) -> dict[str, Any]:
        """Wait until all expected jobs are acknowledged.

        Raises:
          WorkerFailed: where they are not, or where some ran twice, or (where
            it is asked for) in another order.  A figure that was bought with
            lost jobs is none.
        """
        seconds = 30 + self.jobs * 0.05
        report = self._order({"do": "wait", "seconds": seconds}, seconds + PATIENCE)
        if not report["done"]:
            raise WorkerFailed(f"{report['acked']:,} of {self.jobs:,} jobs done after {seconds:.0f} s")
        if not report["exact"]:
            raise WorkerFailed("some jobs ran twice or never")
        if ordered and not report["ordered"]:
            raise WorkerFailed("steps ran out of order")
        return report

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
