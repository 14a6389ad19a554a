"""Waits for jobs, for all queues of a process at once.

One thread holds one connection, over which Redis tells it that a queue has
changed (``store/tracking.py``).  Consumers that found their queue empty wait here.
Where the server refuses client tracking, each consumer blocks on its own queue
with ``BLMOVE`` of the list's end onto itself, which takes nothing; when there are
more queues than connections for that, the others look from time to time.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from collections import deque

from dramatiq.logging import get_logger

from ..store import keys, queues
from ..store.connection import FEW, LOST, Connection, ServerUnavailable
from ..store.tracking import Tracking, TrackingRefused
from .availability import Availability

#: Seconds after which a silent connection is asked, which shows that it lives.
RECHECK = 10.0

#: Seconds after which a server that refused to track is asked again.
ASK_AGAIN = 60.0

#: Without tracking: how many consumers block on their queue at once, and how
#: often in seconds the others look.
BLOCKING = 16
LOOK_EVERY = 0.2


class _Watch:
    """One queue that consumers wait for.

    ``armed`` is true from the moment when the thread is asked to watch the queue
    until something was heard of it.
    """

    __slots__ = ("armed", "filled", "key")

    def __init__(self, key: str) -> None:
        self.key = key
        self.armed = False
        self.filled = threading.Event()


class Waiter:
    """Tells consumers when their queue may hold jobs."""

    def __init__(self, connection: Connection, availability: Availability) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = connection
        self.availability = availability
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        """Begin without a thread; that of a parent process is not ours."""
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._watches: dict[str, _Watch] = {}
        self._to_arm: deque[_Watch] = deque()
        self._bell: tuple[int, int] | None = None
        few = self.connection.most is not None and self.connection.most <= FEW
        #: Consumers block by themselves.
        self._refused = few
        most = BLOCKING if self.connection.most is None else min(BLOCKING, self.connection.most // 2)
        self._blocking = threading.BoundedSemaphore(max(1, most))

    @property
    def tracks(self) -> bool:
        """Whether the server tells this process of its queues."""
        return not self._refused

    def wait(self, queue_name: str, seconds: float) -> bool:
        """Wait until a queue may hold jobs; False if the time passed first.

        Raises:
          redis.ConnectionError, redis.TimeoutError: if the server is away, where it is asked from here.
        """
        if self._pid != os.getpid():
            self._forget()
        if self._refused:
            return self._block(queue_name, seconds)
        watch = self._watches.get(queue_name)
        if watch is None:
            watch = self._watches.setdefault(queue_name, _Watch(keys.queue(queue_name)))
        if not watch.armed:
            watch.filled.clear()
            watch.armed = True
            self._to_arm.append(watch)
            self._ring()
        if not watch.filled.wait(seconds):
            return False
        # The next one to wait asks anew.
        watch.armed = False
        return True

    def release(self) -> None:
        """Let all consumers look at their queues now."""
        for watch in list(self._watches.values()):
            watch.armed = False
            watch.filled.set()

    def stop(self) -> None:
        """Stop the thread, and close its connection."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None and self._pid == os.getpid():
            self._ring(start=False)
            if thread is not threading.current_thread():
                thread.join()
        self.release()

    # -- without tracking -------------------------------------------------------

    def _block(self, queue_name: str, seconds: float) -> bool:
        seconds = min(seconds, self.connection.longest_wait)
        if self._blocking.acquire(blocking=False):
            try:
                return queues.wait(self.connection, queue_name, seconds)
            except ServerUnavailable:
                # BLMOVE is refused, by a full Redis or an access rule, where a fetch may succeed.
                time.sleep(min(seconds, LOOK_EVERY))
                return True
            finally:
                self._blocking.release()
        if queues.length(self.connection, queue_name):
            return True
        time.sleep(min(seconds, LOOK_EVERY))
        return queues.length(self.connection, queue_name) > 0

    # -- the thread -------------------------------------------------------------

    def _ring(self, *, start: bool = True) -> None:
        """Wake the thread; start it where it does not run."""
        with self._lock:
            if start and (self._thread is None or not self._thread.is_alive()):
                self._stop = threading.Event()
                self._bell = self._bell or os.pipe()
                os.set_blocking(self._bell[0], False)
                os.set_blocking(self._bell[1], False)
                self._thread = threading.Thread(
                    target=self._run, args=(self._stop, self._bell[0]), name="sidekiq-waiter", daemon=True
                )
                self._thread.start()
            if self._bell is not None:
                # Full: there is enough to wake it.
                with contextlib.suppress(BlockingIOError):
                    os.write(self._bell[1], b".")

    def _run(self, stop: threading.Event, bell: int) -> None:
        while not stop.is_set():
            tracking = None
            try:
                tracking = Tracking(self.connection)
                self._follow(tracking, stop, bell)
            except TrackingRefused as e:
                self.logger.warning(
                    "Redis refuses CLIENT TRACKING (%s), so each consumer keeps a connection that waits. "
                    "Allow the commands hello and client|tracking to wait with one.",
                    e,
                )
                self._refused = True
                self.release()
                stop.wait(ASK_AGAIN)
            except LOST as e:
                self.release()
                stop.wait(self.availability.lost(e))
            except Exception:
                self.logger.exception("Waiting for jobs failed, trying again.")
                self.release()
                stop.wait(1.0)
            finally:
                if tracking is not None:
                    tracking.close()

    def _follow(self, tracking: Tracking, stop: threading.Event, bell: int) -> None:
        """Pass on what one connection tells, until it is lost."""
        if self._refused:
            self._refused = False
            self.logger.info("Redis allows CLIENT TRACKING now; one connection waits for all queues.")
        with selectors.DefaultSelector() as selector:
            selector.register(tracking, selectors.EVENT_READ)
            selector.register(bell, selectors.EVENT_READ)
            asked_at = time.monotonic()
            while not stop.is_set():
                self._tell(tracking)
                if self._to_arm:
                    asked_at = self._ask(tracking, list(_drained(self._to_arm)))
                patience = 2 * self.connection.longest_wait
                ready = selector.select(patience if tracking.waiting else RECHECK)
                if any(key.fd == bell for key, _ in ready):
                    os.read(bell, 4096)
                if ready:
                    continue
                if not tracking.waiting:
                    asked_at = self._ask(tracking, [watch for watch in list(self._watches.values()) if watch.armed])
                elif time.monotonic() - asked_at >= patience:
                    raise ServerUnavailable(TimeoutError("The connection that waits for jobs is silent."))

    def _ask(self, tracking: Tracking, watches: list[_Watch]) -> float:
        tracking.ask([watch.key for watch in watches])
        return time.monotonic()

    def _tell(self, tracking: Tracking) -> None:
        """Wake the consumers of the queues that something was heard of."""
        filled, changed = tracking.read()
        if changed is None:
            self.release()
            return
        if filled or changed:
            by_key = {watch.key: watch for watch in list(self._watches.values())}
            for key in (*filled, *changed):
                watch = by_key.get(key)
                if watch is not None:
                    watch.armed = False
                    watch.filled.set()


def _drained(waiting: deque[_Watch]) -> list[_Watch]:
    found = []
    while waiting:
        found.append(waiting.popleft())
    return found
