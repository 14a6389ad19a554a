"""The broker's own middleware: follows the worker, and each of its jobs."""

from __future__ import annotations

from typing import Any

from dramatiq import Middleware
from dramatiq.logging import get_logger
from dramatiq.middleware import MiddlewareError, SkipMessage

from ..context import set_current_job
from ..errors import ConfigurationError
from ..process import cancellation
from ..process.banner import banner, boot_warnings
from ..store import server_check
from ..store.connection import LOST
from ..store.keys import NOT_BEGUN
from ..wire.dialect import NOOP_CLASSES
from . import ruby_features
from .begin import begin
from .dramatiq_internals import (
    give_back,
    replace_work_queue,
    skip_empty_delay_queue,
    unlock_time_limits,
    wanted_queues,
)
from .worker_process import WorkerProcess


class UnusableServer(ConfigurationError, MiddlewareError):
    """A ConfigurationError that also keeps a worker from starting."""


class ServerCheck:
    """Checks once, as soon as the server answers, whether it can be used at all."""

    def __init__(self, process: WorkerProcess) -> None:
        self.logger = get_logger(__name__, type(self))
        self.process = process
        self._done = False

    def run(self) -> None:
        """Check now; if the server does not answer, a later heartbeat checks again.

        Raises:
          UnusableServer: if it is a Redis Cluster, or too old.
        """
        self._done = False
        process = self.process
        try:
            warnings = server_check.inspect(process.connection)
            warnings += server_check.look_at_replicas(process.connection, process.replication)
        except LOST as e:
            process.availability.lost(e)
            return
        except ConfigurationError as e:
            self._done = True
            raise UnusableServer(e.message, e.value) from None
        self._done = True
        for warning in warnings:
            self.logger.warning(warning)

    def repeat(self) -> None:
        """Check with a heartbeat, unless it is done."""
        if self._done:
            return
        try:
            self.run()
        except UnusableServer as e:
            self.logger.critical("%s This worker stops.", e)
            self.process.stop_fetching()
            self.process.master.stop()


class WorkerMiddleware(Middleware):
    """Starts the poller and heartbeat with the worker, stops fetching before shutdown, and requeues jobs in flight.

    The broker calls its hooks around those of all middleware; it is not in their
    list.  Each part starts, tries again and stops by itself: none of them needs
    Redis to be there, or another part.
    """

    def __init__(self, process: WorkerProcess) -> None:
        self.logger = get_logger(__name__, type(self))
        self.process = process
        self.server_check = ServerCheck(process)
        process.heartbeat.tasks.append(self.server_check.repeat)

    @property
    def actor_options(self) -> set[str]:
        return {"cancellable"}

    def after_process_boot(self, broker: Any) -> None:
        # Emitted in worker processes of the dramatiq command only.
        self.process.master.booted()

    def before_worker_boot(self, broker: Any, worker: Any) -> None:
        broker.check_encoder()
        self.process.begin(worker)
        replace_work_queue(worker, self.process.queue_order, lambda: self.process.owed.send())
        unlock_time_limits(broker)
        try:
            self.server_check.run()
        except UnusableServer as e:
            broker.close()
            if self.process.master.pid is None:
                raise
            # In a worker process of the dramatiq command: one line, not a traceback.
            self.logger.critical("%s This worker ends.", e)
            raise SystemExit(1) from None

    def after_worker_boot(self, broker: Any, worker: Any) -> None:
        process = self.process
        actors = len(broker.actors.keys() - NOOP_CLASSES)
        line = banner(broker.connection.url, queues=process.consumed_queues(), actors=actors, threads=process.threads)
        self.logger.info("%s", line)
        for each in process.workers:
            for warning in boot_warnings(wanted_queues(each) or (), broker.get_declared_queues()):
                self.logger.warning("%s", warning)
        # Not before: their events go to middleware, which starts in before_worker_boot.
        self.process.start()

    def after_consumer_thread_boot(self, broker: Any, thread: Any) -> None:
        skip_empty_delay_queue(thread)

    def before_worker_shutdown(self, broker: Any, worker: Any) -> None:
        self.process.quiet = True
        self.process.wake_consumers()
        # Now, and not when the last job has ended: a process that is killed before leaves them behind.
        give_back(worker)

    def after_worker_shutdown(self, broker: Any, worker: Any) -> None:
        self.process.end(worker)

    def before_process_message(self, broker: Any, message: Any) -> None:
        process = self.process
        if message.receipt[-1:] == NOT_BEGUN:
            # With the acknowledgement of the job before it, in one round trip.
            begin(process.in_flight, process.owed, message)
        else:
            process.owed.send()
        payload = message.payload
        if payload.run_id is not None:
            halted = process.cancelled_runs.halts(payload)
            if halted:
                message.dropped, message.parked = True, halted == "paused"
                raise SkipMessage(f"The run of job {message.message_id} is {halted}.")
        set_current_job(message.payload)
        process.execution_stats.start(message)
        if not ruby_features.KEYS.isdisjoint(message.payload.fields):
            ruby_features.before_process(message)
        if message.actor_name in broker.cancellable:
            message.cancelled = cancellation.enter(process.connection, message.message_id)
            if message.cancelled:
                raise SkipMessage(f"Job {message.message_id} was cancelled.")

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        set_current_job(None)
        self.process.execution_stats.finish(message, exception is not None)
        if broker.cancellable:
            cancellation.leave()

    def after_skip_message(self, broker: Any, message: Any) -> None:
        if message.gone or message.dropped:
            return
        set_current_job(None)
        # A job cancelled by an operator counts as done, so its workflow continues.
        message.skipped = not message.cancelled
        self.process.execution_stats.finish(message, message.failed)
        if broker.cancellable:
            cancellation.leave()
