"""The broker's own middleware: follows the worker, and each of its jobs."""

from __future__ import annotations

from typing import Any

from dramatiq import Middleware

from . import cancellation
from .order import WorkQueue


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

    def after_worker_shutdown(self, broker: Any, worker: Any) -> None:
        broker.poller.stop()
        if worker in broker.workers:
            broker.workers.remove(worker)
        broker.hand_back()

    def before_process_message(self, broker: Any, message: Any) -> None:
        broker.tally.start(message)
        if message.actor_name in broker.cancellable:
            cancellation.enter(broker.connection, message.message_id)

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        broker.tally.finish(message, exception is not None)
        if broker.cancellable:
            cancellation.leave()

    def after_skip_message(self, broker: Any, message: Any) -> None:
        broker.tally.finish(message, message.failed)
        if broker.cancellable:
            cancellation.leave()
