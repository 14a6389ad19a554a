"""Fetches the jobs of one queue, as many as the process has room for."""

from __future__ import annotations

import time
from collections.abc import Callable

from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from ..store.connection import LOST
from ..store.queues import Fetch, Fetched
from .dramatiq_internals import consumer_stops
from .in_flight import InFlight, reserve
from .job_reader import JobReader
from .message import SidekiqMessage
from .worker_process import WorkerProcess

#: Between two looks at a paused queue, in seconds.
PAUSE = 0.5

#: Between two checks of a quiet process whether it stops, in seconds.
QUIET = 0.05

#: Between two tries to fetch from a queue whose key is not a list, in seconds.
UNREADABLE = 1.0

#: Between the last job of a queue and the wait for the next one, in seconds.
YIELD = 0.00005

#: Between two checks whether a queue of higher priority still has jobs, in seconds.
HELD_BACK = 0.01


class Fetcher:
    """Fetches jobs in batches, and reads them one at a time.

    Parameters:
      seconds: How long to wait for a job.
      give_back: Function that puts back fetched jobs; called in a quiet process.
    """

    def __init__(
        self,
        process: WorkerProcess,
        in_flight: InFlight,
        reader: JobReader,
        seconds: float,
        give_back: Callable[[], None],
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.process = process
        self.queue_name = in_flight.queue_name
        self.in_flight = in_flight
        self.standing = process.standing.of(in_flight)
        self.reader = reader
        self.seconds = seconds
        self.give_back = give_back

    def next(self) -> SidekiqMessage | None:
        """Get the next job; None if there is none after a while."""
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
                self._end_standing()
                self.give_back()
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
        if self.standing.stands:
            return self._stand()
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
        if self.in_flight.handed_out:
            # A thread is about to take the last job; it needs the interpreter first.
            time.sleep(YIELD)
        self.process.hooks.prepare()
        if self._begin_standing(count):
            return self._stand()
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

    # -- a fetch that stands at the server ---------------------------------------

    def _begin_standing(self, count: int) -> bool:
        """Let the next fetch stand, if a thread is idle; returns False if it does not stand."""
        process, held = self.process, self.in_flight
        if not self.standing.may_begin() or not process.may_stand(self.queue_name) or consumer_stops():
            return False
        alone = len(process.in_flight) == 1
        if not alone:
            # Threads are left to the other queues.  Two jobs, so that one alone is known to be the last.
            count = min(count, 2)
        free = reserve(held, process.in_flight.values(), process.threads, count if alone else 1)
        if free and self.standing.begin(self._new_fetch(count, free)):
            return True
        held.reserved = 0
        return False

    def _stand(self) -> bool:
        answer = self.standing.wait(self.seconds)
        if answer is None:
            if consumer_stops():
                self._end_standing()
            self.process.hooks.prepare()
            return False
        return self._accept(answer.jobs, answer.count)

    def _end_standing(self) -> None:
        """End the fetch that stands, and keep the jobs that it has brought."""
        answer = self.standing.end()
        if answer is not None and isinstance(answer.jobs, list):
            self.in_flight.add(answer.jobs)

    # -- a fetch -----------------------------------------------------------------

    def _fetch(self, count: int) -> bool:
        process, held = self.process, self.in_flight
        free = reserve(held, process.in_flight.values(), process.threads, count)
        try:
            fetch = self._new_fetch(count, free)
            return self._accept(fetch.read(process.fetching.call(*fetch.command)), count)
        finally:
            held.reserved = 0

    def _new_fetch(self, count: int, free: int) -> Fetch:
        held = self.in_flight
        return Fetch(held.member, self.queue_name, held.next_base(), count, free, held.burst())

    def _accept(self, jobs: Fetched, count: int) -> bool:
        """Keep the jobs of a fetch that asked for ``count``; returns False if there is nothing to look at."""
        held = self.in_flight
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
