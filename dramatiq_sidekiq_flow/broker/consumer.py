"""Fetches jobs from a queue, and acknowledges them.

The consumer fetches in batches and hands one message at a time to Dramatiq's
worker.  :meth:`SidekiqConsumer.ack` advances the workflow of a finished job, or
writes its failure, each in one step that also takes the job out of flight.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from dramatiq.broker import Consumer
from dramatiq.errors import ActorNotFound, ConnectionClosed
from dramatiq.logging import get_logger
from dramatiq.middleware import SkipMessage

from ..errors import FlowError, InvalidOutput, StepSkipped
from ..store import queues
from ..store.connection import FAULTS, LOST
from .begin import confirm
from .failure_writer import FailureWriter
from .in_flight import InFlight, reserve
from .job_reader import JobReader
from .message import SidekiqMessage
from .retries import Failure, Retries, decide, killed, rejected
from .worker_process import WorkerProcess

#: Between two looks at a paused queue, in seconds.
PAUSE = 0.5

#: Between two checks of a quiet process whether it stops, in seconds.
QUIET = 0.05

#: Between two tries to fetch from a queue whose key is not a list, in seconds.
UNREADABLE = 1.0

#: How long a job waits for an unavailable Redis while its process shuts down, in
#: seconds.  After that it stays in flight, is recovered, and runs again.
SHUTDOWN_PATIENCE = 20.0

#: Between two checks whether a queue of higher priority still has jobs, in seconds.
HELD_BACK = 0.01


class SidekiqConsumer(Consumer):
    """Consumes one queue for one worker process.

    No error of Redis leaves it: Dramatiq would log it as critical and begin a new
    consumer.  It waits, and tries again.
    """

    def __init__(self, process: WorkerProcess, queue_name: str, prefetch: int, timeout: int) -> None:
        self.logger = get_logger(__name__, type(self))
        self.process = process
        self.queue_name = queue_name
        self.seconds = timeout / 1000
        self.in_flight = process.holding(queue_name, prefetch)
        self.failures = FailureWriter(process, queue_name, self.in_flight.member)
        self.reader = JobReader(process, self.failures)

    def __next__(self) -> SidekiqMessage | None:
        try:
            return self._next()
        except (ConnectionClosed, *LOST) as e:
            self._pause(self.process.availability.lost(e))
        except Exception as e:
            self.in_flight.unavailable = True
            if self.process.log_limit.allows(f"fetch {self.queue_name}"):
                self.logger.error("Queue %r cannot be fetched from, trying again: %s", self.queue_name, e)
            self._pause(UNREADABLE)
        return None

    def _next(self) -> SidekiqMessage | None:
        while True:
            if self.process.quiet:
                self.close()
                self._pause(QUIET)
                return None
            message = self._next_fetched()
            if message is not None:
                return message
            if not self._fetch_more():
                return None

    def _next_fetched(self) -> SidekiqMessage | None:
        """The next job that was fetched and can be read."""
        held = self.in_flight
        while held.fetched:
            fetched = held.take()
            try:
                message = self.reader.read(*fetched)
            except BaseException:
                held.put_back(*fetched)
                raise
            if message is not None:
                return message
            held.discard(fetched[0])
        return None

    def _fetch_more(self) -> bool:
        """Fetch jobs as soon as there is a free slot, and the queue may hold jobs.

        Returns:
          False if there is nothing to look at: it has waited for a while.
        """
        held = self.in_flight
        slots = held.free_slots()
        if not slots:
            self.process.commit.flush_nowait()
            held.wait_for_slot(self.seconds)
            return False
        if not self._may_fetch():
            return False
        return self._wait_and_fetch(slots) if held.queue_empty else self._fetch(slots)

    def _wait_and_fetch(self, count: int) -> bool:
        """Wait until an empty queue may hold jobs, and fetch them."""
        self.process.commit.flush_nowait()
        if not self.process.waiter.wait(self.queue_name, self.seconds):
            return False
        if self.process.quiet:
            return True
        return self._may_fetch() and self._fetch(count)

    def _pause(self, seconds: float) -> None:
        time.sleep(min(self.seconds, seconds))

    def _may_fetch(self) -> bool:
        """Return True if the queue may be fetched from in the strict order; waits a moment if not."""
        if self.process.may_fetch(self.queue_name):
            return True
        self._pause(HELD_BACK)
        return False

    def _fetch(self, count: int) -> bool:
        free = reserve(self.in_flight, self.process.in_flight.values(), self.process.threads, count)
        try:
            return self._fetch_into(self.in_flight, count, free)
        finally:
            self.in_flight.reserved = 0

    def _fetch_into(self, held: InFlight, count: int, free: int) -> bool:
        jobs = queues.fetch(
            self.process.fetching,
            held.member,
            self.queue_name,
            held.next_base(),
            count,
            free=free,
            burst=held.burst(),
        )
        self.process.availability.back()
        self.process.hooks.age()
        if jobs is None:
            if held.registered:
                self.logger.warning(
                    "This worker missed its heartbeats and was declared dead; it registers again as %s.", held.member
                )
            self.process.heartbeat.beat()
            return True
        held.registered = True
        if isinstance(jobs, str):
            held.unavailable = True
            self._pause(PAUSE)
            return False
        held.unavailable = False
        held.queue_empty = len(jobs) < count
        held.add(jobs)
        return True

    def ack(self, message: Any) -> None:
        """Take a job that is done, or has failed, out of flight."""
        self._settle(message, self._ack)

    def nack(self, message: Any) -> None:
        """Take a rejected job out of flight."""
        self._settle(message, self._nack)

    def _settle(self, message: SidekiqMessage, settle: Callable[[SidekiqMessage], None]) -> None:
        """Take a job out of flight, however long Redis is unavailable.  Raises nothing."""
        began = time.monotonic()
        while True:
            try:
                settle(message)
                return
            except (ConnectionClosed, *LOST) as e:
                pause = self.process.availability.lost(e)
                if self.process.quiet and time.monotonic() - began > SHUTDOWN_PATIENCE:
                    self.logger.error(
                        "Job %s was run, but Redis is unavailable and this process stops: it stays in flight, and "
                        "another process runs it again.",
                        message.message_id,
                    )
                    return
                time.sleep(pause)
            except Exception:
                self.logger.exception(
                    "Job %s was run, and could not be settled. It stays in flight until this process stops, and then "
                    "runs again.",
                    message.message_id,
                )
                return

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
        confirm(self.process.in_flight, self.process.connection, message)
        if failure is None:
            failure = self._try_advance(message)
        if failure is not None:
            # Kept for a second call, and for the hooks that follow.
            message.failure = failure
            if failure.action == "requeue":
                self.requeue([message])
                return
            self.failures.write(message.receipt, failure, message.payload)
        self.in_flight.discard(message.receipt)

    def _try_advance(self, message: SidekiqMessage) -> Failure | None:
        """Acknowledge a finished job and push the next steps; returns its failure if that is impossible."""
        try:
            self._advance(message)
        except (ConnectionClosed, *LOST):
            raise
        except FlowError as e:
            invalid = isinstance(e, InvalidOutput)
            what = "returned an invalid output" if invalid else "is done, but its run cannot continue"
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

    def _advance(self, message: SidekiqMessage) -> None:
        if message.payload.run_id is None and not message.payload.stack:
            self.process.commit.ack(message.member, message.receipt, may_wait=self.in_flight.under_load)
        elif self.process.completion is not None:
            self.process.completion.advance(message)
        else:
            self.process.commit.ack(message.member, message.receipt)

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
