"""Bridge: it moves jobs from Sidekiq's queues to another Dramatiq broker.

Ruby advances a run by pushing a job to a Sidekiq queue.  If the actors of that
queue are on another broker, the bridge fetches the job, enqueues it there, and
only then acknowledges it.  After a crash in between it enqueues the job again
under the same id, which a workflow counts once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from dramatiq.errors import BrokerConnectionError
from dramatiq.logging import get_logger

from ..broker.consumer import SidekiqConsumer
from ..broker.message import SidekiqMessage
from ..broker.unknown_actor import unknown_actor
from ..store import server_check
from ..store.connection import FAULTS, LOST
from .foreign_broker import ForeignSidekiqBroker
from .foreign_messages import to_foreign

#: Maximum jobs in flight of each queue.
PREFETCH = 16

#: Milliseconds that a thread waits for a job before it checks the stop flag.
WAIT = 500

#: Seconds before the next attempt, if one of the two brokers cannot be reached.
PAUSE = 1.0


class Bridge:
    """Mover of jobs from Sidekiq's queues to another broker: one thread per queue.

    A WorkflowMiddleware starts it with a worker.  In a separate process::

        bridge = middleware.bridge_of(broker)
        bridge.start(["python"])
        ...
        bridge.stop()
    """

    def __init__(self, broker: ForeignSidekiqBroker) -> None:
        self.logger = get_logger(__name__, type(self))
        self.broker = broker
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._queues: set[str] = set()

    @property
    def queues(self) -> set[str]:
        """Names of the queues that are bridged now."""
        return set(self._queues)

    def start(self, queues: Iterable[str] | None = None) -> None:
        """Bridge queues, by default all declared ones.  A later call adds queues.

        Raises:
          ConfigurationError: if Sidekiq's Redis cannot be used.
        """
        wanted = self.broker.get_declared_queues() if queues is None else set(queues)
        if not self._threads:
            self._stop = threading.Event()
            self._check_server()
            self.broker.process.quiet = False
            self.broker.process.poller.start()
        for queue in sorted(wanted - self._queues):
            self._queues.add(queue)
            thread = threading.Thread(target=self._run, args=(queue, self._stop), name=f"bridge-{queue}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _check_server(self) -> None:
        """Log problems of Sidekiq's Redis.

        Raises:
          ConfigurationError: as :meth:`start`.
        """
        try:
            warnings = server_check.inspect(self.broker.connection)
            warnings += server_check.look_at_replicas(self.broker.connection, self.broker.process.replication)
        except LOST as e:
            warnings = [f"Sidekiq's Redis cannot be reached yet; the bridge tries again: {e}"]
        for warning in warnings:
            self.logger.warning("%s", warning)

    def stop(self) -> None:
        """Stop, and put jobs in flight back to their queues."""
        self.broker.process.quiet = True
        self._stop.set()
        threads, self._threads, self._queues = self._threads, [], set()
        if not threads:
            return
        for thread in threads:
            thread.join()
        self.broker.process.poller.stop()
        try:
            self.broker.process.hand_back()
        except (BrokerConnectionError, *LOST) as e:
            # Other workers recover them after the heartbeat timeout of this process.
            self.logger.warning("Jobs in flight were not put back; another worker will recover them: %s", e)

    def _run(self, queue: str, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._consume(queue, stop)
            except Exception as e:
                self.logger.warning("The bridge of queue %r failed, and tries again in %g s: %s", queue, PAUSE, e)
                stop.wait(PAUSE)

    def _consume(self, queue: str, stop: threading.Event) -> None:
        """Move the jobs of a queue until the bridge stops."""
        consumer = SidekiqConsumer(self.broker.process, queue, PREFETCH, WAIT)
        while not stop.is_set():
            message = next(consumer)
            if message is not None and not self.hand_over(consumer, message):
                stop.wait(PAUSE)

    def hand_over(self, consumer: SidekiqConsumer, message: SidekiqMessage) -> bool:
        """Enqueue one job on the other broker, and acknowledge it.

        Returns:
          False if the job was put back to its queue, because that broker cannot
          be reached.
        """
        if message.actor_name not in self.broker.actors:
            # Retried, as Sidekiq does with an unknown class: a deploy may be in progress.
            error = unknown_actor(message.actor_name, self.broker.actors, consumer.queue_name)
            message.stuff_exception(error)
            self.logger.error("%s", error)
            consumer.nack(message)
            return True
        try:
            self.broker.local.enqueue(to_foreign(message.payload, consumer.queue_name))
        except Exception as e:
            if is_away(e):
                self.logger.warning(
                    "The broker cannot be reached; job %s was put back to Sidekiq's queue: %s", message.message_id, e
                )
                consumer.requeue([message])
                return False
            self.logger.exception("Job %s cannot be enqueued; it was moved to 'dead'.", message.message_id)
            message.stuff_exception(e)
            consumer.nack(message)
            return True
        self.broker.process.commit.ack(message.member, message.receipt)
        consumer.in_flight.discard(message.receipt)
        return True


def is_away(error: BaseException) -> bool:
    """Return True if an error means that a broker cannot be reached, or refuses for now: a retry may succeed."""
    return isinstance(error, (BrokerConnectionError, *FAULTS))
