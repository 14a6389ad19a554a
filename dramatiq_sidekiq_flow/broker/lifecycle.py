"""The broker's own middleware: follows the worker, and each of its jobs."""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq import Middleware
from dramatiq.common import iter_queue
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import SkipMessage

from . import cancellation
from .begin import begin
from .order import WorkQueue, message_of


class Lifecycle(Middleware):
    """Threads up, quiet before the end, nothing left behind.  First in the list: around all others."""

    @property
    def actor_options(self) -> set[str]:
        return {"cancellable"}

    def before_worker_boot(self, broker: Any, worker: Any) -> None:
        for warning in broker.connection.inspect():
            broker.logger.warning(warning)
        broker.quiet = False
        if broker.order.kept:
            # Its threads are started after this.
            worker.work_queue = WorkQueue(broker.order)
        broker.workers.append(worker)
        broker.poller.start()

    def after_worker_boot(self, broker: Any, worker: Any) -> None:
        broker.processes.start()
        broker.heartbeat.start()

    def before_worker_shutdown(self, broker: Any, worker: Any) -> None:
        broker.quiet = True
        # Now, and not when the last job has ended: a process that is killed before leaves them behind.
        give_back(worker)

    def after_worker_shutdown(self, broker: Any, worker: Any) -> None:
        broker.poller.stop()
        if worker in broker.workers:
            broker.workers.remove(worker)
        broker.hand_back()

    def before_process_message(self, broker: Any, message: Any) -> None:
        begin(broker, message)
        broker.tally.start(message)
        if message.actor_name in broker.cancellable:
            message.cancelled = cancellation.enter(broker.connection, message.message_id)
            if message.cancelled:
                raise SkipMessage(f"Job {message.message_id} was cancelled.")

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        broker.tally.finish(message, exception is not None)
        if broker.cancellable:
            cancellation.leave()

    def after_skip_message(self, broker: Any, message: Any) -> None:
        if message.gone:
            return
        # What a person has cancelled is done.
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
