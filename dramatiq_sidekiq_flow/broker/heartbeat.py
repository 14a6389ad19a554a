"""Beats of this worker process, and the recovery of those that stopped.

Each process has one thread that says "alive" for all its queues, by Redis's
own clock.  The same beat tells it who has been silent for too long; any live
process then puts the silent one's jobs back.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

from dramatiq.logging import get_logger

from ..errors import PayloadError, PoisonPill
from ..store import keys, processes, queues, workers
from ..store.connection import LOST, Connection
from ..wire import codec
from ..wire.payload import Payload, buried, failed, fingerprint
from .events import Events, Recovered

#: Jobs recovered by one script.
BATCH = 100


def hostname() -> str:
    """As Sidekiq names a host (``component.rb``)."""
    return (os.environ.get("DYNO") or socket.gethostname()).replace(":", "-")


class Heartbeat:
    """Keeps this process registered while it has consumers.

    Parameters:
      timeout: Seconds without a beat after which a worker is dead.
    """

    def __init__(self, connection: Connection, timeout: float) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = connection
        self.timeout = timeout
        self.interval = min(10.0, timeout / 5)
        #: Done after each beat; what raises is logged.
        self.tasks: list[Callable[[], None]] = []
        #: Lets what a job's run needs live on, though the job is dead now.
        self.keep: Callable[[Payload], None] = lambda job: None
        self.events = Events()
        self._members: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._identity: str | None = None
        self._pid = 0

    @property
    def identity(self) -> str:
        """``HOST:PID:NONCE``, as Sidekiq names a process (``component.rb``)."""
        if self._identity is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self._identity = f"{hostname()}:{self._pid}:{secrets.token_hex(6)}"
        return self._identity

    @property
    def members(self) -> set[str]:
        """What this process is registered as, one per queue."""
        with self._lock:
            return set(self._members)

    def start(self) -> None:
        """Start the thread, once."""
        with self._lock:
            self._start()

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._run, name="sidekiq-heartbeat", daemon=True)
            self._thread.start()

    def forget(self) -> None:
        """In a forked child: begin without the parent's members and thread."""
        self._lock = threading.Lock()
        self._members, self._thread = set(), None

    def register(self, queue_name: str) -> str:
        """Register this process for a queue; returns the member.

        Where Redis is away, the next beat does it.
        """
        member = keys.worker_member(self.identity, queue_name)
        with self._lock:
            self._members.add(member)
            self._start()
        with contextlib.suppress(*LOST):
            workers.beat(self.connection, [member], self.timeout)
        return member

    def beat(self) -> None:
        """Beat now, and recover whom the beat finds dead."""
        for member in workers.beat(self.connection, self.members, self.timeout):
            self.recover(member)

    def recover(self, member: str) -> None:
        """Put back what a dead worker had in flight."""
        queue_name = keys.queue_of(member)
        now = time.time()
        orphans = [
            _orphan(receipt, raw, queue_name, now) for receipt, raw in queues.in_flight(self.connection, member).items()
        ]
        for start in range(0, max(1, len(orphans)), BATCH):
            back, dead = workers.recover(
                self.connection, member, orphans[start : start + BATCH], timeout=self.timeout, now=now
            )
            if dead:
                # Which of these died, the reply does not say; it does the others no harm.
                for orphan in orphans[start : start + BATCH]:
                    if orphan.job is not None:
                        self.keep(orphan.job)
            if back or dead:
                self.events.tell(Recovered(queue_name, back, dead))
                # Its record would stand on the Busy page until somebody looks.
                processes.gone(self.connection, keys.identity_of(member))
                self.logger.warning(
                    "Worker %s is dead: %d of its jobs are back in queue %r, %d are dead.",
                    member,
                    back,
                    queue_name,
                    dead,
                )

    def stop(self) -> None:
        """Stop beating; members without jobs in flight are forgotten."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._lock:
            members, self._members = list(self._members), set()
        empty = [m for m in members if not queues.in_flight(self.connection, m)]
        workers.strike_off(self.connection, empty)

    def _run(self) -> None:
        stop = self._stop
        while not stop.wait(self.interval):
            try:
                self.beat()
            except Exception as e:
                self.logger.warning("No heartbeat this time: %s", e)
            for task in self.tasks:
                try:
                    task()
                except Exception as e:
                    self.logger.warning("%s", e)


def _orphan(receipt: str, raw: bytes, queue_name: str, now: float) -> workers.Orphan:
    error = PoisonPill(
        f"The job was in flight when its worker died, {workers.MAX_RECOVERIES} times within "
        f"{workers.RECOVERY_WINDOW // 3600} hours. Look for what kills the process, then retry it.",
        raw,
    )
    try:
        # Its callback stack is not needed here, wherever that is kept.
        job = Payload.decode(raw, lambda stored: None)
    except PayloadError as e:
        return workers.Orphan(receipt, fingerprint(raw), buried(raw, e, now=now, queue=queue_name))
    return workers.Orphan(receipt, job.jid, codec.encode(failed(job.fields, error, now=now, queue=queue_name)), job)
