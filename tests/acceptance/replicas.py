"""A primary and a replica of a test's own, and the line between them, which may be slow or cut."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ..running import eventually
from .servers import Server

#: A replica is in step again soon after it comes.
OPTIONS = ("--save", "", "--repl-diskless-sync-delay", "0", "--hz", "100", "--repl-timeout", "60")


class Line:
    """Where the replica finds its primary: what the primary says comes late, or never.

    Parameters:
      delay: Seconds.
    """

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.target = 0
        self.is_cut = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Lose what is on its way, and let nothing through until :meth:`mend`."""
        self.is_cut = True
        self._drop()

    def mend(self) -> None:
        self.is_cut = False

    def close(self) -> None:
        self._listener.close()
        self._drop()

    def _drop(self) -> None:
        while self._open:
            with contextlib.suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                replica, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self.is_cut:
                    raise ConnectionRefusedError
                primary = socket.create_connection(("127.0.0.1", self.target), 5)
            except OSError:
                replica.close()
                continue
            primary.settimeout(None)
            self._open += [replica, primary]
            late: queue.Queue[tuple[float, bytes]] = queue.Queue()
            for target, arguments in (
                (self._read, (primary, late)),
                (self._deliver, (late, replica, primary)),
                (self._answer, (replica, primary)),
            ):
                threading.Thread(target=target, args=arguments, daemon=True).start()

    def _read(self, primary: socket.socket, late: queue.Queue[tuple[float, bytes]]) -> None:
        data = b"..."
        while data:
            try:
                data = primary.recv(1 << 16)
            except OSError:
                data = b""
            late.put((time.monotonic() + self.delay, data))

    def _deliver(self, late: queue.Queue[tuple[float, bytes]], replica: socket.socket, primary: socket.socket) -> None:
        while True:
            at, data = late.get()
            time.sleep(max(0.0, at - time.monotonic()))
            try:
                if not data or self.is_cut:
                    raise ConnectionResetError
                replica.sendall(data)
            except OSError:
                replica.close()
                primary.close()
                return

    @staticmethod
    def _answer(replica: socket.socket, primary: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := replica.recv(1 << 16):
                primary.sendall(data)
        with contextlib.suppress(OSError):
            primary.shutdown(socket.SHUT_RDWR)


class Pair:
    """A primary, and a replica that follows it over a :class:`Line`."""

    def __init__(self, folder: Path, delay: float = 0.0) -> None:
        self.primary = Server(folder / "one", *OPTIONS)
        self.replica = Server(folder / "two", *OPTIONS)
        self.line = Line(delay)

    def start(self) -> None:
        self.primary.start()
        self.replica.start()
        self.follow()

    def follow(self) -> None:
        """Let the replica follow the primary, and wait until it is in step."""
        self.line.target = self.primary.port
        self.line.mend()
        self.replica.client.replicaof("127.0.0.1", str(self.line.port))
        self.in_step()

    def in_step(self) -> None:
        """Wait until the replica has all that the primary has."""
        client = self.primary.client

        def has_all() -> bool:
            client.set("padding", "1", ex=60)
            return bool(client.wait(1, 1_000))

        eventually(has_all, what="a replica in step")

    def fail_over(self) -> None:
        """The primary is killed, what it has said and the replica not heard is lost, the replica takes its place."""
        self.primary.kill()
        self.line.cut()
        self.replica.client.replicaof("NO", "ONE")
        self.primary, self.replica = self.replica, self.primary

    def mend(self) -> None:
        """After a failover: the old primary comes back, empty, as a replica."""
        self.replica.start()
        self.follow()

    def stop(self) -> None:
        self.line.close()
        self.primary.kill()
        self.replica.kill()


@contextlib.contextmanager
def pair(folder: Path, delay: float = 0.0) -> Iterator[Pair]:
    """A primary and a replica for as long as the block."""
    both = Pair(folder, delay)
    try:
        both.start()
        yield both
    finally:
        both.stop()
