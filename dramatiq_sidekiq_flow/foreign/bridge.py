"""Moves jobs from Sidekiq's queues onto another Dramatiq broker.

Ruby advances a run by pushing a job into a Sidekiq queue.  If that queue's
actors are on another broker, the bridge fetches the job, enqueues it there, and
only then acknowledges it: a crash in between enqueues it again under the same
id, which a workflow counts once.
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

#: How many jobs one queue's thread holds in flight.
PREFETCH = 16

#: Milliseconds that it waits for a job before it looks whether to stop.
WAIT = 500

#: Seconds before it tries again, where one of the two brokers is away.
PAUSE = 1.0


class Bridge:
    """One thread for each queue.

    A WorkflowMiddleware starts it with a worker.  In a process of its own::

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
        """The queues that are bridged now."""
        return set(self._queues)

    def start(self, queues: Iterable[str] | None = None) -> None:
        """Bridge these queues, all declared ones unless given; more may be added later.

        Raises:
          ConfigurationError: for a Redis that cannot be used.
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
        """Log what is wrong with the Sidekiq Redis.

        Raises:
          ConfigurationError: as :meth:`start`.
        """
        try:
            warnings = server_check.inspect(self.broker.connection)
            warnings += server_check.look_at_replicas(self.broker.connection, self.broker.process.replication)
        except LOST as e:
            warnings = [f"The Sidekiq Redis cannot be reached yet: {e}"]
        for warning in warnings:
            self.logger.warning("%s", warning)

    def stop(self) -> None:
        """Stop, and put back what was not handed over."""
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
            # Others recover them, once this process has been silent for long enough.
            self.logger.warning("Jobs in flight could not be put back: %s", e)

    def _run(self, queue: str, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._consume(queue, stop)
            except Exception as e:
                self.logger.warning("The bridge of queue %r tries again soon: %s", queue, e)
                stop.wait(PAUSE)

    def _consume(self, queue: str, stop: threading.Event) -> None:
        """Hand over the jobs of a queue until the bridge stops."""
        consumer = SidekiqConsumer(self.broker.process, queue, PREFETCH, WAIT)
        while not stop.is_set():
            message = next(consumer)
            if message is not None and not self.hand_over(consumer, message):
                stop.wait(PAUSE)

    def hand_over(self, consumer: SidekiqConsumer, message: SidekiqMessage) -> bool:
        """Enqueue one job on the other broker.

        Returns:
          False where it went back to its queue, because that broker is away.
        """
        if message.actor_name not in self.broker.actors:
            # As Sidekiq treats an unknown class: a deploy may be on its way.
            error = unknown_actor(message.actor_name, self.broker.actors, consumer.queue_name)
            message.stuff_exception(error)
            self.logger.error("%s", error)
            consumer.nack(message)
            return True
        try:
            self.broker.local.enqueue(to_foreign(message.payload, consumer.queue_name))
        except Exception as e:
            if is_away(e):
                self.logger.warning("The broker is away; job %s waits in Sidekiq's queue: %s", message.message_id, e)
                consumer.requeue([message])
                return False
            self.logger.exception("Job %s cannot be enqueued and is now in 'dead'.", message.message_id)
            message.stuff_exception(e)
            consumer.nack(message)
            return True
        self.broker.process.commit.ack(message.member, message.receipt)
        consumer.in_flight.discard(message.receipt)
        return True


def is_away(error: BaseException) -> bool:
    """Whether an error says that a broker cannot be reached, or refuses, for now: trying again helps."""
    return isinstance(error, (BrokerConnectionError, *FAULTS))
