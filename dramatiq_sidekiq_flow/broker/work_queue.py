"""The messages of a worker that wait for a thread.

It takes the place of the ``PriorityQueue`` of a Dramatiq worker, which takes a
lock and two conditions for each message.  Here a message is appended to a deque
and taken from it, without a lock; only a thread that finds nothing sleeps, on a
lock of its own, and a message wakes at most one thread.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from queue import Empty
from typing import Any

from .queue_order import QueueOrder

#: Reads something from an item of Dramatiq's work queue (``dramatiq_internals``).
Reader = Callable[[Any], Any]


class _Levels:
    """Items in the order of their levels; within a level, in the order of their arrival.

    Each operation of a deque is atomic, so only a new level takes a lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._levels: dict[Hashable, deque[Any]] = {}
        #: The same deques, the one that comes first at the front; replaced, never changed.
        self._sorted: tuple[deque[Any], ...] = ()

    def put(self, level: Any, item: Any) -> None:
        items = self._levels.get(level)
        if items is None:
            items = self._add(level)
        items.append(item)

    def _add(self, level: Any) -> deque[Any]:
        with self._lock:
            items = self._levels.setdefault(level, deque())
            self._sorted = tuple(self._levels[each] for each in sorted(self._levels))  # type: ignore[type-var]
        return items

    def take(self) -> Any:
        """Take the first item; None if there is none."""
        for items in self._sorted:
            if items:
                try:
                    return items.popleft()
                except IndexError:
                    # Another thread took it.
                    pass
        return None

    def peek(self) -> Any:
        """The first item; None if there is none."""
        for items in self._sorted:
            if items:
                try:
                    return items[0]
                except IndexError:
                    # Another thread took it.
                    pass
        return None

    def __len__(self) -> int:
        return sum(map(len, self._sorted))

    def __iter__(self) -> Iterator[Any]:
        for items in self._sorted:
            # A copy: other threads take from it.
            yield from list(items)


class Ranked:
    """The items of all queues: those of a queue of a lower rank first, then by the priority of the actor, then by age.

    Without an order all queues have the same rank.
    """

    def __init__(self, order: QueueOrder, message_of: Reader, priority_of: Reader) -> None:
        self._message_of = message_of
        self._levels = _Levels()
        self.take = self._levels.take
        self.peek = self._levels.peek
        self._level_of: Reader = priority_of
        if order.strict:
            self._level_of = lambda item: (order.rank(message_of(item).queue_name), priority_of(item))

    def put(self, item: Any) -> None:
        """Add an item."""
        self._levels.put(self._level_of(item), item)

    def waiting(self, queue_name: str) -> bool:
        """Return True if an item of a queue is here."""
        return any(self._message_of(item).queue_name == queue_name for item in self._levels)

    def __len__(self) -> int:
        return len(self._levels)


class Weighted:
    """The items of each queue by priority and age; queues get turns by their weights."""

    def __init__(self, order: QueueOrder, message_of: Reader, priority_of: Reader) -> None:
        self._order, self._message_of, self._priority_of = order, message_of, priority_of
        self._lock = threading.Lock()
        self._queues: dict[str, _Levels] = {}
        self._passes: dict[str, float] = {}
        self._now = 0.0

    def put(self, item: Any) -> None:
        """Add an item."""
        name = self._message_of(item).queue_name
        with self._lock:
            levels = self._queues.setdefault(name, _Levels())
            if not levels:
                # A queue that had nothing to do has saved nothing up.
                self._passes[name] = max(self._passes.get(name, 0.0), self._now)
            levels.put(self._priority_of(item), item)

    def take(self) -> Any:
        """Take the item whose turn it is; None if there is none."""
        with self._lock:
            filled = [name for name, levels in self._queues.items() if levels]
            if not filled:
                return None
            # Stride scheduling: each turn costs a queue one over its weight.
            name = min(filled, key=lambda name: self._passes[name])
            self._now = self._passes[name]
            self._passes[name] += 1 / self._order.weight(name)
            return self._queues[name].take()

    def peek(self) -> Any:
        """One of the items, not always the next one; None if there is none."""
        return next((levels.peek() for levels in list(self._queues.values()) if levels), None)

    def waiting(self, queue_name: str) -> bool:
        """Return True if an item of a queue is here."""
        return bool(self._queues.get(queue_name))

    def __len__(self) -> int:
        return sum(map(len, list(self._queues.values())))


class _ForThisThread:
    """A context manager, for each step of a chain: one of contextlib takes three times as long."""

    __slots__ = ("_ident", "_threads")

    def __init__(self, threads: set[int]) -> None:
        self._threads = threads
        self._ident = threading.get_ident()

    def __enter__(self) -> None:
        self._threads.add(self._ident)

    def __exit__(self, *error: object) -> None:
        self._threads.discard(self._ident)


class WorkQueue:
    """A queue with the methods of ``queue.PriorityQueue`` that Dramatiq calls.

    Parameters:
      order: The order of the queues.
      message_of, priority_of: Read an item (``dramatiq_internals``).
      idle: Function that a thread calls before it waits for an item.
    """

    def __init__(
        self,
        order: QueueOrder,
        message_of: Reader,
        priority_of: Reader,
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._idle = idle
        kind = Weighted if order.mode == "weighted" else Ranked
        self.items: Ranked | Weighted = kind(order, message_of, priority_of)
        self.waiting = self.items.waiting
        self.peek = self.items.peek
        self._take = self.items.take
        #: A lock for each thread that sleeps; to wake it, its lock is taken out and released.
        self._sleepers: deque[threading.Lock] = deque()
        #: As long as the number of items that were put and are not done.
        self._unfinished: deque[None] = deque()
        #: Of each thread in :meth:`join`.
        self._joining: deque[threading.Event] = deque()
        #: The threads that put items for themselves, and these items.
        self._for_itself: set[int] = set()
        self._own: dict[int, Any] = {}

    # -- items ----------------------------------------------------------------

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item, and wake a thread if one sleeps.  Never waits."""
        self._unfinished.append(None)
        if self._for_itself and threading.get_ident() in self._for_itself:
            self._own[threading.get_ident()] = item
            return
        self.items.put(item)
        if self._sleepers:
            self._wake()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the first item.

        Parameters:
          timeout: Seconds.

        Raises:
          queue.Empty: if there is none, or if none came in this time.
        """
        if self._own:
            item = self._own.pop(threading.get_ident(), None)
            if item is not None:
                return item
        item = self._take()
        if item is None and block:
            item = self._wait(timeout)
        if item is None:
            raise Empty
        return item

    def for_this_thread(self) -> _ForThisThread:
        """Keep an item that the block puts for the next :meth:`get` of this thread; it wakes no other thread."""
        return _ForThisThread(self._for_itself)

    def _wait(self, timeout: float | None) -> Any:
        """Sleep until there is an item; None if the time passed first."""
        self._idle()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = -1 if deadline is None else deadline - time.monotonic()
            if deadline is not None and left <= 0:
                return None
            item = self._sleep(left)
            if item is not None:
                return item

    def _sleep(self, seconds: float) -> Any:
        """Sleep once; -1 for as long as it takes.  Takes the item that it was woken for, unless another thread did."""
        sleeper = threading.Lock()
        sleeper.acquire()
        self._sleepers.append(sleeper)
        try:
            # Again: an item that was put before this line has woken another thread, or none.
            item = self._take()
            if item is None:
                sleeper.acquire(timeout=seconds)
                item = self._take()
        finally:
            try:
                self._sleepers.remove(sleeper)
            except ValueError:
                # Woken: pass it on, if it was for another item than the one taken above.
                if self.items:
                    self._wake()
        return item

    def _wake(self) -> None:
        """Wake the thread that has slept for the shortest time."""
        # Without a sleeper, all are awake by now.
        with contextlib.suppress(IndexError):
            self._sleepers.pop().release()

    def get_nowait(self) -> Any:
        """Take the first item.

        Raises:
          queue.Empty: if there is none.
        """
        return self.get(block=False)

    def qsize(self) -> int:
        """Count the items."""
        return len(self.items)

    def empty(self) -> bool:
        """Return True if there are no items."""
        return not self.items

    # -- items that are done ----------------------------------------------------

    @property
    def unfinished_tasks(self) -> int:
        """Number of items that were put and are not done."""
        return len(self._unfinished)

    def task_done(self) -> None:
        """Note that an item which was taken is done.

        Raises:
          ValueError: if no item is left to be done.
        """
        try:
            self._unfinished.pop()
        except IndexError:
            raise ValueError("task_done() called too many times") from None
        if self._joining and not self._unfinished:
            for event in list(self._joining):
                event.set()

    def join(self) -> None:
        """Wait until all items are done."""
        done = threading.Event()
        self._joining.append(done)
        try:
            if self._unfinished:
                done.wait()
        finally:
            self._joining.remove(done)
