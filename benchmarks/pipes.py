"""A child process that answers orders: one JSON object a line, over its standard input and output."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs

ROOT = Path(__file__).resolve().parent.parent

#: Seconds that a child has to answer an order that needs no waiting.
PATIENCE = 60.0

#: Seconds that a child has to end after the end of its input.
END = 3.0


class ChildFailed(Exception):
    """A child process that died, or did not answer in time."""


@attrs.frozen
class Command:
    """How to start a child: the command line, and what to add to the environment."""

    line: tuple[str, ...]
    environment: dict[str, str] = attrs.field(factory=dict)


class Child:
    """One child process."""

    def __init__(self, command: Command) -> None:
        self.process = subprocess.Popen(
            command.line,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **command.environment},
            # An interrupt from the terminal is for the measuring process alone.
            start_new_session=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def order(self, order: dict[str, Any], patience: float = PATIENCE) -> dict[str, Any]:
        """Send an order, and wait for its answer.

        Parameters:
          patience: Seconds until the child counts as hung.

        Raises:
          ChildFailed: if the child has ended, or does not answer in time.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        except OSError:
            raise self._ended() from None
        return self.answer(patience)

    def answer(self, patience: float = PATIENCE) -> dict[str, Any]:
        """Wait for a line of the child.

        Raises:
          ChildFailed: if the child has ended, or does not answer in time.
        """
        try:
            line = self._lines.get(timeout=patience)
        except queue.Empty:
            raise ChildFailed(f"no answer within {patience:.0f} s") from None
        if line is None:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ended(self) -> ChildFailed:
        return ChildFailed(f"ended with exit code {self.process.wait(PATIENCE)}")

    def close(self) -> None:
        """End it: by the end of its input, which reaches a process in a container too, else by SIGKILL."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END)
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            self.process.stdout.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
