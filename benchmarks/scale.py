"""What a measured run means at scale: ``python -m benchmarks.scale build/bench/out.json``.

A calculation from the costs of a job, not a measurement.  Redis runs commands on
one thread, so the CPU time of the server for a job limits the jobs of one Redis.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import attrs

from .document import Document

OURS = "sidekiq-flow"

#: Worker processes of a host, one for each of its cores.
PROCESSES = 8
HOSTS = (1, 10, 100)

#: The jobs of a run whose cost is shown.
MILLION = 1_000_000

KINDS = {"throughput-1": "no-op job", "chains": "step of a chain of 50", "members-1": "member of a group"}


@attrs.frozen
class Cost:
    """What a job costs.

    Attributes:
      server: CPU time of Redis, in us.
      worker: CPU time of a worker process, in us.
      traffic: Bytes in and out of Redis.
    """

    title: str
    server: float
    worker: float
    traffic: float

    @classmethod
    def of(cls, document: Document, measure: str, peer: str) -> Cost | None:
        """What a run has measured; None if it has not."""
        names = ("server_cpu", "cpu", "bytes_in", "bytes_out")
        values = [document.value(measure, name, peer) for name in names]
        known = [value for value in values if value is not None]
        if len(known) < len(names):
            return None
        server, worker, bytes_in, bytes_out = known
        return cls(KINDS[measure], server, worker, bytes_in + bytes_out)

    @property
    def redis_rate(self) -> float:
        """Jobs a second that keep one Redis busy."""
        return 1e6 / self.server

    @property
    def process_rate(self) -> float:
        """Jobs a second that keep one worker process busy, on a core of its own."""
        return 1e6 / self.worker

    def rate(self, hosts: int) -> float:
        """Jobs a second of this many hosts on one Redis."""
        return min(self.redis_rate, self.process_rate * hosts * PROCESSES)

    def servers(self, hosts: int) -> int:
        """How many Redis servers let this many hosts do no-op jobs all the time."""
        return math.ceil(self.process_rate * hosts * PROCESSES / self.redis_rate)

    def saturated(self, hosts: int) -> str:
        """What is used up first."""
        return "Redis" if self.servers(hosts) > 1 else "workers"


def table(document: Document, peer: str = OURS) -> str:
    """One Redis with hosts around it, and a run of a million jobs, as tables in Markdown."""
    costs = [cost for measure in KINDS if (cost := Cost.of(document, measure, peer))]
    hosts = [_hosts(number) for number in HOSTS]
    lines = _head("on one Redis", "Redis CPU", "worker CPU", "bytes", "Redis alone", *hosts)
    for cost in costs:
        cells = [
            f"{cost.server:,.0f} us",
            f"{cost.worker:,.0f} us",
            f"{cost.traffic:,.0f}",
            f"{cost.redis_rate:,.0f}/s",
        ]
        rates = [f"{cost.rate(number):,.0f}/s ({cost.saturated(number)})" for number in HOSTS]
        lines.append(_row(cost.title, *cells, *rates))
    lines += ["", *_head("Redis servers that keep all workers busy", *hosts)]
    for cost in costs:
        lines.append(_row(cost.title, *(f"{cost.servers(number):,}" for number in HOSTS)))
    lines += ["", *_head("a million", "Redis CPU", "worker CPU", "traffic")]
    for cost in costs:
        cells = [f"{time * MILLION / 1e6:,.0f} s" for time in (cost.server, cost.worker)]
        lines.append(_row(cost.title, *cells, f"{cost.traffic * MILLION / 1e9:.2f} GB"))
    return "\n".join(lines)


def _head(*titles: str) -> list[str]:
    return [_row(*titles), "|" + "---|" * len(titles)]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _hosts(hosts: int) -> str:
    return f"{hosts} host{'s' if hosts > 1 else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("file", type=Path, help="the JSON object of a run")
    parser.add_argument("--peer", default=OURS, help="of this contender; this package by default")
    options = parser.parse_args()
    print(table(Document.read(options.file), options.peer))


if __name__ == "__main__":
    main()
