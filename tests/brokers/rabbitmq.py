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
def rabbitmq(base: Path) -> Iterator[str]:
    """The URL of a server that keeps all it has under ``base``."""
    binary, epmd = _binary(), shutil.which("epmd")
    if epmd is None:
        raise FileNotFoundError("There is no epmd, which comes with Erlang: apt-get install erlang-base")
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
    processes: list[subprocess.Popen[bytes]] = []
    with log_path.open("wb") as log:
        try:
            # Its own, in the foreground: the node would leave one behind.
            for command in ([epmd, "-port", str(epmd_port), "-address", "127.0.0.1"], [binary]):
                processes.append(
                    subprocess.Popen(
                        command, env=environment, cwd=base, stdout=log, stderr=log, start_new_session=True
                    )
                )
            url = f"amqp://guest:guest@127.0.0.1:{port}/"

            def answers() -> bool:
                if processes[1].poll() is not None:
                    raise AssertionError(f"RabbitMQ did not start:\n{log_path.read_text('utf-8', 'replace')[-3000:]}")
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    pika.BlockingConnection(pika.URLParameters(url)).close()
                except (pika.exceptions.AMQPError, OSError):
                    return False
                return True

            eventually(answers, seconds=90, what="RabbitMQ's answer")
            yield url
        finally:
            for process in reversed(processes):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
