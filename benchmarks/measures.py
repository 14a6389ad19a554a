"""What a measure is: it takes one sample of one contender.

Each begins with an empty server and, where it needs one, a worker process of
its own.  Times are taken with the monotonic clock, which processes of one
machine share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs

from .peers import Peer
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
    def cold(self, *, processes: int = 1, threads: int = 8, awaiting: bool = False) -> Iterator[Workers]:
        """Workers that do not consume yet."""
        kind = type(self.peer)
        with Workers(kind, self.url, processes=processes, threads=threads, awaiting=awaiting) as workers:
            yield workers

    @contextmanager
    def warm(self) -> Iterator[Workers]:
        """A worker that consumes and is warm: connected, scripts loaded."""
        with self.cold() as workers:
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
    quick: bool = False
    delayed: bool = False

    @property
    def names(self) -> set[str]:
        """Its own name, and that of its kind: ``chain-100``, ``chain``."""
        return {self.name, self.name.partition("-")[0]}
