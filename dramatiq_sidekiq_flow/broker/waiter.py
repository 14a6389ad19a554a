"""Waits for jobs, for all queues of a process at once.

Redis notifies one connection of queues that have changed (``store/tracking.py``).
Consumers that found their queue empty wait here.  One of them, the leader, reads
the connection and wakes the others; when its own queue is filled, or its time is
up, another one becomes the leader.  So if a process has one queue, its consumer
is woken by the server directly, without a switch of threads.

Where the server refuses client tracking, each consumer blocks on its own queue
with ``BLMOVE`` of the list's end onto itself, which takes nothing; when there are
more queues than connections for that, the others check from time to time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable

from dramatiq.logging import get_logger

from ..store import keys, queues
from ..store.connection import FEW, LOST, Connection, ServerUnavailable
from ..store.tracking import Tracking, TrackingLost, TrackingRefused

#: Seconds after which a silent connection is checked with a request.
RECHECK = 10.0

#: Seconds after which a server that refused to track is asked again.
ASK_AGAIN = 60.0

#: Without tracking: how many consumers block on their queue at once, and how
#: often in seconds the others check.
BLOCKING = 16
LOOK_EVERY = 0.2


class _Watch:
    """One queue that consumers wait for."""

    __slots__ = ("armed", "called", "filled", "key", "waiting")

    def __init__(self, key: str) -> None:
        self.key = key
        #: The server was asked for a notification of the next change.
        self.armed = False
        #: The queue may hold jobs, and no consumer has looked yet.
        self.filled = False
        #: A consumer waits to be called: its queue is filled, or it becomes the leader.
        self.waiting = False
        self.called = threading.Event()


class Waiter:
    """Wakes consumers when their queue may hold jobs."""

    def __init__(self, connection: Connection) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = connection
        self._forget()

    def _forget(self) -> None:
        """Start without a connection: in a forked child, the open one is the parent's."""
        self._pid = os.getpid()
        #: Guards all that follows, and the connection's socket.
        self._lock = threading.RLock()
        self._watches: dict[str, _Watch] = {}
        self._tracking: Tracking | None = None
        self._led = False
        self._heard = self._asked = 0.0
        few = self.connection.most is not None and self.connection.most <= FEW
        self._ask_again = float("inf") if few else 0.0
        self._refused = few
        most = BLOCKING if self.connection.most is None else min(BLOCKING, self.connection.most // 2)
        self._blocking = threading.BoundedSemaphore(max(1, most))

    @property
    def tracks(self) -> bool:
        """True if the server notifies this process of changed queues."""
        return self._tracking is not None

    def wait(self, queue_name: str, seconds: float) -> bool:
        """Wait until a queue may hold jobs; False if the time passed first.

        Raises:
          redis.ConnectionError, redis.TimeoutError: if the server cannot be reached.
        """
        if self._pid != os.getpid():
            self._forget()
        seconds = min(seconds, self.connection.longest_wait)
        if self._refused and time.monotonic() < self._ask_again:
            return self._block(queue_name, seconds)
        deadline = time.monotonic() + seconds
        watch = self._watches.get(queue_name)
        if watch is None:
            watch = self._watches.setdefault(queue_name, _Watch(keys.queue(queue_name)))
        return self._wait_for(watch, deadline)

    def _wait_for(self, watch: _Watch, deadline: float) -> bool:
        """Read the connection, or wait for the consumer that does, until a queue is filled or the time is up."""
        while True:
            with self._lock:
                if watch.filled:
                    watch.filled = watch.armed = False
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                leads = self._take_lead(watch)
            if leads:
                try:
                    self._lead(watch, deadline)
                finally:
                    self._hand_over()
            else:
                watch.called.wait(left)
                watch.waiting = False

    def _take_lead(self, watch: _Watch) -> bool:
        """Become the leader, unless another consumer is; then prepare to be called.  The lock is held."""
        leads, self._led = not self._led, True
        if not leads:
            self._arm([watch])
            watch.waiting = True
            watch.called.clear()
        return leads

    def wake(self, queue_name: str) -> None:
        """Let the consumers of a queue check it now."""
        with self._lock:
            watch = self._watches.get(queue_name)
            if watch is not None:
                self._fill([watch])

    def release(self) -> None:
        """Let all consumers check their queues now."""
        with self._lock:
            self._fill(list(self._watches.values()))

    def stop(self) -> None:
        """Close the connection."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._close()

    # -- with tracking ----------------------------------------------------------

    def _lead(self, watch: _Watch, deadline: float) -> None:
        """Read notifications until the leader's own queue is filled, or the time is up."""
        try:
            self._read_until(self._armed_tracking(watch), watch, deadline)
        except TrackingRefused as e:
            self._refuse(e)
        except (*LOST, OSError, ValueError) as e:
            with self._lock:
                self._close()
            raise e if isinstance(e, LOST) else TrackingLost(str(e)) from None

    def _armed_tracking(self, watch: _Watch) -> Tracking:
        """Open the connection unless it is open, and ask for notifications of a queue."""
        with self._lock:
            if self._tracking is None:
                self._open()
            self._arm([watch])
            tracking = self._tracking
        if tracking is None:
            raise TrackingLost("The connection that waits for jobs was closed.")
        return tracking

    def _read_until(self, tracking: Tracking, watch: _Watch, deadline: float) -> None:
        while not watch.filled:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            ready = tracking.wait(left)
            with self._lock:
                if tracking is not self._tracking:
                    return
                if ready:
                    self._tell(*tracking.read())
                else:
                    self._check(tracking)

    def _open(self) -> None:
        self._tracking = Tracking(self.connection)
        self._heard = time.monotonic()
        if self._refused:
            self._refused = False
            self.logger.info("Redis allows CLIENT TRACKING now: one connection waits for all queues.")
        # Consumers that waited on the connection before must be woken by this one.
        self._arm([watch for watch in self._watches.values() if watch.waiting])

    def _close(self) -> None:
        tracking, self._tracking = self._tracking, None
        if tracking is not None:
            tracking.close()
        self._fill(list(self._watches.values()))
        for watch in self._watches.values():
            watch.armed = False

    def _arm(self, watches: Iterable[_Watch]) -> None:
        """Ask the server for notifications of these queues.  The lock is held."""
        unarmed = [watch for watch in watches if not watch.armed]
        if unarmed and self._tracking is not None:
            self._ask(self._tracking, unarmed)
            for watch in unarmed:
                watch.armed = True

    def _tell(self, filled: list[str], changed: list[str] | None) -> None:
        """Wake the consumers of the queues that were notified; None as ``changed`` means all."""
        self._heard = time.monotonic()
        if changed is None:
            self._fill(list(self._watches.values()))
        elif filled or changed:
            names = {*filled, *changed}
            self._fill([watch for watch in self._watches.values() if watch.key in names])

    @staticmethod
    def _fill(watches: list[_Watch]) -> None:
        for watch in watches:
            watch.filled = True
            watch.called.set()

    def _ask(self, tracking: Tracking, watches: list[_Watch]) -> None:
        tracking.ask([watch.key for watch in watches])
        self._asked = time.monotonic()

    def _check(self, tracking: Tracking) -> None:
        """Check a connection that has been silent for long; raises TrackingLost if it does not answer."""
        now = time.monotonic()
        if tracking.waiting:
            if now - self._asked > 2 * self.connection.longest_wait:
                raise TrackingLost("The connection that waits for jobs is silent.")
        elif now - self._heard > RECHECK:
            self._ask(tracking, [watch for watch in self._watches.values() if watch.armed])

    def _hand_over(self) -> None:
        """Let another consumer read the connection."""
        with self._lock:
            self._led = False
            for watch in self._watches.values():
                if watch.waiting:
                    watch.called.set()
                    return

    # -- without tracking -------------------------------------------------------

    def _refuse(self, error: TrackingRefused) -> None:
        with self._lock:
            if not self._refused:
                self.logger.warning(
                    "Redis refuses CLIENT TRACKING (%s), so each consumer waits on a connection of its own. "
                    "Allow the commands hello and client|tracking to use one connection for all queues.",
                    error,
                )
            self._refused = True
            self._ask_again = time.monotonic() + ASK_AGAIN
            self._close()

    def _block(self, queue_name: str, seconds: float) -> bool:
        if self._blocking.acquire(blocking=False):
            try:
                return queues.wait(self.connection, queue_name, seconds)
            except ServerUnavailable:
                # A full Redis or an access rule refuses BLMOVE, but a fetch may succeed.
                time.sleep(min(seconds, LOOK_EVERY))
                return True
            finally:
                self._blocking.release()
        if queues.length(self.connection, queue_name):
            return True
        time.sleep(min(seconds, LOOK_EVERY))
        return queues.length(self.connection, queue_name) > 0
