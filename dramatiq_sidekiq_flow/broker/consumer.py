"""From a queue into flight, and out of it again.

The consumer fetches in batches and hands one message at a time to Dramatiq's
worker.  :meth:`SidekiqConsumer.ack` is where a finished job leaves: that is
where its workflow advances, and where its failure is written, each in one
step that also takes it out of flight.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from dramatiq.broker import Consumer
from dramatiq.errors import ActorNotFound, ConnectionClosed
from dramatiq.logging import get_logger
from dramatiq.middleware import SkipMessage

from ..errors import FlowError, InvalidOutput, StepSkipped, WorkflowMiddlewareMissing, WrongType
from ..store import queues, sets
from ..store.connection import FAULTS, LOST
from ..store.needs import NO_NEEDS, Needs, needs
from ..wire.lifetimes import DEAD_TIMEOUT
from ..wire.payload import Payload, buried
from .begin import confirm
from .events import Buried
from .message import SidekiqMessage, to_message
from .order import held_back
from .retries import Failure, Retries, decide, killed, rejected
from .window import Window, reserve

if TYPE_CHECKING:
    from .broker import SidekiqBroker

#: Between two looks at a paused queue, in seconds.
PAUSE = 0.5

#: Between two looks of a quiet process whether it ends, in seconds.
QUIET = 0.05

#: Between two tries to fetch from a queue whose key holds something else, in seconds.
UNREADABLE = 1.0

#: How long a job waits for an unavailable Redis while its process shuts down, in
#: seconds.  After that it stays in flight, is recovered, and runs again.
SHUTDOWN_PATIENCE = 20.0

#: Between two looks whether a queue that goes first still has jobs, in seconds.
HELD_BACK = 0.01


class SidekiqConsumer(Consumer):
    """Consumes one queue for one worker process.

    No error of Redis leaves it: Dramatiq would log it as critical and begin a new
    consumer.  It waits, and tries again.
    """

    def __init__(self, broker: SidekiqBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        self.logger = get_logger(__name__, type(self))
        self.broker = broker
        self.queue_name = queue_name
        self.seconds = timeout / 1000
        self.window = broker.window(queue_name, prefetch)

    def __next__(self) -> SidekiqMessage | None:
        try:
            return self._next()
        except (ConnectionClosed, *LOST) as e:
            self._pause(self.broker.availability.lost(e))
        except Exception as e:
            self.window.unavailable = True
            if self.broker.log_limit.allows(f"fetch {self.queue_name}"):
                self.logger.error("Queue %r cannot be fetched from, trying again: %s", self.queue_name, e)
            self._pause(UNREADABLE)
        return None

    def _next(self) -> SidekiqMessage | None:
        window = self.window
        while True:
            if self.broker.quiet:
                self.close()
                self._pause(QUIET)
                return None
            while window.fetched:
                fetched = window.take()
                try:
                    message = self._read(*fetched)
                except BaseException:
                    window.put_back(*fetched)
                    raise
                if message is not None:
                    return message
                window.settle(fetched[0])
            room = window.room()
            if not room:
                self.broker.commit.flush_nowait()
                window.wait_for_room(self.seconds)
                return None
            if self._held_back():
                return None
            if window.drained:
                self.broker.commit.flush_nowait()
                if not self.broker.waiter.wait(self.queue_name, self.seconds):
                    return None
                if self.broker.quiet:
                    continue
                if self._held_back():
                    return None
            if not self._fetch(room):
                return None

    def _pause(self, seconds: float) -> None:
        time.sleep(min(self.seconds, seconds))

    def _held_back(self) -> bool:
        """Whether jobs of other queues go first; then it has waited a little."""
        if not held_back(self.broker, self.queue_name):
            return False
        self._pause(HELD_BACK)
        return True

    def _fetch(self, count: int) -> bool:
        free = reserve(self.window, self.broker.windows.values(), self.broker.threads, count)
        try:
            return self._fetch_into(self.window, count, free)
        finally:
            self.window.reserved = 0

    def _fetch_into(self, window: Window, count: int, free: int) -> bool:
        jobs = queues.fetch(
            self.broker.fetching,
            window.member,
            self.queue_name,
            window.next_base(),
            count,
            free=free,
            burst=window.burst(),
        )
        self.broker.availability.back()
        if jobs is None:
            if window.registered:
                self.logger.warning(
                    "This worker missed its heartbeats and was declared dead; it registers again as %s.", window.member
                )
            self.broker.heartbeat.beat()
            return True
        window.registered = True
        if isinstance(jobs, str):
            window.unavailable = True
            self._pause(PAUSE)
            return False
        window.unavailable = False
        window.drained = len(jobs) < count
        window.add(jobs)
        return True

    def _read(self, receipt: str, raw: bytes) -> SidekiqMessage | None:
        payload = None
        completion = self.broker.completion
        try:
            payload = Payload.decode(raw, None if completion is None else completion.retrieve)
            if payload.stack and completion is None:
                raise WorkflowMiddlewareMissing(
                    "This job is a step of a workflow, and the broker has no WorkflowMiddleware to go on with it. "
                    "Add one, then retry the job.",
                    raw,
                )
        except LOST:
            raise
        except FlowError as e:
            dead = Failure("dead", buried(raw, e, now=time.time(), queue=self.queue_name))
            self._bury_unread(receipt, dead, payload)
            text = "A job of queue %r cannot be run and is now in 'dead': %s"
            self.broker.log_burst(self.logger.error, text, self.queue_name, e)
            self.broker.events.tell(Buried(self.queue_name, e))
            return None
        except Exception as e:
            # A callback storage of the application's own: this job's failure, tried again later.
            payload = Payload.decode(raw, lambda stored: None)
            actor = self.broker.actors.get(payload.actor_name)
            self._bury_unread(receipt, decide(payload, self.queue_name, e, actor, Retries()), payload)
            text = "The callback stack of a job of queue %r was not found: %s"
            self.broker.log_burst(self.logger.error, text, self.queue_name, e)
            return None
        return SidekiqMessage(to_message(payload, self.queue_name), payload, self.window.member, receipt)

    def _bury_unread(self, receipt: str, failure: Failure, payload: Payload | None) -> None:
        try:
            self._write_failure(receipt, failure, payload, time.time())
        except WrongType as e:
            self._set_aside(receipt, failure, payload, e)

    def ack(self, message: Any) -> None:
        """A job is done, or has failed and its fate is decided: it leaves flight."""
        self._settle(message, self._ack)

    def nack(self, message: Any) -> None:
        """A job is not to be run, or not again."""
        self._settle(message, self._nack)

    def _settle(self, message: SidekiqMessage, settle: Callable[[SidekiqMessage], None]) -> None:
        """Take a job out of flight, however long Redis is unavailable.  Raises nothing."""
        began = time.monotonic()
        while True:
            try:
                settle(message)
                return
            except (ConnectionClosed, *LOST) as e:
                pause = self.broker.availability.lost(e)
                if self.broker.quiet and time.monotonic() - began > SHUTDOWN_PATIENCE:
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
            self.window.settle(message.receipt)
            return
        failure = message.failure
        if failure is None and message.exception is not None:
            # No Retries middleware: Dramatiq would call it done. It is not.
            failure = decide(
                message.payload,
                self.queue_name,
                message.exception,
                self._actor(message),
                Retries(),
                own_options=message.options,
                stopping=self.broker.quiet,
            )
        elif failure is None and message.skipped and message.payload.stack:
            error = StepSkipped("A middleware skipped the step, so what follows it waits.", message.message_id)
            self.logger.error("Job %s is now in 'dead': %s", message.message_id, error)
            failure = killed(message.payload, self.queue_name, error)
        self._leave(message, failure)

    def _nack(self, message: SidekiqMessage) -> None:
        failure = message.failure
        if failure is None:
            error = message.exception or SkipMessage("The message was rejected.")
            if isinstance(error, ActorNotFound):
                self.broker.tally.refuse()
                # As Sidekiq treats an unknown class: a deploy may be on its way.
                failure = decide(message.payload, self.queue_name, error, None, Retries())
            else:
                failure = rejected(message.payload, self.queue_name, error)
        self._leave(message, failure)

    def _leave(self, message: SidekiqMessage, failure: Failure | None) -> None:
        confirm(self.broker, message)
        if failure is None:
            try:
                self._advance(message)
            except (ConnectionClosed, *LOST):
                raise
            except FlowError as e:
                what = "returned an invalid output" if isinstance(e, InvalidOutput) else "is done, but cannot go on"
                text = "Job %s %s, and is now in 'dead': %s"
                self.broker.log_burst(self.logger.error, text, message.message_id, what, e)
                failure = killed(message.payload, self.queue_name, e)
                message.stuff_exception(e)
            except Exception as e:
                # A memory or a barrier of the application's own.
                text = "Job %s is done, but could not go on, and is tried again: %s"
                self.broker.log_burst(self.logger.error, text, message.message_id, e)
                failure = decide(message.payload, self.queue_name, e, self._actor(message), Retries())
                message.stuff_exception(e)
        if failure is not None:
            # Kept for a second call, and for the hooks that follow.
            message.failure = failure
            if failure.action == "requeue":
                self.requeue([message])
                return
            try:
                self._write_failure(message.receipt, failure, message.payload, time.time())
            except WrongType as e:
                self._set_aside(message.receipt, failure, message.payload, e)
        self.window.settle(message.receipt)

    def _advance(self, message: SidekiqMessage) -> None:
        if message.payload.run_id is None and not message.payload.stack:
            self.broker.commit.ack(message.member, message.receipt, may_wait=self.window.hurried)
        elif self.broker.completion is not None:
            self.broker.completion.advance(message)
        else:
            self.broker.commit.ack(message.member, message.receipt)

    def _set_aside(self, receipt: str, failure: Failure, payload: Payload | None, error: WrongType) -> None:
        """Keep a failed job in flight until ``retry`` or ``dead`` can take it."""
        if self.broker.log_limit.allows(f"aside {failure.action}"):
            self.logger.error("Failed jobs of queue %r stay in flight for now: %s", self.queue_name, error)

        def write() -> None:
            self._write_failure(receipt, failure, payload, time.time())

        self.broker.set_aside[self.window.member, receipt] = write

    def _write_failure(self, receipt: str, failure: Failure, payload: Payload | None, now: float) -> None:
        assert failure.action != "requeue"
        self.broker.commit.run(
            sets.fail(
                self.window.member,
                receipt,
                failure.action,
                now=now,
                at=failure.at,
                payload=failure.payload,
                needs=self._needs(failure, payload, now),
            )
        )
        if failure.action == "retry":
            self.broker.poller.nudge(failure.at - now)

    def _needs(self, failure: Failure, payload: Payload | None, now: float) -> Needs:
        """What the failed job's run needs until the job runs again."""
        if payload is None or failure.action == "discard":
            return NO_NEEDS
        # A dead job may be retried for as long as `dead` keeps it.
        waits = DEAD_TIMEOUT if failure.action == "dead" else failure.at - now
        completion = self.broker.completion
        if completion is None:
            return needs(payload, waits=waits)
        return completion.prepare_wait(payload, waits=waits)

    def _actor(self, message: SidekiqMessage) -> Any:
        return self.broker.actors.get(message.actor_name)

    def requeue(self, messages: Iterable[Any]) -> None:
        """Put messages that were not run back, to be taken next."""
        receipts = [message.receipt for message in messages]
        self._requeue(receipts)

    def close(self) -> None:
        """Put back what no worker thread has seen."""
        receipts = [receipt for receipt, _ in self.window.fetched]
        try:
            self._requeue(receipts)
            self.window.fetched.clear()
        except (ConnectionClosed, *FAULTS) as e:
            # Still in flight, still held: the next consumer hands it out.
            self.logger.warning("Could not put %d jobs back into %r: %s", len(receipts), self.queue_name, e)

    def _requeue(self, receipts: list[str]) -> None:
        if not receipts:
            return
        try:
            queues.requeue(self.broker.connection, self.window.member, self.queue_name, receipts)
        except LOST as e:
            raise ConnectionClosed(e) from None
        for receipt in receipts:
            self.window.settle(receipt)


__all__ = ["SidekiqConsumer"]
