"""The roles of one process that fetches and runs jobs, and the state that they share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import dramatiq
from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from ..errors import WrongType
from ..process.availability import Availability
from ..process.cancelled_runs import CancelledRuns
from ..process.events import Events
from ..process.execution_stats import ExecutionStats
from ..process.heartbeat import Heartbeat
from ..process.log_limit import LogBurst, LogLimit
from ..process.poller import Poller
from ..process.presence import Presence, ProcessInfo
from ..process.reconciliation import Reconciliation
from ..process.signals import Master
from ..store import keys, queues, workers
from ..store.connection import FAULTS, Connection
from ..store.replication import Replication, ReplicaWait
from .ack_batch import GroupCommit
from .dramatiq_internals import consumed_queues, give_back, threads_of, wanted_queues, work_queue_of
from .hook_table import HookTable
from .in_flight import InFlight
from .job_completion import JobCompletion
from .owed_acks import OwedAcks
from .queue_order import QueueOrder
from .standing import Standings
from .waiter import Waiter

#: Connections that the consumers of a process share to fetch with.
FETCHING = 4

#: With fewer connections than this, consumers fetch with those that all parts share.
ENOUGH = 10


class WorkerProcess:
    """The parts of a SidekiqBroker that a process needs to run jobs.

    Parameters:
      heartbeat_timeout, poll_interval: Seconds.
      declared: Names of the declared queues.

    Attributes:
      actors: Name -> actor of this process.
      completion: Completion of workflow jobs; None without a WorkflowMiddleware.
      workers: Dramatiq workers of this process.
      in_flight: Queue -> its jobs that this process holds.
      standing: The fetches that may stand at the server.
      set_aside: Member and receipt -> function that writes the failure again, of
        each failed job that ``retry`` or ``dead`` could not take.
      quiet: True if no new jobs are fetched.
      cancelled_runs: The cancelled runs, whose steps do not start.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        heartbeat_timeout: float,
        poll_interval: float,
        queue_order: QueueOrder,
        process_info: ProcessInfo,
        replication: Replication,
        declared: set[str],
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = connection
        self.replication = replication
        self.queue_order = queue_order
        self.declared = declared
        self.actors: Mapping[str, dramatiq.Actor[Any, Any]] = {}
        self.completion: JobCompletion | None = None
        self.workers: list[dramatiq.Worker] = []
        self.in_flight: dict[str, InFlight] = {}
        self.set_aside: dict[tuple[str, str], Callable[[], None]] = {}
        self.quiet = False
        self._pid = os.getpid()
        #: Which middleware has hooks for jobs.
        self.hooks = HookTable()
        self.availability = Availability()
        self.log_limit = LogLimit()
        #: For lines about jobs that cannot be read.
        self.log_burst = LogBurst()
        self.events = Events()
        self.execution_stats = ExecutionStats()
        self.master = Master()
        # Parts that must not wait for each other have connections of their own,
        # if the client may open enough of them.
        few = connection.most is not None and connection.most < ENOUGH
        self.fetching = connection if few else connection.lane(FETCHING)
        beating = connection.lane(1 if few else 2)
        self.waiter = Waiter(connection)
        self.cancelled_runs = CancelledRuns(connection)
        self.standing = Standings(connection)
        notified: dict[str, Any] = {"availability": self.availability, "events": self.events}
        self.heartbeat = Heartbeat(beating, heartbeat_timeout, **notified)
        self.poller = Poller(beating, poll_interval, **notified)
        self.commit = self._new_commit()
        self.owed = OwedAcks(connection, self.commit.ack)
        self.presence = Presence(
            connection=connection,
            heartbeat=self.heartbeat,
            stats=self.execution_stats,
            worker=self,
            queue_modes=queue_order,
            master=self.master,
            process_info=process_info,
        )
        self._connect_heartbeat()

    def _connect_heartbeat(self) -> None:
        heartbeat = self.heartbeat
        heartbeat.reconciliation = Reconciliation(
            connection=self.connection, in_flight=self.in_flight, leaving=self._leaving
        )
        heartbeat.recovery.trials = self.in_flight
        heartbeat.recovery.is_quiet = lambda: self.quiet
        heartbeat.recovery.flush = lambda: self.commit.flush()
        heartbeat.tasks += [
            # Acknowledgements that an unavailable Redis did not take go out with a beat.
            self._flush,
            self._settle_aside,
            self.presence.beat,
        ]

    def _new_commit(self) -> GroupCommit:
        replicas = ReplicaWait(self.replication.acknowledge, self.replication.timeout)
        return GroupCommit(self.connection.lane(), self.availability, replicas, self.events)

    @property
    def may_owe(self) -> bool:
        """True if an acknowledgement may go with a mark: no replica has to confirm it."""
        return not self.replication.acknowledge

    def _flush(self) -> None:
        """Send the acknowledgements that are handed over.

        Raises:
          ConnectionClosed: if Redis cannot be reached; they stay.
        """
        self.owed.send_all()
        self.commit.flush()

    def _leaving(self) -> list[tuple[str, str]]:
        """List member and receipt of jobs that are finished here, but still in flight."""
        return [*self.commit.waiting(), *self.owed.waiting(), *list(self.set_aside)]

    # -- workers ------------------------------------------------------------

    @property
    def threads(self) -> int:
        """Number of threads that run jobs in this process."""
        return threads_of(self.workers)

    def is_running(self) -> bool:
        """Return True if a Dramatiq worker runs in this process."""
        return bool(self.workers)

    def consumed_queues(self) -> set[str]:
        """List the queues that have a consumer in this process."""
        return consumed_queues(self.workers)

    def begin(self, worker: dramatiq.Worker) -> None:
        """Prepare for a Dramatiq worker that is about to start."""
        self.mind_fork()
        self.quiet = False
        self.workers.append(worker)

    def start(self) -> None:
        """Start the threads of the process, and show it in the Web UI."""
        self.poller.start()
        self.presence.start()
        self.heartbeat.start()

    def stop_fetching(self) -> None:
        """Start no new jobs until the worker is restarted (Sidekiq's ``quiet``).

        Jobs that were fetched, but not begun, go back to their queue.  Like
        Sidekiq's, a quiet process no longer looks at ``schedule`` and ``retry``.
        """
        self.quiet = True
        self.wake_consumers()
        self.poller.stop()
        for worker in self.workers:
            give_back(worker)

    def end(self, worker: dramatiq.Worker) -> None:
        """Put back what is in flight and deregister, after a Dramatiq worker has stopped."""
        self._stop_waiting()
        self.poller.stop()
        if worker in self.workers:
            self.workers.remove(worker)
        self.hand_back()

    # -- consumers ------------------------------------------------------------

    def holding(self, queue_name: str, prefetch: int) -> InFlight:
        """Register the process for a queue; return the jobs of the queue that it holds."""
        member = self.heartbeat.register(queue_name)
        found = self.in_flight.get(queue_name)
        if found is None or found.member != member:
            found = self.in_flight[queue_name] = InFlight(queue_name, member)
            found.trial_ended = self.heartbeat.trial_ended
            found.arrived = partial(self._wake, queue_name)
        found.allow(prefetch)
        return found

    def may_stand(self, queue_name: str) -> bool:
        """Return True if a fetch of a queue may stand at the server: the queues have no strict order, and are few.

        In strict order, the server would serve it while a queue before it has jobs.
        """
        ordered = self.queue_order.strict and not self._own_queues() <= {queue_name}
        return not ordered and len(self.in_flight) <= self.standing.most

    def _wake(self, queue_name: str) -> None:
        """Let the consumer of a queue look for jobs now."""
        self.waiter.wake(queue_name)
        self.standing.ring(queue_name)

    def wake_consumers(self) -> None:
        """Let all consumers look for jobs now, or see that the process is quiet."""
        self.waiter.release()
        self.standing.ring_all()

    def _stop_waiting(self) -> None:
        """Close the connections that wait for jobs; in a forked child, leave the parent's alone."""
        self.waiter.stop()
        if self._pid == os.getpid():
            self.standing.close()

    def may_fetch(self, queue_name: str) -> bool:
        """Return True if a queue may be fetched from: in strict order, no queue before it has jobs."""
        order = self.queue_order
        if not order.strict:
            return True
        rank = order.rank(queue_name)
        before = [name for name in self._own_queues() if order.rank(name) < rank]
        return not any(map(self._has_pending_work, before))

    def _own_queues(self) -> set[str]:
        """List the queues that this process consumes, or is about to consume."""
        if not self.workers:
            return set(self.in_flight)
        names: set[str] = set()
        for worker in self.workers:
            wanted = wanted_queues(worker)
            names |= self.declared & wanted if wanted else self.declared
        return names

    def _has_pending_work(self, queue_name: str) -> bool:
        held = self.in_flight.get(queue_name)
        if held is None or held.fetched or self._waits_for_thread(queue_name):
            return True
        return held.may_bring_jobs

    def _waits_for_thread(self, queue_name: str) -> bool:
        """Return True if a worker has jobs of a queue that no thread has taken yet."""
        waiting = map(work_queue_of, self.workers)
        return any(queue is not None and queue.waiting(queue_name) for queue in waiting)

    # -- the end of the process -------------------------------------------------

    def hand_back(self) -> None:
        """Put back the jobs that this process still holds, and leave the fleet.

        Jobs still running lose their in-flight entry: their acknowledgement is
        ignored, and they run again elsewhere, as Sidekiq's do after a hard
        shutdown.  Jobs that cannot be put back now are recovered by other workers.
        """
        self._attempt(self._flush)
        self._attempt(self._settle_aside)
        for held in list(self.in_flight.values()):
            self._attempt(partial(self._hand_back, held))
        self.in_flight.clear()
        self.set_aside.clear()
        self._attempt(self.heartbeat.stop)
        self._attempt(self.presence.stop)

    def _hand_back(self, held: InFlight) -> None:
        receipts = workers.receipts(self.connection, held.member)
        # Suspects stay: another process tries them one at a time.
        receipts = [receipt for receipt in receipts if not receipt.endswith(keys.SUSPECT.encode())]
        if receipts:
            receipts.sort(key=keys.fetch_order)
            queues.requeue(self.connection, held.member, held.queue_name, receipts)

    def _attempt(self, part: Callable[[], None]) -> None:
        """Run one part of the shutdown; log an error, so that the other parts run, too."""
        try:
            part()
        except (ConnectionClosed, *FAULTS) as e:
            self.logger.warning("A part of the shutdown failed, and other workers recover the jobs: %s", e)

    def _settle_aside(self) -> None:
        """Try again to write failures that ``retry`` or ``dead`` could not take."""
        for key, write in list(self.set_aside.items()):
            try:
                write()
            except WrongType:
                continue
            self.set_aside.pop(key, None)

    def close(self) -> None:
        """Stop the threads; in a forked child, leave the parent's alone."""
        self.mind_fork()
        self._stop_waiting()
        self.poller.stop()
        if self.in_flight or self.heartbeat.members:
            self.hand_back()

    def mind_fork(self) -> None:
        """Reset the jobs and threads in a forked child, which does not own the parent's."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self.in_flight.clear()
        self.standing.forget()
        self.set_aside, self.workers = {}, []
        self.commit = self._new_commit()
        self.owed = OwedAcks(self.connection, self.commit.ack)
        self.execution_stats = ExecutionStats()
        self.cancelled_runs.forget()
        self.heartbeat.forget()
        self.poller.forget()
        self.presence.forget(self.execution_stats)
