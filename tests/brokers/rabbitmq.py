"""A RabbitMQ node of its own, with an epmd of its own, thrown away afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pika
import pika.exceptions

from ..running import eventually

#: Debian's `rabbitmq-server` on the PATH changes the user; this one does not.
_PLACES = ("/usr/lib/rabbitmq/bin/rabbitmq-server", shutil.which("rabbitmq-server") or "")


def _binary() -> str:
    for place in _PLACES:
        if place and os.access(place, os.X_OK):
            return place
    raise FileNotFoundError(
        "There is no RabbitMQ server for these tests. Install it, on Debian and Ubuntu: "
        "apt-get install --no-install-recommends rabbitmq-server"
    )


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as open_sockets:
        found = []
        for _ in range(count):
            s = open_sockets.enter_context(socket.socket())
            s.bind(("127.0.0.1", 0))
            found.append(s.getsockname()[1])
        return found


@contextlib.contextmanager
def rabbitmq(base: Path, tries: int = 3) -> Iterator[str]:
    """The URL of a server that keeps all it has under ``base``."""
    binary, epmd = _binary(), shutil.which("epmd")
    if epmd is None:
        raise FileNotFoundError("There is no epmd, which comes with Erlang: apt-get install erlang-base")
    with contextlib.ExitStack() as running:
        for attempt in range(tries):
            here = base / str(attempt)
            here.mkdir()
            with contextlib.ExitStack() as started:
                try:
                    url = _start(binary, epmd, here, started)
                except _Ended:
                    # A port that was free a moment ago was taken.
                    if attempt == tries - 1:
                        raise
                    continue
                running.push(started.pop_all())
                break
        yield url


class _Ended(AssertionError):
    """The node ended while it started; the text says what it said."""


def _start(binary: str, epmd: str, base: Path, started: contextlib.ExitStack) -> str:
    port, dist, epmd_port = _free_ports(3)
    plugins = base / "enabled_plugins"
    plugins.write_text("[].\n")
    config = base / "rabbitmq.conf"
    config.write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\ndisk_free_limit.absolute = 1MB\n")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))},
        "HOME": str(base),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"dsf-{os.getpid()}-{port}@localhost",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(dist),
        "RABBITMQ_CONFIG_FILE": str(config),
        "RABBITMQ_CONF_ENV_FILE": str(base / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        "RABBITMQ_MNESIA_BASE": str(base / "mnesia"),
        "RABBITMQ_LOG_BASE": str(base / "log"),
        "RABBITMQ_PID_FILE": str(base / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
    }
    log_path = base / "output"
    log = started.enter_context(log_path.open("wb"))

    def run(*command: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, env=environment, cwd=base, stdout=log, stderr=log, start_new_session=True)
        started.callback(_end, process)
        return process

    def answers(process: subprocess.Popen[bytes], port: int) -> bool:
        if process.poll() is not None:
            raise _Ended(f"RabbitMQ did not start:\n{log_path.read_text('utf-8', 'replace')[-3000:]}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    # Its own, in the foreground, and before the node: which would leave one behind.
    names = run(epmd, "-port", str(epmd_port), "-address", "127.0.0.1")
    eventually(lambda: answers(names, epmd_port), what="epmd's answer")
    node = run(binary)
    url = f"amqp://guest:guest@127.0.0.1:{port}/"

    def speaks() -> bool:
        if not answers(node, port):
            return False
        try:
            pika.BlockingConnection(pika.URLParameters(url)).close()
        except (pika.exceptions.AMQPError, OSError):
            return False
        return True

    eventually(speaks, seconds=100, what="RabbitMQ's answer")
    return url


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
