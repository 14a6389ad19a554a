"""The worker processes of a measure, as the measuring process holds them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import attrs

from .pipes import PATIENCE, Child, Command

#: Seconds between two looks at the counts of several processes.
LOOK = 0.02


class WorkerFailed(Exception):
    """Workers that did not run each job once."""


@attrs.frozen
class Report:
    """What the workers have done since they were told what to expect.

    Attributes:
      acked: Acknowledged jobs, failed tries included.
      indexes: The jobs by number, in the order of their starts.
      starts: When each one started, in seconds of the monotonic clock.
      cpu: Seconds of CPU time of all processes.
      peak: The largest resident memory of a process so far, in MB; 0 if unknown.
    """

    acked: int
    indexes: list[int]
    starts: dict[int, float]
    last_ack: float
    cpu: float
    peak: float

    @classmethod
    def of(cls, answers: list[dict[str, Any]]) -> Report:
        starts = sorted(((at, index) for answer in answers for index, at in answer["starts"]))
        return cls(
            acked=sum(answer["acked"] for answer in answers),
            indexes=[index for _, index in starts],
            starts={index: at for at, index in starts},
            last_ack=max(answer["last_ack"] for answer in answers),
            cpu=sum(answer["cpu"] for answer in answers),
            peak=max(answer["peak"] for answer in answers),
        )

    @property
    def first_start(self) -> float:
        return min(self.starts.values())

    @property
    def last_start(self) -> float:
        return max(self.starts.values())

    def check(self, jobs: int, *, ordered: bool) -> None:
        """A figure that was bought with lost jobs does not count.

        Raises:
          WorkerFailed: if a job did not run exactly once, or (if asked for) in another order.
        """
        if sorted(self.indexes) != list(range(jobs)):
            raise WorkerFailed("some jobs ran twice or never")
        if ordered and self.indexes != list(range(jobs)):
            raise WorkerFailed("steps ran out of order")


class Workers:
    """Worker processes; ``worker.py`` says what they are told."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self.jobs = 0
        self._stack = ExitStack()
        self._children = [self._stack.enter_context(Child(command)) for command in commands]

    def expect(self, jobs: int, *, ms: int = 0, record: bool = True) -> None:
        """These are to come, numbered from 0.

        Parameters:
          ms: How long each job takes.
          record: Whether to record the start of each job, which takes memory.
        """
        self.jobs = jobs
        self._all({"do": "expect", "jobs": jobs, "ms": ms, "record": record})

    def start(self) -> None:
        """Begin to consume."""
        self._all({"do": "start"})

    def memory(self) -> float:
        """The resident memory of all processes now, in MB; 0 if unknown."""
        return float(sum(answer["rss"] for answer in self._all({"do": "memory"})))

    def wait(self, *, ordered: bool = False) -> Report:
        """Wait until all expected jobs are acknowledged, and check them.

        Raises:
          WorkerFailed: if they are not, some ran twice, or, if asked for, ran in another order.
        """
        report = self.wait_acked()
        report.check(self.jobs, ordered=ordered)
        return report

    def wait_acked(self) -> Report:
        """Wait until all expected jobs are acknowledged.

        Raises:
          WorkerFailed: if they are not.
        """
        seconds = 60 + self.jobs * 0.05
        if len(self._children) > 1:
            self._watch(seconds)
            seconds = 0
        report = Report.of(self._all({"do": "wait", "seconds": seconds}, seconds + PATIENCE))
        if report.acked < self.jobs:
            raise WorkerFailed(f"{report.acked:,} of {self.jobs:,} jobs done after {seconds:.0f} s")
        return report

    def _watch(self, seconds: float) -> None:
        """Wait for the sum of several processes."""
        deadline = time.monotonic() + seconds
        while sum(answer["acked"] for answer in self._all({"do": "count"})) < self.jobs:
            if time.monotonic() > deadline:
                return
            time.sleep(LOOK)

    def _all(self, order: dict[str, Any], patience: float = PATIENCE) -> list[dict[str, Any]]:
        return [child.order(order, patience) for child in self._children]

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
