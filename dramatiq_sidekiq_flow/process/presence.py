"""Registers this worker process for Sidekiq's Web UI (``launcher.rb``).

Each beat writes the counts of the jobs done since the last one, the record of
the process and the jobs that its threads work on, and handles signals that the
Web UI has sent.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, Protocol

import attrs
from dramatiq.logging import get_logger

from ..errors import ConfigurationError
from ..store import processes
from ..store import stats as stats_store
from ..store.connection import Connection
from ..store.stats import Counts
from ..wire import codec
from ..wire.dialect import NOOP_CLASSES
from .execution_stats import ExecutionStats
from .fleet import LANGUAGE, name_of, queues_of, ruby_infos
from .heartbeat import Heartbeat
from .identity import hostname
from .signals import Master, handle_signal

#: Seconds between two looks at the other processes.
LOOK_INTERVAL = 60.0


@attrs.frozen
class ProcessInfo:
    """Settings of the Web UI's view of a process.

    Attributes:
      shown: Whether it has a record at all.
      tag: Shown beside its name.
      labels: Shown beside its tag.
      metrics: ``auto``, ``7``, ``8``, ``both`` or ``off``: whose layout of
        metrics to write.  ``auto`` is that of the Ruby processes that run,
        and both if there is none.

    Raises:
      ConfigurationError: for another layout.
    """

    shown: bool = True
    tag: str = ""
    labels: tuple[str, ...] = ("python",)
    metrics: str = attrs.field(default="auto")

    @metrics.validator
    def _known(self, attribute: Any, value: str) -> None:
        if value not in ("auto", "both", "off", *stats_store.LAYOUTS):
            raise ConfigurationError("metrics must be 'auto', '7', '8', 'both' or 'off'.", value)


class Worker(Protocol):
    """The workers of this process; see ``broker.worker_process``."""

    quiet: bool

    @property
    def threads(self) -> int: ...
    @property
    def actors(self) -> Mapping[str, Any]: ...
    def is_running(self) -> bool: ...
    def consumed_queues(self) -> set[str]: ...
    def stop_fetching(self) -> None: ...


class QueueModes(Protocol):
    """The order in which this process serves its queues; see ``broker.queue_order``."""

    mode: Literal["strict", "weighted", "random"]

    def weight(self, queue_name: str) -> int: ...
    def sort(self, queue_names: Iterable[str]) -> list[str]: ...


class Presence:
    """The record of this process, and its counts."""

    def __init__(
        self,
        *,
        connection: Connection,
        heartbeat: Heartbeat,
        stats: ExecutionStats,
        worker: Worker,
        queue_modes: QueueModes,
        master: Master,
        process_info: ProcessInfo,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = connection
        self.heartbeat = heartbeat
        self.stats = stats
        self.worker = worker
        self.queue_modes = queue_modes
        self.master = master
        self.process_info = process_info
        # Counts are numbered, and signals acknowledged, by one thread at a time.
        self._lock = threading.Lock()
        self._started_at = 0.0
        self._pending: Counts | None = None
        self._layouts: tuple[str, ...] = stats_store.LAYOUTS
        self._looked = float("-inf")
        self._written = ""

    def start(self) -> None:
        """Show a worker that has started."""
        self._started_at = time.time()
        try:
            self.beat()
        except Exception as e:
            # A worker starts without a record, too; the next beat tries again.
            self.logger.warning("The record of this process could not be written: %s", e)

    def forget(self, stats: ExecutionStats) -> None:
        """In a forked child: begin without the parent's record and counts."""
        self._lock = threading.Lock()
        self.stats = stats
        self._pending, self._written = None, ""

    def beat(self) -> None:
        """Refresh the process record, and handle pending signals."""
        with self._lock:
            self._inspect_fleet()
            self._flush()
            shown = self.process_info.shown and self.worker.is_running()
            pending = self._show() if shown else []
        for name in pending:
            handle_signal(name, self.worker, self.master.pid)

    def _show(self) -> list[str]:
        """Write the record; returns the signals that the Web UI has sent."""
        identity = self.heartbeat.identity
        work = self.stats.running()
        fields = {
            "info": codec.encode(self.info()),
            "actors": codec.encode(sorted(self.worker.actors.keys() - NOOP_CLASSES)),
            "concurrency": self.worker.threads,
            "busy": len(work),
            "beat": repr(time.time()),
            "quiet": "true" if self.worker.quiet else "false",
            "rss": _rss(),
            "rtt_us": self._round_trip(),
        }
        self._written = identity
        pending = processes.beat(self.connection, identity, fields, work, ttl=self.heartbeat.timeout)
        processes.acknowledge_signals(self.connection, identity, pending)
        return pending

    def stop(self) -> None:
        """Write the last counts, and remove the record."""
        with self._lock:
            self._flush()
            if self._written:
                processes.remove(self.connection, self._written)
                self._written = ""

    def flush(self) -> None:
        """Write the counts; those that cannot be written are kept for the next time."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        while True:
            self._pending = self._pending or self.stats.drain()
            if self._pending is None:
                return
            identity = self.heartbeat.identity
            for key in stats_store.flush(self.connection, identity, self._pending, self._layout()):
                self.logger.warning("The Redis key %r holds another type, so nothing was counted there.", key)
            self._pending = None

    def info(self) -> dict[str, Any]:
        """The process info that 7.3 (``queues``, ``weights``) and 8.1 (``capsules``) read."""
        modes, threads = self.queue_modes, self.worker.threads
        queues = modes.sort(self.worker.consumed_queues())
        weights = {name: modes.weight(name) for name in queues}
        return {
            "hostname": hostname(),
            "started_at": self._started_at,
            "pid": os.getpid(),
            "tag": self.process_info.tag,
            "concurrency": threads,
            "capsules": {"default": {"concurrency": threads, "mode": modes.mode, "weights": weights}},
            "queues": queues,
            "weights": [weights],
            "labels": list(self.process_info.labels),
            "identity": self.heartbeat.identity,
            "version": _version(),
            "embedded": self.master.pid is None,
            "language": LANGUAGE,
        }

    def _layout(self) -> tuple[str, ...]:
        wanted = self.process_info.metrics
        return {"auto": self._layouts, "both": stats_store.LAYOUTS, "off": ()}.get(wanted, (wanted,))

    def _inspect_fleet(self) -> None:
        """Find the Sidekiq versions of Ruby's processes, and warn of queues that both languages consume."""
        if not self.worker.is_running() or time.monotonic() - self._looked < LOOK_INTERVAL:
            return
        found = ruby_infos(processes.infos(self.connection).values())
        if found:
            # While there is none, each beat looks again: one may be about to start.
            self._looked = time.monotonic()
        self._layouts = layouts(found)
        self._warn_of_shared_queues(found)

    def _warn_of_shared_queues(self, ruby: list[dict[str, Any]]) -> None:
        """Warn of queues that this process and one of Ruby's consume, again with each look: steps can be lost."""
        for name in sorted(self.worker.consumed_queues() & queues_of(ruby)):
            self.logger.warning(
                "Ruby process %s consumes queue %r, too. Each language takes jobs that only the other one knows, and a "
                "Ruby process passes a step of Python's without running it. Give each language queues of its own: "
                "queue_name= of the actors here, `-Q` of this worker, and the queues in Ruby's sidekiq.yml.",
                next(name_of(info) for info in ruby if name in queues_of([info])),
                name,
            )

    def _round_trip(self) -> int:
        begun = time.perf_counter()
        self.connection.call("PING")
        return int((time.perf_counter() - begun) * 1e6)


def layouts(infos: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The layouts of metrics that the Ruby processes of a fleet read; all if there is no such process."""
    found = set()
    for info in infos:
        major = str(info.get("version", "")).partition(".")[0]
        if major.isdigit():
            found.add("7" if int(major) < 8 else "8")
    return tuple(sorted(found)) or stats_store.LAYOUTS


def _rss() -> int:
    """Resident memory in kilobytes."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * (os.sysconf("SC_PAGE_SIZE") // 1024)
    except OSError:
        import resource  # not on Linux

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most // 1024 if sys.platform == "darwin" else most


def _version() -> str:
    try:
        return version("dramatiq-sidekiq-flow")
    except PackageNotFoundError:
        return "0"
