"""Reads of Redis that all browsers share: the same is read once a second at most, however many ask."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, cast

import attrs

#: Seconds between two reads of the same.
INTERVAL = 1.0

#: Seconds that a value is kept, at most, while others are read.
KEPT = 10.0

#: Reads at the same time.
THREADS = 4

Value = TypeVar("Value")


@attrs.frozen(eq=False)
class _Read:
    future: Future[Any]
    began: float

    def is_recent(self) -> bool:
        return not self.future.done() or time.monotonic() - self.began < INTERVAL


class SharedReads:
    """Reads in threads of its own, for any number of event loops."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "sidekiq-flow-web")
        self._lock = threading.Lock()
        self._reads: dict[Hashable, _Read] = {}

    async def get(self, key: Hashable, read: Callable[[], Value]) -> Value:
        """Return what a function of this key returned within the last second, else call it.

        An error of the function is shared, too.
        """
        with self._lock:
            found = self._reads.get(key)
            if found is None or not found.is_recent():
                self._drop_old()
                found = self._reads[key] = _Read(self._threads.submit(read), time.monotonic())
        # A browser that goes away does not cancel the read of the others.
        return cast(Value, await asyncio.shield(asyncio.wrap_future(found.future)))

    def forget(self, key: Hashable) -> None:
        """Read this anew when it is asked for."""
        with self._lock:
            self._reads.pop(key, None)

    def _drop_old(self) -> None:
        oldest = time.monotonic() - KEPT
        for key, read in list(self._reads.items()):
            if read.future.done() and read.began < oldest:
                del self._reads[key]
