"""Feeds: what a page shows, looked at again and again while a browser shows it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping

import attrs

from .rendering import Fragment

#: Seconds between two looks, at least; that of a run at rest; and how many times longer than a look itself takes.
PAUSE, PAUSE_AT_REST, SHARE = 1.0, 5.0, 10

#: Seconds after which a browser that got nothing gets a sign of life.
SIGN_OF_LIFE = 15.0

#: Seconds that a stream lasts: the browser then asks again, and is authorized again.
LONGEST = 300.0

Fragments = Mapping[str, Fragment]


@attrs.frozen
class Shown:
    """What a page shows.

    Attributes:
      is_quiet: True if it is not expected to change.
    """

    fragments: Fragments
    is_quiet: bool = False


Look = Callable[[], Awaitable[Shown]]


class Feed:
    """One page, for all browsers that show it."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.browsers = 0
        self.latest: Fragments = {}
        self.changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            shown = await self.look()
            if shown.fragments != self.latest:
                self.latest = shown.fragments
                self.changed.set_result(None)
                self.changed = asyncio.get_running_loop().create_future()
            took = time.monotonic() - began
            await asyncio.sleep(max(PAUSE_AT_REST if shown.is_quiet else PAUSE, SHARE * took))

    async def changes(self) -> AsyncIterator[Fragments]:
        """Yield what has changed, at first everything; nothing as a sign of life."""
        sent: dict[str, Fragment] = {}
        end = time.monotonic() + LONGEST
        while time.monotonic() < end and not self.task.done():
            changed, latest = self.changed, self.latest
            new = {name: each for name, each in latest.items() if sent.get(name) != each}
            sent.update(new)
            yield new
            await asyncio.wait([changed, self.task], timeout=SIGN_OF_LIFE, return_when=asyncio.FIRST_COMPLETED)


class Feeds:
    """The feeds that some browser shows."""

    def __init__(self) -> None:
        self._feeds: dict[Hashable, Feed] = {}

    def __len__(self) -> int:
        return len(self._feeds)

    @contextlib.asynccontextmanager
    async def open(self, key: Hashable, look: Look) -> AsyncIterator[Feed]:
        """Join the feed of a page; it ends when the last browser leaves."""
        feed = self._feeds.get(key)
        if feed is None or feed.task.done():
            feed = self._feeds[key] = Feed(look)
        feed.browsers += 1
        try:
            yield feed
        finally:
            feed.browsers -= 1
            if not feed.browsers:
                feed.task.cancel()
                if self._feeds.get(key) is feed:
                    del self._feeds[key]
