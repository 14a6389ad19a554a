"""This worker process, as Sidekiq's Web UI shows it (``launcher.rb``).

With each beat: the counts of the jobs done since the last one, the record of
the process and of what its threads work on, and the signals that a person
has sent.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import attrs
from dramatiq.logging import get_logger

from ..errors import ConfigurationError
from ..store import processes, stats
from ..store.stats import Counts
from ..wire import codec
from . import signals
from .banner import banner, boot_warnings
from .fleet import LANGUAGE, name_of, queues_of, ruby_infos
from .heartbeat import hostname

if TYPE_CHECKING:
    from .broker import SidekiqBroker

#: How often to look at the other processes, in seconds.
LOOK_INTERVAL = 60.0


@attrs.frozen
class Appearance:
    """How a process is to be seen.

    Attributes:
      shown: Whether it has a record at all.
      tag: Shown beside its name.
      labels: Shown beside its tag.
      metrics: ``auto``, ``7``, ``8``, ``both`` or ``off``: whose layout of
        metrics to write.  ``auto`` is that of the Ruby processes that run,
        and both as long as none does.

    Raises:
      ConfigurationError: for another layout.
    """

    shown: bool = True
    tag: str = ""
    labels: tuple[str, ...] = ("python",)
    metrics: str = attrs.field(default="auto")

    @metrics.validator
    def _known(self, attribute: Any, value: str) -> None:
        if value not in ("auto", "both", "off", *stats.LAYOUTS):
            raise ConfigurationError("metrics must be 'auto', '7', '8', 'both' or 'off'.", value)


class Processes:
    """The record of this process, and its counts."""

    def __init__(self, broker: SidekiqBroker, appearance: Appearance) -> None:
        self.logger = get_logger(__name__, type(self))
        self.broker = broker
        self.appearance = appearance
        # Counts are numbered, and signals heard, by one thread at a time.
        self._lock = threading.Lock()
        self._belongs_to: int | None = None
        self._started_at = 0.0
        self._pending: Counts | None = None
        self._layouts: tuple[str, ...] = stats.LAYOUTS
        self._looked = float("-inf")
        self._written = ""

    def start(self) -> None:
        """A worker starts: show it."""
        self._belongs_to = signals.master()
        self._started_at = time.time()
        self.logger.info("%s", banner(self.broker))
        for warning in boot_warnings(self.broker):
            self.logger.warning("%s", warning)
        try:
            self.beat()
        except Exception as e:
            # A worker must start without it, too; the next beat tries again.
            self.logger.warning("The record of this process could not be written: %s", e)

    def forget(self) -> None:
        """In a forked child: begin without the parent's record."""
        self._lock = threading.Lock()
        self._pending, self._written = None, ""

    def beat(self) -> None:
        """Write all anew, and obey."""
        with self._lock:
            self._look()
            self._flush()
            heard = self._show() if self.appearance.shown and self.broker.workers else []
        for name in heard:
            signals.obey(name, self.broker, self._belongs_to)

    def _show(self) -> list[str]:
        broker, identity = self.broker, self.broker.heartbeat.identity
        work = broker.tally.running()
        fields = {
            "info": codec.encode(self.info()),
            "concurrency": self.concurrency,
            "busy": len(work),
            "beat": repr(time.time()),
            "quiet": "true" if broker.quiet else "false",
            "rss": _rss(),
            "rtt_us": self._round_trip(),
        }
        self._written = identity
        heard = processes.beat(broker.connection, identity, fields, work, ttl=broker.heartbeat.timeout)
        processes.heard(broker.connection, identity, heard)
        return heard

    def stop(self) -> None:
        """The worker has ended: its counts are written, and nothing of its record stays."""
        with self._lock:
            self._flush()
            if self._written:
                processes.gone(self.broker.connection, self._written)
                self._written = ""

    def flush(self) -> None:
        """Write what was counted.  What could not be is kept for the next time."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        while True:
            self._pending = self._pending or self.broker.tally.take()
            if self._pending is None:
                return
            identity = self.broker.heartbeat.identity
            for key in stats.flush(self.broker.connection, identity, self._pending, self._layout()):
                self.logger.warning("Nothing could be counted in the Redis key %r, which holds something else.", key)
            self._pending = None

    @property
    def concurrency(self) -> int:
        return self.broker.threads

    def info(self) -> dict[str, Any]:
        """What 7.3 (``queues``, ``weights``) and 8.1 (``capsules``) know of a process."""
        order = self.broker.order
        queues = order.sort(self._queues())
        weights = {name: order.weight(name) for name in queues}
        return {
            "hostname": hostname(),
            "started_at": self._started_at,
            "pid": os.getpid(),
            "tag": self.appearance.tag,
            "concurrency": self.concurrency,
            "capsules": {"default": {"concurrency": self.concurrency, "mode": order.mode, "weights": weights}},
            "queues": queues,
            "weights": [weights],
            "labels": list(self.appearance.labels),
            "identity": self.broker.heartbeat.identity,
            "version": _version(),
            "embedded": self._belongs_to is None,
            "language": LANGUAGE,
        }

    def _layout(self) -> tuple[str, ...]:
        wanted = self.appearance.metrics
        return {"auto": self._layouts, "both": stats.LAYOUTS, "off": ()}.get(wanted, (wanted,))

    def _queues(self) -> set[str]:
        return {name for worker in self.broker.workers for name in list(worker.consumers)}

    def _look(self) -> None:
        """Look at Ruby's processes: which Sidekiq they are of, and that none takes from a queue of this one."""
        if not self.broker.workers or time.monotonic() - self._looked < LOOK_INTERVAL:
            return
        found = ruby_infos(processes.infos(self.broker.connection).values())
        if found:
            # Until one is there it is looked for with each beat: it may be about to start.
            self._looked = time.monotonic()
        self._layouts = layouts(found)
        for name in sorted(self._queues() & queues_of(found)):
            # With each look, once a minute: as long as it is so, steps can be lost.
            self.logger.warning(
                "Ruby process %s consumes queue %r, too. Each language takes jobs that only the other one knows, and a "
                "Ruby process passes a step of Python's without running it. Give each language queues of its own: "
                "queue_name= of the actors here, `-Q` of this worker, and the queues in Ruby's sidekiq.yml.",
                next(name_of(info) for info in found if name in queues_of([info])),
                name,
            )

    def _round_trip(self) -> int:
        begun = time.perf_counter()
        self.broker.connection.call("PING")
        return int((time.perf_counter() - begun) * 1e6)


def layouts(infos: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The layouts of metrics that the Ruby processes of a fleet read; all where there are none."""
    found = set()
    for info in infos:
        major = str(info.get("version", "")).partition(".")[0]
        if major.isdigit():
            found.add("7" if int(major) < 8 else "8")
    return tuple(sorted(found)) or stats.LAYOUTS


def _rss() -> int:
    """Resident memory in kilobytes."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * (resource.getpagesize() // 1024)
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most // 1024 if sys.platform == "darwin" else most


def _version() -> str:
    try:
        return version("dramatiq-sidekiq-flow")
    except PackageNotFoundError:
        return "0"
