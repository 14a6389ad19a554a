"""What a measure is: it takes one sample of one contender.

Each begins with an empty server and, where it needs one, a worker process of
its own.  Times are taken with the monotonic clock, which processes of one
machine share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import attrs

from .peers import Peer
from .pipes import Command
from .process import Report, Workers
from .server import Server

Figures = dict[str, float]


@attrs.frozen
class Figure:
    """One number of a measure: what it counts and which way is better."""

    title: str
    unit: str
    higher_is_better: bool = False


#: Taken where a measure has them; the measure's own figures come first.
COSTS = {
    "reads": Figure("reads", "per job"),
    "commands": Figure("commands", "per job"),
    "bytes_in": Figure("bytes in", "per job"),
    "bytes_out": Figure("bytes out", "per job"),
    "server_cpu": Figure("server CPU", "us per job"),
    "cpu": Figure("worker CPU", "us per job"),
    "peak": Figure("worker peak", "MB"),
}


@attrs.frozen
class Scene:
    """A contender before an empty server, in one round.

    Attributes:
      url: The server, as the workers see it: the proxy's, where latency is added.
    """

    server: Server
    peer: Peer
    round: int
    url: str

    @contextmanager
    def cold(
        self, *, processes: int = 1, threads: int = 8, awaiting: bool = False, others: Sequence[Command] = ()
    ) -> Iterator[Workers]:
        """Workers that do not consume yet.

        Parameters:
          threads: How many jobs each of them runs at once.
          awaiting: Whether the actor is a coroutine.
          others: The commands of workers of other contenders.
        """
        command = self.peer.worker(self.url, threads, awaiting)
        with Workers([*[command] * processes, *others]) as workers:
            yield workers

    @contextmanager
    def warm(self, others: Sequence[Command] = ()) -> Iterator[Workers]:
        """A worker that consumes and is warm: connected, scripts loaded."""
        with self.cold(others=others) as workers:
            workers.expect(3)
            workers.start()
            self.peer.chain(3)
            workers.wait()
            yield workers


def cpu(report: Report, jobs: int) -> Figures:
    """What the workers have used."""
    used = {"cpu": report.cpu / jobs * 1e6}
    return {**used, "peak": report.peak} if report.peak else used


@attrs.frozen
class Measure:
    """A measure at one size.

    Attributes:
      take: Takes a sample.
      peers: The contenders that have it.
      needs: A contender whose worker takes part; without it there is no such measure.
      quick: Whether it is part of the quick run.
      delayed: Whether the workers reach the server through the proxy.
    """

    name: str
    title: str
    figures: dict[str, Figure]
    jobs: int
    rounds: int
    take: Callable[[Scene], Figures]
    peers: frozenset[str]
    needs: str | None = None
    quick: bool = False
    delayed: bool = False

    @property
    def names(self) -> set[str]:
        """Its own name, and that of its kind: ``chain-100``, ``chain``."""
        return {self.name, self.name.partition("-")[0]}
