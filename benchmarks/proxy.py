"""A TCP proxy that adds latency: ``python -m benchmarks.proxy HOST:PORT --ms 0.5``.

Data is held for a time in each direction and then passed on, in order.  What
arrives meanwhile is held for its own time only, so a pipeline is delayed once.
It prints its port, and ends at the end of its standard input.
"""

from __future__ import annotations

import argparse
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import attrs

from .pipes import Child, Command

#: Bytes that are read at once.
CHUNK = 1 << 18

#: Milliseconds that are added in each direction, and the part of them that the proxy
#: needs to wake up and to read and write.
DELAY = 0.5
OWN = 0.15


@attrs.define(eq=False)
class Way:
    """One direction of a connection."""

    source: socket.socket
    target: socket.socket
    #: What is held: when it is due, and the data; no data is the end of the stream.
    held: deque[tuple[float, bytes]] = attrs.field(factory=deque)
    open: bool = True
    #: Whether the target takes nothing at the moment.
    blocked: bool = False

    def take(self, due: float) -> None:
        """Read what has arrived, and hold it."""
        try:
            data = self.source.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.open = bool(data)
        self.held.append((due, data))

    def give(self, now: float) -> bool:
        """Pass on what is due; returns False at the end of the stream."""
        self.blocked = False
        while self.held and self.held[0][0] <= now:
            due, data = self.held.popleft()
            if not data:
                return False
            try:
                sent = self.target.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return False
            if sent < len(data):
                self.held.appendleft((due, data[sent:]))
                self.blocked = True
                return True
        return True


class Relay:
    """All connections of a proxy, in one thread: the timer of select() is exact to 0.1 ms."""

    def __init__(self, address: tuple[str, int], delay: float) -> None:
        self._address, self._delay = address, delay
        self._ways: list[Way] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def run(self, ends: socket.socket | int) -> None:
        """Serve until ``ends`` is readable."""
        while True:
            sources = [way.source for way in self._ways if way.open]
            blocked = [way.target for way in self._ways if way.blocked]
            readable, _, _ = select.select([ends, self._listener, *sources], blocked, [], self._patience())
            if ends in readable:
                return
            if self._listener in readable:
                self._connect()
            self._pass_on(set(readable))

    def _patience(self) -> float | None:
        """Seconds until something is due."""
        dues = [way.held[0][0] for way in self._ways if way.held and not way.blocked]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _connect(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._address)
        for side in (client, server):
            side.setblocking(False)
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ways += [Way(client, server), Way(server, client)]

    def _pass_on(self, readable: set[object]) -> None:
        now = time.monotonic()
        for way in list(self._ways):
            if way.source in readable:
                way.take(now + self._delay)
            if not way.give(now):
                self._drop(way)

    def _drop(self, ended: Way) -> None:
        sides = {ended.source, ended.target}
        self._ways = [way for way in self._ways if way.source not in sides]
        for side in sides:
            side.close()


@contextmanager
def delayed(url: str) -> Iterator[str]:
    """The URL of a server with more latency, while a proxy process runs."""
    parts = urlsplit(url)
    line = (sys.executable, "-m", "benchmarks.proxy", f"{parts.hostname}:{parts.port}", "--ms", str(DELAY))
    with Child(Command(line)) as child:
        port = child.answer()["port"]
        yield parts._replace(netloc=f"127.0.0.1:{port}").geturl()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proxy")
    parser.add_argument("to", metavar="HOST:PORT")
    parser.add_argument("--ms", type=float, default=DELAY, help="in each direction; 0.5 by default")
    options = parser.parse_args()
    host, _, port = options.to.rpartition(":")
    relay = Relay((host, int(port)), max(0.0, options.ms - OWN) / 1000)
    print(f'{{"port": {relay.port}}}', flush=True)
    relay.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
