"""Where Prometheus asks: the counts of all worker processes, and how much waits in Redis.

Dramatiq's own middleware serves from a process of its own, which knows no
broker.  Here one of the worker processes does: it can ask Redis at each
scrape, and where it ends another one takes over.  A lock in the folder that
they share says which one it is.
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
from collections.abc import Iterator
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

#: Where prometheus_client's multiprocess mode keeps its files.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

#: How often files that are just being made are read again.
READS = 20


class Exposition:
    """Serves metrics from this process.

    Parameters:
      folder: Of the counts, where there are several processes.
      several: This process is one of several of the same command.

    Attributes:
      own: The registry that metrics of this process are made in.
      all: What is served.
    """

    def __init__(self, connection: Connection, host: str, port: int, folder: str | None, *, several: bool) -> None:
        self.logger = get_logger(__name__, type(self))
        self.host = host
        self.port = port
        self.own = prom.CollectorRegistry()
        self.folder: Path | None = None
        self._lock: Any = None
        self._server: Any = None
        self._told = False
        if several:
            self.folder = _shared_folder(folder)
            self.all = prom.CollectorRegistry()
            self.all.register(_Processes(self.folder))
        else:
            self.all = self.own
        self.all.register(_Waiting(connection))

    def text(self) -> str:
        """What a scrape would answer now."""
        return prom.generate_latest(self.all).decode()

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port, where this process is the one that serves."""
        return None if self._server is None else self._server.server_address[:2]

    def serve(self) -> None:
        """Serve from this process, unless it does or another one does."""
        if self._server is not None or not self._acquire():
            return
        try:
            self._server, _ = prom.start_http_server(self.port, self.host, self.all)
        except OSError as e:
            self._release()
            if not self._told:
                self._told = True
                self.logger.warning(
                    "Metrics cannot be served on %s:%d: %s. Another program may have the port; choose one by "
                    "Prometheus(port=...) or the environment variable dramatiq_prom_port.",
                    self.host,
                    self.port,
                    e,
                )
            return
        self.logger.info("Metrics are served on http://%s:%d/metrics.", *self._server.server_address[:2])

    def close(self) -> None:
        """Stop serving; what this process counted stays, but for what it had under way."""
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
    """The sum of what the processes counted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def collect(self) -> Iterator[Any]:
        for file in self.folder.glob("gauge_live*_*.db"):
            pid = int(file.stem.rpartition("_")[2])
            # Killed: what it had under way is not under way any more.
            if not _lives(pid):
                mark_process_dead(pid, str(self.folder))
        yield from self._sum()

    def _sum(self) -> Any:
        collector = MultiProcessCollector(None, str(self.folder))
        for _ in range(READS):
            try:
                return collector.collect()
            except struct.error:
                # A process that starts has made its file and not yet filled it.
                time.sleep(0.01)
        return collector.collect()


class _Waiting(Collector):
    """What waits in Redis, asked at the time of the scrape."""

    def __init__(self, connection: Connection) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = connection

    def collect(self) -> Iterator[Any]:
        up = GaugeMetricFamily("sidekiq_flow_redis_up", "Whether Redis answered this scrape.")
        try:
            found = depths(self.connection)
        except Exception as e:
            # The counts of the processes are worth having all the same.
            self.logger.warning("Redis could not be asked for what waits: %s", e)
            up.add_metric((), 0)
            yield up
            return
        up.add_metric((), 1)
        yield up
        for name, text, counts in (
            ("queue_depth", "Jobs that wait in a queue.", found.waiting),
            ("in_flight", "Jobs that Python workers have taken from a queue and not finished.", found.in_flight),
        ):
            gauge = GaugeMetricFamily(f"sidekiq_flow_{name}", text, labels=("queue",))
            for queue, count in counts.items():
                gauge.add_metric((queue,), count)
            yield gauge
        for name, text, count in (
            ("scheduled_jobs", "Jobs in the schedule set.", found.scheduled),
            ("retry_jobs", "Jobs in the retry set.", found.retries),
            ("dead_jobs", "Jobs in the dead set.", found.dead),
        ):
            yield GaugeMetricFamily(f"sidekiq_flow_{name}", text, value=count)


def _shared_folder(given: str | None) -> Path:
    """The folder of this command's processes; prometheus_client is told to use it."""
    given = given or os.environ.get(FOLDER_VARIABLE)
    if given:
        folder = Path(given)
        folder.mkdir(parents=True, exist_ok=True)
    else:
        folder = _fresh_folder()
    os.environ[FOLDER_VARIABLE] = str(folder)
    # Chosen when prometheus_client is first imported, which the application may have done already.
    if not values.ValueClass._multiprocess:
        values.ValueClass = values.MultiProcessValue()
    return folder


def _fresh_folder() -> Path:
    """A folder that the processes of one command find, and no other command.

    They have their parent in common.  A process id comes again, in a container
    at each start, so when the parent began is part of the name.
    """
    root = Path(tempfile.gettempdir()) / f"dramatiq-sidekiq-flow-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    if root.is_symlink() or root.stat().st_uid != os.getuid():
        raise ConfigurationError(f"{root} belongs to somebody else. Name another folder: Prometheus(folder=...).", root)
    for old in root.iterdir():
        pid, _, began = old.name.partition("-")
        if pid.isdigit() and began != _began(int(pid)):
            shutil.rmtree(old, ignore_errors=True)
    parent = os.getppid()
    folder = root / f"{parent}-{_began(parent)}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _began(pid: int) -> str:
    """When a process began, in whatever unit; empty where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        if os.path.exists("/proc/self/stat"):
            return ""
        ps = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return re.sub(r"\W+", "", ps.stdout)
    # The name of the program, in parentheses, may hold anything; 22nd is the start.
    return stat.rpartition(")")[2].split()[19]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
