"""Stats and metrics of worker processes, counted as Sidekiq does.

``stat:processed`` and ``stat:failed``, total and by day, are the dashboard's
(``launcher.rb``).  Metrics are counts by job class and minute, and histograms
of execution times (``metrics/tracking.rb``, ``metrics/shared.rb``).  Sidekiq 7
and 8 name the keys of metrics differently:

    7   j|YYYYMMDD|H:M                   CLASS-DD-HH:M
    8   j|YYMMDD|H:MM, j|YYMMDD|H:M      h|CLASS-D-H:M

where the second of 8 is ten minutes, and its minute the first digit of two.
"""

from __future__ import annotations

import itertools
import time
from bisect import bisect_right
from collections.abc import Collection, Mapping

import attrs

from . import keys, scripts
from .connection import Connection
from .scripts import Argument, Command

#: Upper bounds of a histogram's buckets, in milliseconds; one more bucket holds the rest.
BOUNDS = (
    20, 30, 45, 65, 100, 150, 225, 335, 500, 750, 1100, 1700, 2500, 3800, 5750, 8500, 13000, 20000, 30000, 45000,
    65000, 100000, 150000, 225000, 335000,
)  # fmt: skip

#: TTLs of the stats by day, and of the metrics, in seconds.
DAY_TTL = 5 * 365 * 86_400
MINUTE_TTL = 8 * 3600
TEN_MINUTES_TTL = 3 * 86_400

#: The versions of Sidekiq whose layouts are known.
LAYOUTS = ("7", "8")

#: Largest number in a bucket, a counter of 16 bits.
_MAX_COUNT = 65_535


@attrs.define
class Executions:
    """Executions of one job class: numbers of all and of failures, and durations of the others."""

    processed: int = 0
    failed: int = 0
    ms: int = 0
    buckets: list[int] = attrs.Factory(lambda: [0] * (len(BOUNDS) + 1))

    def add(self, ms: int, failed: bool) -> None:
        """Count one execution.  Like Sidekiq, record no duration for failures (``metrics/tracking.rb``)."""
        self.processed += 1
        if failed:
            self.failed += 1
        else:
            self.ms += ms
            self.buckets[bisect_right(BOUNDS, ms)] += 1


@attrs.frozen
class Counts:
    """Counts of one process since its last flush.

    Attributes:
      number: Serial number, by which a repeated flush is detected.
      at: Epoch seconds.
    """

    number: int
    at: float
    processed: int
    failed: int
    classes: Mapping[str, Executions]


def flush(connection: Connection, identity: str, counts: Counts, layouts: Collection[str]) -> list[str]:
    """Add counts to Redis.  Safe to repeat with the same counts.

    Returns:
      Keys that have another type; their counts were not added.
    """
    refused: list[bytes] = connection.call(*_command(identity, counts, layouts))
    return [key.decode() for key in refused]


def _command(identity: str, counts: Counts, layouts: Collection[str]) -> Command:
    moment = time.gmtime(counts.at)
    day = time.strftime("%Y-%m-%d", moment)
    fields = _fields(counts.classes)
    hashes: dict[str, int] = {}
    if fields:
        for layout in layouts:
            hashes.update(minutes(layout, moment))
    histograms = _histograms(counts.classes, layouts, moment)
    buckets = itertools.chain.from_iterable(part.arguments for part in histograms)
    return scripts.FLUSH.command(
        (
            keys.flushed(identity),
            keys.stat("processed"),
            keys.stat("processed", day),
            keys.stat("failed"),
            keys.stat("failed", day),
            *hashes,
            *(part.key for part in histograms),
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


def _fields(classes: Mapping[str, Executions]) -> list[Argument]:
    """Fields of the hashes of metrics, each followed by its increment."""
    fields: list[Argument] = []
    for name, done in classes.items():
        if done.processed > done.failed:
            fields += (f"{name}|ms", done.ms)
        fields += (f"{name}|p", done.processed)
        if done.failed:
            fields += (f"{name}|f", done.failed)
    return fields


@attrs.frozen
class _Histogram:
    """Increments of one histogram.

    Attributes:
      arguments: TTL, number of filled buckets, and index and increment of each.
    """

    key: str
    arguments: list[Argument]


def _histograms(
    classes: Mapping[str, Executions], layouts: Collection[str], moment: time.struct_time
) -> list[_Histogram]:
    """Increments of the histograms of all classes that have durations."""
    histograms: list[_Histogram] = []
    for layout in layouts:
        for name, done in classes.items():
            filled = [(index, min(count, _MAX_COUNT)) for index, count in enumerate(done.buckets) if count]
            if filled:
                increments = itertools.chain.from_iterable(filled)
                key = histogram(layout, name, moment)
                histograms.append(_Histogram(key, [MINUTE_TTL, len(filled), *increments]))
    return histograms


def minutes(layout: str, moment: time.struct_time) -> dict[str, int]:
    """Keys of the hashes of metrics at a moment, and their TTLs in seconds."""
    hour, minute = moment.tm_hour, moment.tm_min
    if layout == "7":
        return {f"j|{time.strftime('%Y%m%d', moment)}|{hour}:{minute}": MINUTE_TTL}
    day = time.strftime("%y%m%d", moment)
    return {f"j|{day}|{hour}:{minute // 10}": TEN_MINUTES_TTL, f"j|{day}|{hour}:{minute:02}": MINUTE_TTL}


def histogram(layout: str, name: str, moment: time.struct_time) -> str:
    """Key of a class's histogram for one minute: 26 counters of 16 bits."""
    if layout == "7":
        return f"{name}-{time.strftime('%d-%H', moment)}:{moment.tm_min}"
    return f"h|{name}-{moment.tm_mday}-{moment.tm_hour}:{moment.tm_min}"
