"""The embedded server: it starts anywhere, and it ends with its owner, however that ends."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from dramatiq_sidekiq_flow.embedded import BINARY_VARIABLE, URL_VARIABLE, EmbeddedServer, find_binary, resolve_url
from dramatiq_sidekiq_flow.embedded import server as server_module
from dramatiq_sidekiq_flow.errors import EmbeddedServerError

from ..running import eventually

PYTHON = sys.executable


def alive(pid: int) -> bool:
    try:
        # A process that has ended and that nobody has asked for is no live one.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def answers(url: str) -> bool:
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory where servers of this test put theirs."""
    path = tmp_path / "tmp"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return path


@pytest.fixture
def owner(places: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Runs Python code in a process of its own, killed at the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def run(code: str) -> subprocess.Popen[str]:
        imports = "import os, sys, threading, time\nfrom dramatiq_sidekiq_flow.embedded import *\n"
        process = subprocess.Popen([PYTHON, "-c", imports + code], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def words(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def test_starts_and_stops(places: Path) -> None:
    server = EmbeddedServer()
    assert server.start() is server
    with redis.Redis.from_url(server.url) as client:
        assert client.info("server")["process_id"] == server.pid
        assert client.config_get("bind")["bind"] == "127.0.0.1"
        assert client.config_get("save")["save"] == ""
        assert client.config_get("appendonly")["appendonly"] == "no"
    pid = server.pid
    assert server.start().pid == pid
    server.stop()
    server.stop()
    assert not server.running
    assert not answers(server.url)
    assert not alive(pid)
    assert not list(places.iterdir())
    with pytest.raises(EmbeddedServerError, match="is not running"):
        _ = server.pid


def test_nothing_is_known_before_the_start() -> None:
    with pytest.raises(EmbeddedServerError, match="start"):
        _ = EmbeddedServer().url


def test_settings_reach_the_server() -> None:
    limit = "client-output-buffer-limit"
    with (
        EmbeddedServer(
            maxmemory="7mb",
            maxmemory_policy="allkeys-lru",
            lazyfree_lazy_expire=True,
            client_output_buffer_limit=("normal", 0, "1mb", 60),
        ) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        assert client.config_get("maxmemory")["maxmemory"] == str(7 << 20)
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "allkeys-lru"
        assert client.config_get("lazyfree-lazy-expire")["lazyfree-lazy-expire"] == "yes"
        assert f"normal 0 {1 << 20} 60" in client.config_get(limit)[limit]


@pytest.mark.parametrize("config", [{"port": 1}, {"bind": "0.0.0.0"}, {"requirepass": "x"}])
def test_what_the_server_sets_itself_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(EmbeddedServerError, match=next(iter(config))):
        EmbeddedServer(**config)


def test_a_setting_is_one_line() -> None:
    with pytest.raises(EmbeddedServerError, match="control character"):
        EmbeddedServer(maxmemory="1mb\nbind 0.0.0.0")
    with pytest.raises(EmbeddedServerError, match="control character"):
        EmbeddedServer(data_dir="a\nb")


def test_what_cannot_be_started_says_why(places: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedServerError, match="cannot be started"):
        EmbeddedServer(data_dir=tmp_path / "file").start()
    assert not list(places.iterdir())


def test_a_server_that_does_not_start_says_why(places: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="no-such-setting"):
        EmbeddedServer(no_such_setting=1).start()
    assert not list(places.iterdir())


def test_data_outlives_a_killed_server(tmp_path: Path) -> None:
    data = tmp_path / 'with "quotes" and blanks'
    server = EmbeddedServer(appendonly=True, appendfsync="always", data_dir=data)
    with server.start(), redis.Redis.from_url(server.url) as client:
        client.set("kept", "1")
        url = server.url
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: not server.running)
        server.start()
        assert server.url == url
        with redis.Redis.from_url(server.url) as again:
            assert again.get("kept") == b"1"
    assert data.is_dir()


def test_a_taken_port_is_left_to_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    # By a server that answers, and by a socket that never does.
    with EmbeddedServer() as other, socket.socket() as silent, socket.socket() as probe:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
        probe.close()
        ports = [other.port, silent.getsockname()[1], free]
        monkeypatch.setattr(server_module, "_ports", lambda first: iter(ports))
        with EmbeddedServer() as server:
            assert server.port == free
            assert server.pid != other.pid


def test_starts_many_at_once() -> None:
    code = (
        "from dramatiq_sidekiq_flow.embedded import *\nwith EmbeddedServer() as s: print(s.port, flush=True); input()"
    )
    many = [
        subprocess.Popen([PYTHON, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    ports = [process.stdout.readline() for process in many if process.stdout]
    for process in many:
        process.communicate("\n")
    assert len(set(ports)) == len(many)
    assert [process.returncode for process in many] == [0] * len(many)


def test_a_killed_owner_takes_the_server_along(owner: Callable[[str], subprocess.Popen[str]], places: Path) -> None:
    process = owner("s = EmbeddedServer().start(); print(s.pid, s.url, flush=True); time.sleep(600)")
    pid, url = words(process)
    assert answers(url)
    process.kill()
    eventually(lambda: not alive(int(pid)))
    eventually(lambda: not list(places.iterdir()))


def test_a_forked_child_does_not_keep_the_server(owner: Callable[[str], subprocess.Popen[str]]) -> None:
    process = owner("""
s = EmbeddedServer().start()
child = os.fork()
if child:
    print(s.pid, child, flush=True)
time.sleep(600)
""")
    pid, child = map(int, words(process))
    try:
        process.kill()
        eventually(lambda: not alive(pid))
        assert alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_does_not_stop_the_server() -> None:
    with EmbeddedServer() as server:
        child = multiprocessing.get_context("fork").Process(target=server.stop)
        child.start()
        child.join()
        assert child.exitcode == 0
        assert answers(server.url)


def test_the_server_outlives_the_thread_that_started_it(owner: Callable[[str], subprocess.Popen[str]]) -> None:
    process = owner("""
s = EmbeddedServer()
thread = threading.Thread(target=s.start)
thread.start()
thread.join()
time.sleep(0.3)  # what must not happen, happens now or never
print(s.running, flush=True)
time.sleep(600)
""")
    assert words(process) == ["True"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a child that its parent died")
def test_a_killed_supervisor_takes_the_server_along(owner: Callable[[str], subprocess.Popen[str]]) -> None:
    process = owner(
        "s = EmbeddedServer().start(); print(s.pid, s._running.supervisor.pid, flush=True); time.sleep(600)"
    )
    pid, supervisor = map(int, words(process))
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: not alive(pid))


# -- which server -------------------------------------------------------------


def test_a_named_server_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = tmp_path / "my-server"
    named.symlink_to(find_binary())
    monkeypatch.setenv(BINARY_VARIABLE, str(named))
    with EmbeddedServer() as server, redis.Redis.from_url(server.url) as client:
        assert client.info("server")["executable"] == str(named)
    monkeypatch.setenv(BINARY_VARIABLE, "no-such-server")
    with pytest.raises(EmbeddedServerError, match="no-such-server"):
        EmbeddedServer().start()


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_without_the_package_the_path_is_searched(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = find_binary()
    monkeypatch.delenv(BINARY_VARIABLE, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedServerError, match="redis-server on the PATH"):
        EmbeddedServer().start()
    (tmp_path / name).symlink_to(real)
    assert find_binary() == tmp_path / name


# -- embedded:// --------------------------------------------------------------


def test_other_urls_stay() -> None:
    assert resolve_url("redis://example/0") == "redis://example/0"


def test_a_given_url_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, "redis://given/3")
    assert resolve_url("embedded://") == "redis://given/3"
    with pytest.raises(EmbeddedServerError, match="with nothing after it"):
        resolve_url("embedded://host")


def test_the_first_use_starts_one_for_the_process_and_its_children(places: Path) -> None:
    code = f"""
import os, subprocess, sys
from dramatiq_sidekiq_flow.embedded import resolve_url
url = resolve_url("embedded://")
assert url == resolve_url("embedded://") == os.environ[{URL_VARIABLE!r}]
child = "from dramatiq_sidekiq_flow.embedded import resolve_url; print(resolve_url('embedded://'))"
assert subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout.strip() == url
print(url)
"""
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert "discarded" in done.stderr
    assert not answers(done.stdout.strip())
    assert not list(places.iterdir())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_process_is_told_what_to_run(method: str) -> None:
    with (
        multiprocessing.get_context(method).Pool(1) as pool,
        pytest.raises(EmbeddedServerError, match=r"python -m dramatiq_sidekiq_flow\.embedded -- dramatiq app"),
    ):
        pool.apply(resolve_url, ("embedded://",))


# -- the command --------------------------------------------------------------

COMMAND = [PYTHON, "-m", "dramatiq_sidekiq_flow.embedded"]


def test_a_command_finds_the_server_and_returns_its_code(places: Path) -> None:
    code = f"""
import os, redis, sys
assert os.environ["REDIS_URL"] == os.environ[{URL_VARIABLE!r}]
redis.Redis.from_url(os.environ["REDIS_URL"]).ping()
print(os.environ["REDIS_URL"])
sys.exit(7)
"""
    done = subprocess.run([*COMMAND, "--", PYTHON, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 7, done.stderr
    assert not answers(done.stdout.strip())
    assert not list(places.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["--"], 2),
        (["--port", "1"], 2),
        (["--help"], 0),
        (["--", "no-such-command"], 127),
        (["--", "sh", "-c", "kill -9 $$"], 128 + 9),
        (["sh", "-c", "exit 3"], 3),
    ],
)
def test_exit_codes(arguments: list[str], code: int) -> None:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


# os.write, since a handler that comes while print is printing may not print.
COUNTER = """
import os, signal, sys, time
def say(*words): os.write(1, (" ".join(words) + chr(10)).encode())
numbers = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}
# Waited for, not handled: a handler runs late where its signal comes just before a system call.
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
say("ready")
while (number := signal.sigwait(numbers)) != signal.SIGUSR1: say("got", signal.Signals(number).name)
sys.exit(5)
"""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_signals_are_forwarded(number: signal.Signals) -> None:
    process = subprocess.Popen([*COMMAND, "--", PYTHON, "-c", COUNTER], stdout=subprocess.PIPE, text=True)
    assert words(process) == ["ready"]
    process.send_signal(number)
    assert words(process) == ["got", number.name]
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (child,) = (c for c in children if "got" in Path(f"/proc/{c}/cmdline").read_text())
    os.kill(int(child), signal.SIGUSR1)
    ended: tuple[Any, Any] = process.communicate(timeout=30)
    assert ended == ("", None)
    assert process.returncode == 5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others are told apart by a guess")
def test_ctrl_c_comes_once_and_spares_the_server() -> None:
    terminal, other_end = pty.openpty()
    process = subprocess.Popen(
        [
            PYTHON,
            "-c",
            CONTROLLED,
            *COMMAND,
            "--",
            PYTHON,
            "-c",
            "import os; print(os.environ['REDIS_URL'], flush=True)" + COUNTER,
        ],
        stdin=other_end,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    os.close(other_end)
    try:
        (url,) = words(process)
        assert words(process) == ["ready"]
        with redis.Redis.from_url(url) as client:
            # In a session of its own, so that no key of the terminal reaches it.
            assert os.getsid(client.info("server")["process_id"]) != process.pid
        # Held for a moment: two at the same time would be seen as one.
        process.send_signal(signal.SIGSTOP)
        os.write(terminal, b"\x03")
        assert words(process) == ["got", "SIGINT"]
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        # One that was forwarded would come before this.
        assert words(process) == ["got", "SIGTERM"]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        os.close(terminal)


# Makes its standard input the terminal that Ctrl-C comes from, then becomes the command.
CONTROLLED = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
