"""Stats and metrics: what worker processes have done, as Sidekiq counts it.

``stat:processed`` and ``stat:failed``, in all and by day, are the dashboard's
(``launcher.rb``).  Metrics are counts by job class and minute, and histograms
of execution times (``metrics/tracking.rb``, ``metrics/shared.rb``).  Sidekiq 7
and 8 name the keys of metrics differently:

    7   j|YYYYMMDD|H:M                   CLASS-DD-HH:M
    8   j|YYMMDD|H:MM, j|YYMMDD|H:M      h|CLASS-D-H:M

where the second of 8 is ten minutes, and its minute the first digit of two.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Collection, Mapping

import attrs

from . import keys, scripts
from .connection import Connection
from .scripts import Argument, Command

#: Upper bounds of a histogram's buckets, in milliseconds; one more holds the rest.
BOUNDS = (
    20, 30, 45, 65, 100, 150, 225, 335, 500, 750, 1100, 1700, 2500, 3800, 5750, 8500, 13000, 20000, 30000, 45000,
    65000, 100000, 150000, 225000, 335000,
)  # fmt: skip

#: How long they are kept, in seconds.
DAY_TTL = 5 * 365 * 86_400
MINUTE_TTL = 8 * 3600
TEN_MINUTES_TTL = 3 * 86_400

#: The versions of Sidekiq whose layouts are known.
LAYOUTS = ("7", "8")

_WIDEST = 65_535


@attrs.define
class Executions:
    """Of one job class: how many ran and failed, and how long those took that did not."""

    processed: int = 0
    failed: int = 0
    ms: int = 0
    buckets: list[int] = attrs.Factory(lambda: [0] * (len(BOUNDS) + 1))

    def add(self, ms: int, failed: bool) -> None:
        """One more.  A failure's time says nothing, and is not kept (``metrics/tracking.rb``)."""
        self.processed += 1
        if failed:
            self.failed += 1
        else:
            self.ms += ms
            self.buckets[bisect_right(BOUNDS, ms)] += 1


@attrs.frozen
class Counts:
    """What one process has counted within some seconds.

    Attributes:
      number: Tells these counts from the process's earlier ones.
      at: When, in epoch seconds.
    """

    number: int
    at: float
    processed: int
    failed: int
    classes: Mapping[str, Executions]


def flush(connection: Connection, identity: str, counts: Counts, layouts: Collection[str]) -> list[str]:
    """Add counts to Redis.  Safe to repeat with the same counts.

    Returns:
      Keys of another type, to which nothing could be added.
    """
    refused: list[bytes] = connection.call(*_flush(identity, counts, layouts))
    return [key.decode() for key in refused]


def _flush(identity: str, counts: Counts, layouts: Collection[str]) -> Command:
    moment = time.gmtime(counts.at)
    day = time.strftime("%Y-%m-%d", moment)
    fields: list[Argument] = []
    for name, done in counts.classes.items():
        if done.processed > done.failed:
            fields += (f"{name}|ms", done.ms)
        fields += (f"{name}|p", done.processed)
        if done.failed:
            fields += (f"{name}|f", done.failed)
    hashes = {key: ttl for layout in layouts for key, ttl in minutes(layout, moment).items()} if fields else {}
    histograms: list[str] = []
    buckets: list[Argument] = []
    for layout in layouts:
        for name, done in counts.classes.items():
            filled = [(i, min(n, _WIDEST)) for i, n in enumerate(done.buckets) if n]
            if filled:
                histograms.append(histogram(layout, name, moment))
                buckets += (MINUTE_TTL, len(filled), *(part for pair in filled for part in pair))
    return scripts.FLUSH.command(
        (
            keys.flushed(identity),
            keys.stat("processed"),
            keys.stat("processed", day),
            keys.stat("failed"),
            keys.stat("failed", day),
            *hashes,
            *histograms,
        ),
        (
            counts.number,
            counts.processed,
            counts.failed,
            DAY_TTL,
            len(hashes),
            *hashes.values(),
            len(fields) // 2,
            *fields,
            *buckets,
        ),
    )


def minutes(layout: str, moment: time.struct_time) -> dict[str, int]:
    """The hashes that hold a moment's metrics, and for how many seconds each is kept."""
    hour, minute = moment.tm_hour, moment.tm_min
    if layout == "7":
        return {f"j|{time.strftime('%Y%m%d', moment)}|{hour}:{minute}": MINUTE_TTL}
    day = time.strftime("%y%m%d", moment)
    return {f"j|{day}|{hour}:{minute // 10}": TEN_MINUTES_TTL, f"j|{day}|{hour}:{minute:02}": MINUTE_TTL}


def histogram(layout: str, name: str, moment: time.struct_time) -> str:
    """The key of a class's histogram: 26 counters of 16 bits, for one minute."""
    if layout == "7":
        return f"{name}-{time.strftime('%d-%H', moment)}:{moment.tm_min}"
    return f"h|{name}-{moment.tm_mday}-{moment.tm_hour}:{moment.tm_min}"
