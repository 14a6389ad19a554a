"""Fetches jobs from a queue, and acknowledges them.

The consumer fetches in batches and hands one message at a time to Dramatiq's
worker.  :meth:`SidekiqConsumer.ack` advances the workflow of a finished job, or
writes its failure, each in one step that also takes the job out of flight.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from dramatiq.broker import Consumer
from dramatiq.errors import ActorNotFound, ConnectionClosed
from dramatiq.logging import get_logger
from dramatiq.middleware import SkipMessage

from ..errors import FlowError, InvalidOutput, SignalTimeout, StepSkipped
from ..store import keys, queues, run_pause
from ..store.connection import FAULTS, LOST
from ..store.needs import needs
from ..wire.callbacks import Callback
from ..wire.lifetimes import DEAD_TIMEOUT
from .begin import confirm
from .dramatiq_internals import next_must_begin, run_next
from .failure_writer import FailureWriter
from .fetcher import Fetcher
from .job_reader import JobReader
from .message import SidekiqMessage
from .retries import Failure, Retries, decide, killed, rejected
from .worker_process import WorkerProcess

#: How long a job waits for an unavailable Redis while its process shuts down, in
#: seconds.  After that it stays in flight, is recovered, and runs again.
SHUTDOWN_PATIENCE = 20.0


#: What is logged of a job by the error of its acknowledgement.
_WHAT = {InvalidOutput: "returned an invalid output", SignalTimeout: "has waited in vain"}


class SidekiqConsumer(Consumer):
    """Consumes one queue for one worker process.

    No error of Redis leaves it: Dramatiq would log it as critical and begin a new
    consumer.  It waits, and tries again.
    """

    def __init__(self, process: WorkerProcess, queue_name: str, prefetch: int, timeout: int) -> None:
        self.logger = get_logger(__name__, type(self))
        self.process = process
        self.queue_name = queue_name
        self.in_flight = process.holding(queue_name, prefetch)
        self.failures = FailureWriter(process, queue_name, self.in_flight.member)
        self.reader = JobReader(process, self.failures)
        self.fetcher = Fetcher(process, self.in_flight, self.reader, timeout / 1000, self.close)

    def __next__(self) -> SidekiqMessage | None:
        return self.fetcher.next()

    def ack(self, message: Any) -> None:
        """Take a job that is done, or has failed, out of flight.  Run the next step of its chain if it was kept."""
        try:
            self._settle(message, self._ack)
            if message.next_job is not None:
                self._run_next(message.offer, message.next_job, message.next_stack)
        finally:
            if message.offer:
                self.in_flight.end_offer(message.offer)

    def _run_next(self, receipt: str, raw: bytes, stack: tuple[Callback, ...] | None) -> None:
        """Let this thread run a job next.

        Parameters:
          stack: Its callback stack; None reads it from the payload.
        """
        # As with a fetch: a long chain may need none.
        self.process.hooks.age()
        held = self.in_flight
        held.take_offered(receipt)
        try:
            message = self.reader.read(receipt, raw, stack)
            if message is None:
                held.discard(receipt)
            else:
                run_next(message)
        except BaseException as e:
            held.put_back(receipt, raw)
            held.arrived()
            if not isinstance(e, (ConnectionClosed, *LOST)):
                raise
            self.process.availability.lost(e)

    def nack(self, message: Any) -> None:
        """Take a rejected job out of flight."""
        self._settle(message, self._nack)

    def _settle(self, message: SidekiqMessage, settle: Callable[[SidekiqMessage], None]) -> None:
        """Take a job out of flight, however long Redis is unavailable.  Raises nothing."""
        began: float | None = None
        while True:
            try:
                settle(message)
                return
            except (ConnectionClosed, *LOST) as e:
                pause = self.process.availability.lost(e)
                began = began or time.monotonic()
                if self.process.quiet and time.monotonic() - began > SHUTDOWN_PATIENCE:
                    self.logger.error(
                        "Job %s was run, but Redis is unavailable and this process stops: it stays in flight, and "
                        "another process runs it again.",
                        message.message_id,
                    )
                    return
                time.sleep(pause)
            except Exception:
                self._log_unsettled(message)
                return

    def _log_unsettled(self, message: SidekiqMessage) -> None:
        self.logger.exception(
            "Job %s was run, and could not be settled. It stays in flight until this process stops, and then runs "
            "again.",
            message.message_id,
        )

    def _ack(self, message: SidekiqMessage) -> None:
        if message.gone:
            self.in_flight.discard(message.receipt)
            return
        self._leave(message, self._failure_of(message))

    def _failure_of(self, message: SidekiqMessage) -> Failure | None:
        """The failure of an acknowledged message; None if it is done."""
        if message.failure is not None:
            return message.failure
        if message.exception is not None:
            # No Retries middleware: Dramatiq would call it done. It is not.
            return decide(
                message.payload,
                self.queue_name,
                message.exception,
                self._actor(message),
                Retries(),
                own_options=message.options,
                stopping=self.process.quiet,
            )
        if message.skipped and message.payload.stack:
            error = StepSkipped("A middleware skipped the step, so the next steps wait.", message.message_id)
            self.logger.error("Job %s is now in 'dead': %s", message.message_id, error)
            return killed(message.payload, self.queue_name, error)
        return None

    def _nack(self, message: SidekiqMessage) -> None:
        failure = message.failure
        if failure is None:
            error = message.exception or SkipMessage("The message was rejected.")
            if isinstance(error, ActorNotFound):
                self.process.execution_stats.count_unknown()
                # As Sidekiq treats an unknown class: a deploy may be on its way.
                failure = decide(message.payload, self.queue_name, error, None, Retries())
            else:
                failure = rejected(message.payload, self.queue_name, error)
        self._leave(message, failure)

    def _leave(self, message: SidekiqMessage, failure: Failure | None) -> None:
        if message.unsure:
            confirm(self.process.in_flight, self.process.connection, message)
        if message.parked:
            self._park(message)
        elif message.dropped:
            # A step of a cancelled run, which has not run.
            self.process.commit.ack(message.member, message.receipt)
        elif failure is None:
            failure = self._try_advance(message)
        if failure is not None:
            # Kept for a second call, and for the hooks that follow.
            message.failure = failure
            if failure.action == "requeue":
                self.requeue([message])
                return
            self.failures.write(message.receipt, failure, message.payload)
        self.in_flight.discard(message.receipt)

    def _park(self, message: SidekiqMessage) -> None:
        """Park a step of a paused run, which has not run."""
        completion, payload = self.process.completion, message.payload
        wait = needs if completion is None else completion.prepare_wait
        record = keys.record(payload.run_id or "")
        kept = wait(payload, waits=DEAD_TIMEOUT)
        self.process.commit.run(run_pause.park(message.member, message.receipt, self.queue_name, record, kept))

    def _try_advance(self, message: SidekiqMessage) -> Failure | None:
        """Acknowledge a finished job and push the next steps; returns its failure if that is impossible."""
        commit, completion, payload = self.process.commit, self.process.completion, message.payload
        may_wait = self.in_flight.under_load and not message.alone
        try:
            if completion is None or (payload.run_id is None and not payload.stack):
                self._ack_plain(message, may_wait)
                return None
            step = completion.advance(message, may_wait=may_wait)
            if step is not None:
                commit.ack_step(message.member, step, partial(self._settle_alone, message))
        except (ConnectionClosed, *LOST):
            raise
        except FlowError as e:
            what = _WHAT.get(type(e), "is done, but its run cannot continue")
            text = "Job %s %s, and is now in 'dead': %s"
            self.process.log_burst(self.logger.error, text, message.message_id, what, e)
            failure = killed(message.payload, self.queue_name, e)
            message.stuff_exception(e)
            return failure
        except Exception as e:
            # An error of the application's own memory or barrier.
            text = "Job %s is done, but could not go on, and is tried again: %s"
            self.process.log_burst(self.logger.error, text, message.message_id, e)
            failure = decide(message.payload, self.queue_name, e, self._actor(message), Retries())
            message.stuff_exception(e)
            return failure
        return None

    def _ack_plain(self, message: SidekiqMessage, may_wait: bool) -> None:
        """Acknowledge a finished job without a workflow."""
        if not may_wait and self.process.may_owe and next_must_begin():
            self.process.owed.owe(message.member, message.receipt)
        else:
            self.process.commit.ack(message.member, message.receipt, may_wait=may_wait)

    def _settle_alone(self, message: SidekiqMessage) -> None:
        """Acknowledge a step of a group by itself, after it was handed over.

        Raises:
          ConnectionClosed: if Redis cannot be reached; calling again is safe.
        """
        message.alone = True
        try:
            self._ack(message)
        except LOST as e:
            raise ConnectionClosed(e) from None
        except ConnectionClosed:
            raise
        except Exception:
            self._log_unsettled(message)

    def _actor(self, message: SidekiqMessage) -> Any:
        return self.process.actors.get(message.actor_name)

    def requeue(self, messages: Iterable[Any]) -> None:
        """Put messages that were not run back at the front of their queue."""
        receipts = [message.receipt for message in messages]
        self._requeue(receipts)

    def close(self) -> None:
        """Put back fetched jobs that were not handed to a worker thread."""
        receipts = [receipt for receipt, _ in self.in_flight.fetched]
        try:
            self._requeue(receipts)
            self.in_flight.fetched.clear()
        except (ConnectionClosed, *FAULTS) as e:
            # They stay in flight and are held: the next consumer hands them out.
            self.logger.warning("Could not put %d jobs back into %r: %s", len(receipts), self.queue_name, e)

    def _requeue(self, receipts: list[str]) -> None:
        if not receipts:
            return
        try:
            queues.requeue(self.process.connection, self.in_flight.member, self.queue_name, receipts)
        except LOST as e:
            raise ConnectionClosed(e) from None
        for receipt in receipts:
            self.in_flight.discard(receipt)
