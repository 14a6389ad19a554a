"""Lets the next fetch of an idle process stand at the server (``store/standing_fetch.py``)."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
from dramatiq.logging import get_logger

from ..store.connection import LOST, Connection
from ..store.queues import Fetch, Fetched
from ..store.standing_fetch import StandingFetch, StandingRefused
from .in_flight import InFlight

#: A process lets the fetches of so many queues stand, each on a connection of its own, if it
#: has no more queues.  Each of them reserves a thread, and Dramatiq's default is 8 threads.
STANDING = 8

#: One fetch stands for so many connections that the process may open.
SHARE = 10

#: Seconds after which a server that refused is asked again.
ASK_AGAIN = 60.0


@attrs.frozen
class Answer:
    """The answer to a fetch that has stood.

    Attributes:
      jobs: As :func:`queues.fetch` returns them.
      count: How many were asked for.
    """

    jobs: Fetched
    count: int


class Standing:
    """The standing fetch of one queue, of one process.

    It outlives a consumer, as the jobs in flight do.  Threads that it begins jobs
    with stay reserved while it stands.
    """

    def __init__(self, connection: Connection, held: InFlight) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = connection
        self.held = held
        self._open: StandingFetch | None = None
        self._fetch: Fetch | None = None
        self._ask_again = 0.0

    @property
    def stands(self) -> bool:
        """True if a fetch stands at the server."""
        return self._fetch is not None

    def may_begin(self) -> bool:
        """Return True unless the server has refused, or the queue is paused."""
        return not self.held.unavailable and time.monotonic() >= self._ask_again

    def begin(self, fetch: Fetch) -> bool:
        """Let a fetch stand; returns False if the server refuses it.

        Raises:
          redis.ConnectionError, redis.TimeoutError: if the server cannot be reached.
        """
        try:
            if self._open is None:
                self._open = StandingFetch(self.connection)
            self._open.send(fetch.queue, fetch.command)
        except StandingRefused as e:
            self._refuse(str(e))
            return False
        except BaseException:
            self.close()
            raise
        self._fetch = fetch
        return True

    def wait(self, seconds: float) -> Answer | None:
        """Wait for the answer; None if there is none yet.

        Raises:
          redis.ConnectionError, redis.TimeoutError: if the server cannot be reached; the
            next fetch with the same base gets the jobs of this one.
        """
        opened = self._open
        if opened is None or not self._guarded(lambda: opened.wait(seconds)):
            return None
        return self._answer(opened.read)

    def end(self) -> Answer | None:
        """End the fetch that stands, and get its answer; None if none stands.

        Raises:
          redis.ConnectionError, redis.TimeoutError: if the server cannot be reached; jobs that
            it has put in flight go back with a heartbeat.
        """
        opened = self._open
        if opened is None or self._fetch is None:
            return None
        try:
            return self._answer(opened.end)
        except LOST:
            self.held.add([])
            raise

    def ring(self) -> None:
        """Let :meth:`wait` return.  Any thread may call it."""
        if self._open is not None:
            self._open.ring()

    def close(self) -> None:
        """Close the connection."""
        opened, self._open, self._fetch = self._open, None, None
        self.held.reserved = 0
        if opened is not None:
            opened.close()

    def _answer(self, read: Callable[[], object]) -> Answer:
        fetch = self._fetch
        assert fetch is not None
        reply = self._guarded(read)
        self._fetch = None
        self.held.reserved = 0
        if self._open is not None and self._open.refused:
            self._refuse(self._open.refused)
        return Answer(fetch.read(reply), fetch.count)

    def _guarded(self, action: Callable[[], object]) -> object:
        """Do something on the connection; it is closed if that fails, even by an interrupt."""
        try:
            return action()
        except BaseException:
            self.close()
            raise

    def _refuse(self, error: str) -> None:
        self.logger.debug("Redis refuses that a fetch of %r stands (%s).", self.held.queue_name, error)
        self._ask_again = time.monotonic() + ASK_AGAIN
        self.close()


class Standings:
    """The fetches of one process that may stand at the server.

    Attributes:
      most: How many may stand at once.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        most = connection.most
        self.most = STANDING if most is None else min(STANDING, most // SHARE)
        self._of: dict[str, Standing] = {}

    def of(self, held: InFlight) -> Standing:
        """The fetch of one queue."""
        found = self._of.get(held.queue_name)
        if found is None or found.held is not held:
            found = self._of[held.queue_name] = Standing(self.connection, held)
        return found

    def ring(self, queue_name: str) -> None:
        """Let a consumer that waits for the answer go on."""
        found = self._of.get(queue_name)
        if found is not None:
            found.ring()

    def ring_all(self) -> None:
        """Let all consumers that wait for an answer go on."""
        for each in list(self._of.values()):
            each.ring()

    def close(self) -> None:
        """Close the connections."""
        for each in list(self._of.values()):
            each.close()

    def forget(self) -> None:
        """Begin without connections: in a forked child, the open ones are the parent's."""
        self._of = {}
