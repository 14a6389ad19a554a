"""HTTP server for Prometheus metrics: counts of all worker processes, and sizes of queues and sets.

Dramatiq's own middleware serves from a separate process, which has no broker.
Here one of the worker processes serves: it can read from Redis at each scrape,
and when it ends another one takes over.  A lock in their shared folder decides
which one serves.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import prometheus_client as prom
from dramatiq.logging import get_logger
from prometheus_client import values
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from ..errors import ConfigurationError
from ..store.connection import Connection
from ..store.queue_stats import depths
from .run_gauges import RunGauges

#: Environment variable for the folder of prometheus_client's multiprocess mode.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

#: Maximum reads of files that a starting process is still creating.
READS = 20


class Exposition:
    """HTTP server for the metrics.

    Parameters:
      folder: Folder of the counts, if there are several processes.
      several: True if this process is one of several of the same command.

    Attributes:
      own: Registry of this process's metrics.
      all: Registry of the metrics that are served.
    """

    def __init__(self, connection: Connection, host: str, port: int, folder: str | None, *, several: bool) -> None:
        self.logger = get_logger(__name__, type(self))
        self.host = host
        self.port = port
        self.own = prom.CollectorRegistry()
        self.folder: Path | None = None
        self._lock: Any = None
        self._server: Any = None
        self._warned = False
        if several:
            self.folder = _shared_folder(folder)
            self.all = prom.CollectorRegistry()
            self.all.register(_Processes(self.folder))
        else:
            self.all = self.own
        self.all.register(_Sizes(connection))
        self.all.register(RunGauges(connection))

    def text(self) -> str:
        """Return the metrics as text, as a scrape gets them.  For tests."""
        return prom.generate_latest(self.all).decode()

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port, if this process serves.  For tests."""
        if self._server is None:
            return None
        host, port = self._server.server_address[:2]
        return host, port

    def serve(self) -> None:
        """Serve from this process, unless this or another one already serves."""
        if self._server is not None or not self._acquire():
            return
        try:
            self._server, _ = prom.start_http_server(self.port, self.host, self.all)
        except OSError as e:
            self._release()
            if not self._warned:
                self._warned = True
                self.logger.warning(
                    "Metrics cannot be served on %s:%d: %s. Another program may use the port; choose another one with "
                    "Prometheus(port=...) or the environment variable dramatiq_prom_port.",
                    self.host,
                    self.port,
                    e,
                )
            return
        self.logger.info("Metrics are served on http://%s:%d/metrics.", *self._server.server_address[:2])

    def close(self) -> None:
        """Stop serving.  Counts of this process stay, except its number of running jobs."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        self._release()
        if self.folder is not None:
            mark_process_dead(os.getpid(), str(self.folder))

    def _acquire(self) -> bool:
        if self.folder is None:
            return True
        self._lock = (self.folder / "server.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._release()
            return False
        return True

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()


class _Processes(Collector):
    """Collects the sum of the counts of all processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def collect(self) -> Iterator[Any]:
        for file in self.folder.glob("gauge_live*_*.db"):
            pid = int(file.stem.rpartition("_")[2])
            # A killed process no longer has running jobs.
            if not _is_alive(pid):
                mark_process_dead(pid, str(self.folder))
        yield from self._sum()

    def _sum(self) -> Any:
        collector = MultiProcessCollector(None, str(self.folder))
        for _ in range(READS):
            try:
                return collector.collect()
            except struct.error:
                # A starting process has created its file but not yet filled it.
                time.sleep(0.01)
        return collector.collect()


class _Sizes(Collector):
    """Collects the sizes of queues and sets from Redis, at each scrape."""

    def __init__(self, connection: Connection) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = connection

    def collect(self) -> Iterator[Any]:
        up = GaugeMetricFamily("sidekiq_flow_redis_up", "1 if Redis answered this scrape, else 0.")
        try:
            sizes = depths(self.connection)
        except Exception as e:
            # Without Redis, still serve the counts of the processes.
            self.logger.warning("Redis did not answer; this scrape has no sizes of queues and sets: %s", e)
            up.add_metric((), 0)
            yield up
            return
        up.add_metric((), 1)
        yield up
        yield _by_queue("queue_depth", "Jobs that wait in a queue.", sizes.waiting)
        yield _by_queue(
            "in_flight", "Jobs that Python workers have fetched from a queue and not finished.", sizes.in_flight
        )
        yield _gauge("scheduled_jobs", "Jobs in the schedule set.", sizes.scheduled)
        yield _gauge("retry_jobs", "Jobs in the retry set.", sizes.retries)
        yield _gauge("dead_jobs", "Jobs in the dead set.", sizes.dead)


def _by_queue(name: str, text: str, counts: Mapping[str, int]) -> Any:
    gauge = GaugeMetricFamily(f"sidekiq_flow_{name}", text, labels=("queue",))
    for queue, count in counts.items():
        gauge.add_metric((queue,), count)
    return gauge


def _gauge(name: str, text: str, count: int) -> Any:
    return GaugeMetricFamily(f"sidekiq_flow_{name}", text, value=count)


def _shared_folder(given: str | None) -> Path:
    """Get the folder of this command's processes, and configure prometheus_client to use it."""
    given = given or os.environ.get(FOLDER_VARIABLE)
    if given:
        folder = Path(given)
        folder.mkdir(parents=True, exist_ok=True)
    else:
        folder = _fresh_folder()
    os.environ[FOLDER_VARIABLE] = str(folder)
    # prometheus_client chooses the mode when it is imported, which the application may have done already.
    if not values.ValueClass._multiprocess:
        values.ValueClass = values.MultiProcessValue()
    return folder


def _fresh_folder() -> Path:
    """Get a folder that the processes of one command share, named after their parent.

    Process ids are reused, in a container at each start, so the start time of
    the parent is part of the name.
    """
    root = Path(tempfile.gettempdir()) / f"dramatiq-sidekiq-flow-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    if root.is_symlink() or root.stat().st_uid != os.getuid():
        raise ConfigurationError(f"{root} belongs to another user. Name another folder: Prometheus(folder=...).", root)
    _remove_old_folders(root)
    parent = os.getppid()
    folder = root / f"{parent}-{_began(parent)}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _remove_old_folders(root: Path) -> None:
    """Remove the folders of commands that have ended."""
    for folder in root.iterdir():
        pid, _, began = folder.name.partition("-")
        if pid.isdigit() and began != _began(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _began(pid: int) -> str:
    """Return the start time of a process, in a unit of the system; "" if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        if os.path.exists("/proc/self/stat"):
            return ""
        ps = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return re.sub(r"\W+", "", ps.stdout)
    # The start is the 22nd field. The name of the program, in parentheses, may hold spaces.
    return stat.rpartition(")")[2].split()[19]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
