"""Server-sent events of a feed, until the browser goes away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Hashable

from starlette.types import Receive, Scope, Send

from .feeds import Feeds, Fragments, Look

_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    # nginx does not hold back what it has of such an answer.
    (b"x-accel-buffering", b"no"),
)

#: Milliseconds after which the browser comes again when a stream has ended.
_AGAIN = b"retry: 1000\n\n"


class EventStream:
    """Answer that sends the fragments of a page when they change."""

    def __init__(self, feeds: Feeds, key: Hashable, look: Look) -> None:
        self.feeds = feeds
        self.key = key
        self.look = look

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait([sending, leaving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sending.cancel()
            sent, _ = await asyncio.gather(sending, leaving, return_exceptions=True)
        # An OSError is a server's way to say that the browser is gone.
        if isinstance(sent, Exception) and not isinstance(sent, OSError):
            raise sent

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        await send({"type": "http.response.body", "body": _AGAIN, "more_body": True})
        async with self.feeds.open(self.key, self.look) as feed:
            async for fragments in feed.changes():
                await send({"type": "http.response.body", "body": event(fragments), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event(fragments: Fragments) -> bytes:
    """Write an event; without fragments, a comment."""
    if not fragments:
        return b": waiting\n\n"
    data = [{"id": name, "html": each.html, "digest": each.digest} for name, each in fragments.items()]
    # ASCII: no line break of any kind is inside.
    return f"event: fragments\ndata: {json.dumps(data)}\n\n".encode()
