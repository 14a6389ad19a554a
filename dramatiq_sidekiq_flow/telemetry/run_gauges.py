"""Gauges of runs and queues, read from Redis at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dramatiq.logging import get_logger
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ..process.fleet import FleetView
from ..store import run_stats
from ..store.connection import Connection
from ..store.queue_stats import queue_names

#: How old the copy of the process records may be, in seconds.
MAX_AGE = 5.0


class RunGauges(Collector):
    """Collects the numbers of runs, and whether and for how long queues wait.

    A part that the Redis user may not read is left out.
    """

    def __init__(self, connection: Connection) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = connection
        self.fleet = FleetView(connection)

    def collect(self) -> Iterator[Any]:
        yield from self._guarded(self._runs)
        yield from self._guarded(self._queues)

    def _guarded(self, part: Callable[[], list[Any]]) -> list[Any]:
        try:
            return part()
        except Exception as e:
            self.logger.warning("This scrape has no gauges of runs, or of queues: %s", e)
            return []

    def _runs(self) -> list[Any]:
        stats = run_stats.run_stats(self.connection)
        age = "Age of the oldest run that has not ended."
        return [
            _gauge("runs", "Runs by recorded state.", "state", stats.counts),
            GaugeMetricFamily("sidekiq_flow_oldest_open_run_seconds", age, value=stats.oldest),
        ]

    def _queues(self) -> list[Any]:
        names = queue_names(self.connection)
        served = self.fleet.look(MAX_AGE).queues
        paused = run_stats.paused(self.connection)
        latency = run_stats.latencies(self.connection, names)
        is_served = {name: int(name in served) for name in names}
        is_paused = {name: int(name in paused) for name in names}
        return [
            _gauge("queue_latency_seconds", "Time that the next job of a queue has waited.", "queue", latency),
            _gauge("queue_served", "1 if a live process consumes the queue, else 0.", "queue", is_served),
            _gauge("queue_paused", "1 if the queue is paused, else 0.", "queue", is_paused),
        ]


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Any:
    gauge = GaugeMetricFamily(f"sidekiq_flow_{name}", text, labels=(label,))
    for value, number in values.items():
        gauge.add_metric((value,), number)
    return gauge
