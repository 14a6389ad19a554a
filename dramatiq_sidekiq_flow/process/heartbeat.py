"""Heartbeats of this worker process; each one also finds workers whose beats have stopped.

One thread beats for all queues of the process, by Redis's own clock.  The reply
names workers that have been silent for too long, and the members of this
process that have more in flight than it knows of.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from ..store import fanouts, keys, workers
from ..store.connection import LOST, Connection
from .availability import Availability
from .events import Events
from .identity import Identity
from .loop import Loop
from .reconciliation import Reconciliation
from .recovery import Recovery
from .upkeep import Upkeep


class Heartbeat:
    """Keeps this process registered while it has consumers.

    Parameters:
      timeout: Seconds without a beat after which a worker is dead.
      availability: Notified of a Redis that is unavailable.

    Attributes:
      tasks: Called after each beat; an error is logged.
      reconciliation: Compares the jobs in flight; None for a process without consumers.
    """

    def __init__(
        self,
        connection: Connection,
        timeout: float,
        *,
        availability: Availability | None = None,
        events: Events | None = None,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.availability = availability or Availability()
        self.connection = connection
        self.timeout = timeout
        self.interval = min(10.0, timeout / 5)
        self.upkeep = Upkeep(connection)
        self.recovery = Recovery(connection=connection, timeout=timeout, events=events or Events(), upkeep=self.upkeep)
        self.reconciliation: Reconciliation | None = None
        self.tasks: list[Callable[[], None]] = [self.upkeep.look]
        self._identity = self.upkeep.identity = Identity()
        self._loop = Loop("sidekiq-heartbeat", interval=lambda: self.interval, work=self._work)
        self._members: set[str] = set()
        self._lock = threading.Lock()
        self._trial_ended = threading.Event()
        self._beat_due = 0.0
        #: Fan-outs that cannot be pushed; each is logged once.
        self._waiting_fanouts: set[str] = set()

    @property
    def identity(self) -> str:
        """``HOST:PID:NONCE``, as Sidekiq names a process (``component.rb``)."""
        return self._identity.name

    @property
    def members(self) -> set[str]:
        """The names that this process is registered under, one per queue."""
        with self._lock:
            return set(self._members)

    def start(self) -> None:
        """Start the thread, unless it runs."""
        self._loop.start()

    def forget(self) -> None:
        """In a forked child: begin without the parent's members and thread."""
        self._lock = threading.Lock()
        self._members = set()
        self._loop.forget()
        self.upkeep.forget()

    def register(self, queue_name: str) -> str:
        """Register this process for a queue; returns the member.

        If Redis is unavailable, the next beat registers it.
        """
        member = keys.worker_member(self.identity, queue_name)
        with self._lock:
            self._members.add(member)
        self.start()
        with contextlib.suppress(*LOST):
            workers.beat(self.connection, {member: None}, self.timeout)
        return member

    def beat(self) -> None:
        """Beat now, recover the workers that the beat finds dead, and compare the jobs in flight."""
        members = self.members
        reconciliation = self.reconciliation
        held = dict.fromkeys(members) if reconciliation is None else reconciliation.held(members)
        found = workers.beat(self.connection, held, self.timeout)
        if reconciliation is not None:
            reconciliation.reconcile(found.more)
        self.recovery.recover_all(found.dead)
        if found.fanouts:
            self._pour()
        # An idle process has no other sign that Redis is available again.
        self.availability.back()

    def _pour(self) -> None:
        """Push the rest of committed fan-outs whose process died, or lost Redis, after the commit."""
        waiting = fanouts.pour_all(self.connection)
        for fanout_id in waiting.keys() - self._waiting_fanouts:
            self.logger.error("%s", waiting[fanout_id])
        self._waiting_fanouts = set(waiting)

    def recover(self, member: str) -> None:
        """Put back the jobs that a dead worker had in flight."""
        self.recovery.recover(member)

    def trial_ended(self) -> None:
        """Let the thread try the next suspect now, and not with its next beat."""
        self._trial_ended.set()
        self._loop.hurry()

    def stop(self) -> None:
        """Stop beating; deregister the members without jobs in flight."""
        self._loop.stop()
        self.upkeep.stop()
        with self._lock:
            members, self._members = list(self._members), set()
        workers.deregister(self.connection, workers.idle(self.connection, members))

    def _work(self) -> None:
        if self._trial_ended.is_set():
            self._trial_ended.clear()
            self._guarded(self.recovery.after_trial)
        remaining = self._beat_due - time.monotonic()
        if remaining > 0:
            self._loop.hurry(remaining)
            return
        self._beat_due = time.monotonic() + self.interval
        self._guarded(self.beat, "The heartbeat failed, the next one tries again: ")
        for task in self.tasks:
            self._guarded(task)

    def _guarded(self, task: Callable[[], None], prefix: str = "") -> None:
        try:
            task()
        except (ConnectionClosed, *LOST) as e:
            self.availability.lost(e)
        except Exception as e:
            self.logger.warning("%s%s", prefix, e)
