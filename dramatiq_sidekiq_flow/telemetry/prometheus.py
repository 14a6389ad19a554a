"""Prometheus metrics of jobs, counted in the worker processes.

Works as Dramatiq's own Prometheus middleware, also under the ``dramatiq``
command: each worker process writes to its own files (prometheus_client's
multiprocess mode), and one of them serves the sum of all.
"""

from __future__ import annotations

import importlib.util
import os
import time
from typing import TYPE_CHECKING, Any

import attrs
import dramatiq
from dramatiq.logging import get_logger

from ..broker import SidekiqBroker
from ..broker.dramatiq_internals import wanted_queues
from ..errors import BarrierExpired, ConfigurationError
from ..process.events import Buried, Recovered, Unreplicated
from ..wire.payload_fields import seconds
from .observer import JobExecution, JobObserver

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from ..process.events import Event
    from .exposition import Exposition

#: Upper bounds of the histograms, in seconds: from a no-op to ten minutes.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, float("inf"))

LABELS = ("queue", "actor")


class Prometheus(JobObserver):
    """Count jobs, and serve the metrics over HTTP.

    Examples:

      >>> broker.add_middleware(Prometheus())     # then: curl localhost:9191/metrics

    Parameters:
      host, port: Address that serves the metrics; by default the environment
        variables of Dramatiq's own middleware, ``dramatiq_prom_host`` and
        ``dramatiq_prom_port``, else ``0.0.0.0`` and 9191.  One of a command's
        worker processes serves; when it ends, another takes its place.
      folder: Folder for the counts of the processes, for this command alone and
        empty at its start; by default ``PROMETHEUS_MULTIPROC_DIR``, else a
        fresh one.

    Raises:
      ConfigurationError: if prometheus_client is not installed.
    """

    def __init__(self, *, host: str | None = None, port: int | None = None, folder: str | None = None) -> None:
        super().__init__()
        # Not imported here: prometheus_client reads the environment at import.
        if importlib.util.find_spec("prometheus_client") is None:
            raise ConfigurationError(
                "prometheus_client is not installed: pip install 'dramatiq-sidekiq-flow[prometheus]'."
            )
        self.host = host if host is not None else os.environ.get("dramatiq_prom_host", "0.0.0.0")  # noqa: SIM112
        self.port = port if port is not None else int(os.environ.get("dramatiq_prom_port", "9191"))  # noqa: SIM112
        self.folder = folder
        self.logger = get_logger(__name__, type(self))
        self.exposition: Exposition | None = None
        self._metrics: _Metrics | None = None
        self._children: dict[tuple[str, str], _Children] = {}

    def attach(self, broker: dramatiq.Broker) -> None:
        """Called by the broker that this middleware was added to."""
        if not isinstance(broker, SidekiqBroker):
            raise ConfigurationError(f"Prometheus needs a SidekiqBroker, not a {type(broker).__name__}.", broker)
        broker.events.listeners.append(self._count_event)
        # At each heartbeat, since the process that serves may end before the others.
        broker.process.heartbeat.tasks.append(self._serve)

    @property
    def watching(self) -> bool:
        return self._metrics is not None

    # -- start and end of a worker --------------------------------------------

    def after_process_boot(self, broker: Any) -> None:
        """Under the ``dramatiq`` command: one of several processes."""
        self._prepare(broker, several=True)

    def before_worker_boot(self, broker: Any, worker: Any) -> None:
        if self.exposition is None:
            self._prepare(broker, several=False)
        if self.exposition is None:
            return
        self._add_actors(broker, wanted_queues(worker))
        self._serve()

    def _add_actors(self, broker: Any, queues: Any) -> None:
        """Make the metrics of the actors on these queues, all if none are given: they exist from the start, as 0."""
        for actor in broker.actors.values():
            if not queues or actor.queue_name in queues:
                self._child(actor.queue_name, actor.actor_name)

    def after_worker_shutdown(self, broker: Any, worker: Any) -> None:
        exposition, self.exposition, self._metrics = self.exposition, None, None
        if exposition is not None:
            exposition.close()

    def _prepare(self, broker: Any, several: bool) -> None:
        from .exposition import Exposition

        if not isinstance(broker, SidekiqBroker):
            self.logger.error(
                "Prometheus counts nothing on a %s: it needs a SidekiqBroker. For other brokers use Dramatiq's own "
                "middleware of that name.",
                type(broker).__name__,
            )
            return
        self.exposition = Exposition(broker.connection, self.host, self.port, self.folder, several=several)
        self._children = {}
        self._metrics = _Metrics.new(self.exposition.own)

    def _serve(self) -> None:
        exposition = self.exposition
        if exposition is not None:
            exposition.serve()

    # -- jobs and events --------------------------------------------------------

    def begin(self, job: JobExecution) -> None:
        child = self._child(job.queue, job.actor)
        child.running.inc()
        payload = getattr(job.message, "payload", None)
        if payload is not None:
            since = seconds(payload.fields.get("enqueued_at"))
            if since is not None:
                child.latency.observe(max(0.0, time.time() - since))

    def end(self, job: JobExecution) -> None:
        # A job without an actor here may have any name, which must not become a label.
        known = job.began is not None or job.outcome == "skip"
        child = self._child(job.queue, job.actor if known else "")
        if job.began is not None:
            child.running.dec()
        if job.outcome not in ("skip", "lost", "requeue"):
            self._count(job, child)

    def _count(self, job: JobExecution, child: _Children) -> None:
        """Count a try that ended."""
        if job.elapsed is not None:
            child.duration.observe(job.elapsed)
        if job.exception is not None:
            child.failures.inc()
            if isinstance(job.exception, BarrierExpired):
                child.expired.inc()
        counter = child.outcomes.get(job.outcome)
        if counter is not None:
            counter.inc()
        elif _is_step(job):
            child.advances.inc()
        # Increment last, so a scrape that sees the job also sees its other metrics.
        child.jobs.inc()

    def _count_event(self, event: Event) -> None:
        metrics = self._metrics
        if metrics is None:
            return
        if isinstance(event, Recovered):
            metrics.recovered.labels(event.queue).inc(event.back)
            self._child(event.queue, "").outcomes["dead"].inc(event.dead)
        elif isinstance(event, Buried):
            self._child(event.queue, "").outcomes["dead"].inc()
        elif isinstance(event, Unreplicated):
            metrics.unreplicated.inc()

    def _child(self, queue: str, actor: str) -> _Children:
        child = self._children.get((queue, actor))
        if child is None:
            assert self._metrics is not None
            child = self._children[queue, actor] = _Children.of(self._metrics, queue, actor)
        return child


def _is_step(job: JobExecution) -> bool:
    """Whether more steps follow the job."""
    payload = getattr(job.message, "payload", None)
    return payload is not None and bool(payload.stack)


@attrs.frozen
class _Metrics:
    """All metrics of a registry."""

    jobs: Any
    failures: Any
    retries: Any
    dead: Any
    discarded: Any
    advances: Any
    expired: Any
    recovered: Any
    unreplicated: Any
    latency: Any
    duration: Any
    running: Any

    @classmethod
    def new(cls, registry: CollectorRegistry) -> _Metrics:
        import prometheus_client as prom

        def counter(name: str, text: str, labels: tuple[str, ...] = LABELS) -> Any:
            return prom.Counter(f"sidekiq_flow_{name}_total", text, labels, registry=registry)

        def histogram(name: str, text: str) -> Any:
            return prom.Histogram(f"sidekiq_flow_{name}_seconds", text, LABELS, registry=registry, buckets=BUCKETS)

        return cls(
            jobs=counter("jobs", "Tries of jobs that ended, failed or not."),
            failures=counter("failures", "Tries of jobs that failed."),
            retries=counter("retries", "Failed jobs that will be tried again."),
            dead=counter("dead", "Jobs that went to the dead set."),
            discarded=counter("discarded", "Failed jobs that were discarded, as their options say."),
            advances=counter("advances", "Steps that were done and went on with their workflow."),
            expired=counter("barrier_expired", "Steps whose workflow could not go on: its barrier was gone."),
            recovered=counter("recovered", "Jobs of dead workers that are in their queue again.", ("queue",)),
            unreplicated=counter("unreplicated", "Round trips of acknowledgements that too few replicas have.", ()),
            latency=histogram("latency", "From the push to the start of a try."),
            duration=histogram("duration", "From the start of a try to its end."),
            running=prom.Gauge(
                "sidekiq_flow_running",
                "Jobs that threads are at work on.",
                LABELS,
                registry=registry,
                multiprocess_mode="livesum",
            ),
        )


@attrs.frozen
class _Children:
    """Metrics of one queue and actor, looked up once."""

    jobs: Any
    failures: Any
    advances: Any
    expired: Any
    latency: Any
    duration: Any
    running: Any
    outcomes: dict[str, Any]

    @classmethod
    def of(cls, metrics: _Metrics, queue: str, actor: str) -> _Children:
        def child(metric: Any) -> Any:
            return metric.labels(queue, actor)

        outcomes = {"retry": metrics.retries, "dead": metrics.dead, "discard": metrics.discarded}
        return cls(
            jobs=child(metrics.jobs),
            failures=child(metrics.failures),
            advances=child(metrics.advances),
            expired=child(metrics.expired),
            latency=child(metrics.latency),
            duration=child(metrics.duration),
            running=child(metrics.running),
            outcomes={name: child(metric) for name, metric in outcomes.items()},
        )
