"""Beats of this worker process, which also tell it whose beats have stopped.

Each process has one thread that says "alive" for all its queues, by Redis's
own clock.  The same beat tells it who has been silent for too long, and where
it has more in flight than it knows of.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from ..store import fanouts, keys, workers
from ..store.connection import LOST, Connection
from ..wire.payload import Payload
from .availability import Availability
from .events import Events
from .in_flight import InFlight
from .recovery import Recovery
from .upkeep import Upkeep


def hostname() -> str:
    """As Sidekiq names a host (``component.rb``)."""
    return (os.environ.get("DYNO") or socket.gethostname()).replace(":", "-")


class Heartbeat:
    """Keeps this process registered while it has consumers.

    Parameters:
      timeout: Seconds without a beat after which a worker is dead.
      availability: Told of a Redis that is away.
    """

    def __init__(self, connection: Connection, timeout: float, availability: Availability | None = None) -> None:
        self.logger = get_logger(__name__, type(self))
        self.availability = availability or Availability()
        self.connection = connection
        self.timeout = timeout
        self.interval = min(10.0, timeout / 5)
        #: Done after each beat; what raises is logged.
        self.tasks: list[Callable[[], None]] = []
        #: Extends the TTLs that a dead job's run still depends on; None without workflows.
        self.keep: Callable[[Payload], None] | None = None
        self.events = Events()
        self.recovery = Recovery(self)
        self.upkeep = Upkeep(self)
        self.tasks.append(self.upkeep.look)
        #: What the windows of this process hold; None where it has none.
        self.in_flight: InFlight | None = None
        self._members: set[str] = set()
        #: Fan-outs that cannot be pushed; each is logged once.
        self._waiting_fanouts: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._wake = threading.Event()
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
            self._stop, self._wake = threading.Event(), threading.Event()
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
            workers.beat(self.connection, {member: None}, self.timeout)
        return member

    def beat(self) -> None:
        """Beat now, recover the workers that the beat finds dead, and compare what is in flight."""
        members = self.members
        in_flight = self.in_flight
        held = dict.fromkeys(members) if in_flight is None else in_flight.held(members)
        heard = workers.beat(self.connection, held, self.timeout)
        if in_flight is not None:
            in_flight.reconcile(heard.more)
        self.recovery.recover_all(heard.dead)
        if heard.fanouts:
            self._pour()
        # A process without a job has nothing else that says so.
        self.availability.back()

    def _pour(self) -> None:
        """Push what fan-outs hold whose process has died, or was cut off from Redis, after their commit."""
        waiting = fanouts.pour_all(self.connection)
        for fanout_id in waiting.keys() - self._waiting_fanouts:
            self.logger.error("%s", waiting[fanout_id])
        self._waiting_fanouts = set(waiting)

    def recover(self, member: str) -> None:
        """Put back what a dead worker had in flight."""
        self.recovery.recover(member)

    def hurry(self) -> None:
        """A trial has ended: let the thread take the next one, before its beat."""
        self._wake.set()

    def stop(self) -> None:
        """Stop beating; members without jobs in flight are forgotten."""
        self._stop.set()
        self._wake.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._lock:
            members, self._members = list(self._members), set()
        workers.strike_off(self.connection, workers.idle(self.connection, members))

    def _run(self) -> None:
        stop, wake = self._stop, self._wake
        due = time.monotonic() + self.interval
        while True:
            trial_ended = wake.wait(max(0.0, due - time.monotonic()))
            if stop.is_set():
                return
            if trial_ended:
                wake.clear()
                self._guarded(self.recovery.after_trial)
                continue
            due = time.monotonic() + self.interval
            self._guarded(self.beat, "No heartbeat this time: ")
            for task in self.tasks:
                self._guarded(task)

    def _guarded(self, task: Callable[[], None], prefix: str = "") -> None:
        try:
            task()
        except (ConnectionClosed, *LOST) as e:
            self.availability.lost(e)
        except Exception as e:
            self.logger.warning("%s%s", prefix, e)
