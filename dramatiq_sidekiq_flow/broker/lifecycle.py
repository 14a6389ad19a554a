"""The broker's own middleware: follows the worker, and each of its jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dramatiq
from dramatiq import Middleware
from dramatiq.common import iter_queue
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import MiddlewareError, SkipMessage

from ..context import set_current_job
from ..errors import ConfigurationError
from ..store import server_check
from ..store.connection import LOST
from . import cancellation, ruby_features, signals
from .begin import begin
from .order import KEEPS_AGE, WorkQueue, message_of

if TYPE_CHECKING:
    from .broker import SidekiqBroker


class UnusableServer(ConfigurationError, MiddlewareError):
    """A ConfigurationError that also keeps a worker from starting."""


class ServerCheck:
    """Looks at the server once, as soon as it answers: whether it can be used at all."""

    def __init__(self, broker: SidekiqBroker) -> None:
        self.broker = broker
        self._done = False

    def run(self) -> None:
        """Look now; again with a later heartbeat where the server does not answer.

        Raises:
          UnusableServer: if it is a Redis Cluster, or too old.
        """
        self._done = False
        try:
            warnings = server_check.inspect(self.broker.connection)
            warnings += server_check.look_at_replicas(self.broker.connection, self.broker.replication)
        except LOST as e:
            self.broker.availability.lost(e)
            return
        except ConfigurationError as e:
            self._done = True
            raise UnusableServer(e.message, e.value) from None
        self._done = True
        for warning in warnings:
            self.broker.logger.warning(warning)

    def repeat(self) -> None:
        """With a heartbeat: look where that was not possible before."""
        if self._done:
            return
        try:
            self.run()
        except UnusableServer as e:
            self.broker.logger.critical("%s This worker stops.", e)
            self.broker.stop_fetching()
            signals.stop_process()


class Lifecycle(Middleware):
    """Starts and stops the parts of a worker process, and follows each job.

    The broker calls its hooks around those of all middleware; it is not in their
    list.  Each part starts, tries again and stops by itself: none of them needs
    Redis to be there, or another part.
    """

    @property
    def actor_options(self) -> set[str]:
        return {"cancellable"}

    def before_worker_boot(self, broker: Any, worker: Any) -> None:
        broker.check_encoder()
        broker.begin(worker)
        if broker.order.kept or not KEEPS_AGE:
            # Its threads are started after this.
            worker.work_queue = WorkQueue(broker.order)
        try:
            broker.server_check.run()
        except UnusableServer as e:
            broker.close()
            if signals.master() is None:
                raise
            # In a worker process of the dramatiq command: one line, not a traceback.
            broker.logger.critical("%s This worker ends.", e)
            raise SystemExit(1) from None

    def after_worker_boot(self, broker: Any, worker: Any) -> None:
        # Not before: what they find is told to middleware, which begins before_worker_boot.
        broker.poller.start()
        broker.processes.start()
        broker.heartbeat.start()

    def before_worker_shutdown(self, broker: Any, worker: Any) -> None:
        broker.quiet = True
        broker.waiter.release()
        # Now, and not when the last job has ended: a process that is killed before leaves them behind.
        give_back(worker)

    def after_worker_shutdown(self, broker: Any, worker: Any) -> None:
        broker.waiter.stop()
        broker.poller.stop()
        if worker in broker.workers:
            broker.workers.remove(worker)
        broker.hand_back()

    def before_process_message(self, broker: Any, message: Any) -> None:
        begin(broker, message)
        set_current_job(message.payload)
        broker.tally.start(message)
        ruby_features.before_process(message)
        if message.actor_name in broker.cancellable:
            message.cancelled = cancellation.enter(broker.connection, message.message_id)
            if message.cancelled:
                raise SkipMessage(f"Job {message.message_id} was cancelled.")

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        set_current_job(None)
        broker.tally.finish(message, exception is not None)
        if broker.cancellable:
            cancellation.leave()

    def after_skip_message(self, broker: Any, message: Any) -> None:
        if message.gone:
            return
        # What a person has cancelled is done.
        set_current_job(None)
        message.skipped = not message.cancelled
        broker.tally.finish(message, message.failed)
        if broker.cancellable:
            cancellation.leave()


def give_back(worker: dramatiq.Worker) -> None:
    """Put back what waits in a worker for a thread.

    Where Redis cannot be reached, it stays where it is, and is run.
    """
    waiting: dict[str, list[Any]] = {}
    for item in iter_queue(worker.work_queue):
        waiting.setdefault(message_of(item).queue_name, []).append(item)
    for queue_name, items in waiting.items():
        try:
            worker.consumers[queue_name].requeue_messages(message_of(item) for item in items)
        except ConnectionClosed as e:
            worker.logger.warning("Could not put %d jobs back into %r: %s", len(items), queue_name, e)
            for item in items:
                worker.work_queue.put(item)
        for _ in items:
            worker.work_queue.task_done()
