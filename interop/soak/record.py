"""What steps and workers did: a file, which no disturbance of Redis reaches.

Standard input of each worker is this file, opened for appending: it passes
through a chroot, one write is one line, the kernel keeps what a killed process
has written, and the order of lines is the order of events.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import attrs

#: The place of a step: the number of its run, and its own in the tree.
Place = tuple[int, int]


@attrs.frozen
class Event:
    """One line of the record."""

    #: ``start``, ``end``, or ``fail`` (it raises, as it was told to).
    what: str
    run: int
    step: int
    #: Differs between two pushes of the same step: its jid.
    origin: str
    #: Number of the worker process.
    worker: int
    #: Seconds of the machine's monotonic clock.
    at: float

    @property
    def place(self) -> Place:
        return self.run, self.step


@attrs.frozen
class Death:
    """The end of a worker process."""

    worker: int
    #: ``kill``, ``term``, or ``exit`` (by itself).
    how: str
    #: When the signal was sent, and when the process had ended.
    asked: float
    at: float


@attrs.frozen
class Pause:
    """SIGSTOP until SIGCONT, of a worker process."""

    worker: int
    at: float
    until: float


def write(what: str, run: int, step: int, origin: str, worker: int) -> None:
    """In a worker: add a line to the record."""
    line = json.dumps([what, run, step, origin, worker, time.monotonic()]) + "\n"
    os.write(0, line.encode())


class Record:
    """The file, read while it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self.events: list[Event] = []
        #: Worker -> places of the steps that it executes now.
        self.hands: dict[int, set[Place]] = defaultdict(set)
        self.last = time.monotonic()
        self._read = 0
        self._lock = threading.Lock()

    def look(self) -> list[Event]:
        """Read on; what is new."""
        with self._lock:
            new = list(self._lines())
            for event in new:
                hand = self.hands[event.worker]
                (hand.add if event.what == "start" else hand.discard)(event.place)
            if new:
                self.last = time.monotonic()
            self.events += new
            return new

    def _lines(self) -> Iterator[Event]:
        while raw := os.pread(self.file, 1 << 20, self._read):
            whole = raw[: raw.rfind(b"\n") + 1]
            self._read += len(whole)
            for line in whole.splitlines():
                yield Event(*json.loads(line))
            if not whole:
                return

    def mark(self, what: str, worker: int | None = None) -> None:
        """Write down a disturbance, for those who read the record later."""
        with (self.path.parent / "disturbances").open("a") as file:
            file.write(json.dumps([time.monotonic(), what, worker]) + "\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self.file)
