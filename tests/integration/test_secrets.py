"""No password shows: in errors, in tracebacks with the locals of their frames, in logs, reprs and process titles."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from redis.sentinel import Sentinel

from dramatiq_sidekiq_flow import RedisHashMemory, SidekiqBroker, WorkflowMiddleware
from dramatiq_sidekiq_flow.embedded import EmbeddedServer

from ..acceptance.processes import workers
from ..running import eventually, working

SECRET = "hunter2-the-secret"

#: Nothing listens on port 1.
URLS = [
    f"redis://:{SECRET}@127.0.0.1:1/0",
    f"redis://user:{SECRET}@127.0.0.1:1/0",
    f"redis://127.0.0.1:1/0?password={SECRET}",
    f"rediss://:{SECRET}@127.0.0.1:1/0",
    f"unix://:{SECRET}@/nowhere/redis.sock",
    f"unix:///nowhere/redis.sock?password={SECRET}",
    f"redis://:{SECRET}@unknown.invalid:6379/0",
]


def with_locals(error: BaseException) -> str:
    """A traceback as Sentry and rich show it: with the locals of each frame but the tests'."""
    found = traceback.TracebackException.from_exception(error, capture_locals=True)
    text: list[str] = []
    while True:
        text.append(str(found))
        for frame in found.stack:
            if frame.filename != __file__:
                text.append(f"{frame.filename}:{frame.lineno} {frame.name} {frame.locals}")
        following = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
        if following is None:
            return "\n".join(text)
        found = following


def raised(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except Exception as e:
        return e
    raise AssertionError("nothing was raised")


def parts(broker: SidekiqBroker) -> str:
    memory = RedisHashMemory()
    workflows = WorkflowMiddleware(memory=memory)
    broker.add_middleware(workflows)
    return repr(
        [
            broker,
            broker.connection,
            broker.connection.url,
            broker.process.waiter,
            broker.process.heartbeat,
            workflows,
            memory,
        ]
    )


def sender(broker: SidekiqBroker) -> Any:
    @dramatiq.actor(queue_name="python", broker=broker)
    def step() -> None: ...

    return step


@pytest.mark.parametrize("url", URLS)
def test_a_server_that_is_not_there(url: str) -> None:
    broker = SidekiqBroker(url=url)
    assert SECRET not in parts(broker)
    step = sender(broker)
    assert SECRET not in with_locals(raised(step.send))
    assert SECRET not in with_locals(raised(lambda: broker.connection.call("PING")))


def test_clients_that_were_handed_in() -> None:
    sentinel: Any = Sentinel([("127.0.0.1", 1)], sentinel_kwargs={"password": SECRET}, password=SECRET)
    clients: list[Any] = [
        redis.Redis(port=1, password=SECRET),
        redis.Redis(port=1, username="user", password=SECRET),
        sentinel.master_for("the-primary"),
    ]
    for client in clients:
        broker = SidekiqBroker(client=client)
        assert SECRET not in parts(broker)
        error = raised(sender(broker).send)
        assert SECRET not in f"{error!r} {error}"
    assert broker.connection.url == "sentinel://the-primary/0"


@pytest.mark.parametrize(
    "url",
    [
        f"redis//:{SECRET}@host",
        f"http://:{SECRET}@host:6379",
        f"redis://:{SECRET}@host:port/0",
        f"redis://:{SECRET}@[::1",
        f"redis://:{SECRET}@host/0?socket_timeout=soon",
        f"embedded://:{SECRET}@host",
    ],
)
def test_urls_that_are_wrong(url: str) -> None:
    error = raised(lambda: SidekiqBroker(url=url))
    assert type(error).__name__ in ("ConfigurationError", "EmbeddedServerError")
    assert SECRET not in with_locals(error)
    assert SECRET not in repr(vars(error))


@pytest.fixture
def server_url(redis_url: str, client: redis.Redis) -> Iterator[str]:
    """Its user `worker` has another password than the URL."""
    client.acl_setuser("worker", enabled=True, passwords=["+another"], keys=["*"], commands=["+@all"])
    yield redis_url.replace("redis://", f"redis://worker:{SECRET}@")
    client.acl_deluser("worker")


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_wrong_password(server_url: str, protocol: int, caplog: pytest.LogCaptureFixture) -> None:
    broker = SidekiqBroker(url=server_url, protocol=protocol, poll_interval=50)
    error = raised(lambda: broker.connection.call("PING"))
    assert "WRONGPASS" in str(error) or "invalid username-password" in str(error)
    assert SECRET not in with_locals(error)
    assert SECRET not in with_locals(raised(sender(broker).send))
    with caplog.at_level(logging.DEBUG), working(broker):
        eventually(lambda: "Redis is unavailable" in caplog.text)
    assert SECRET not in caplog.text


def test_a_server_that_repeats_what_it_does_not_know() -> None:
    """Also a proxy may not know HELLO or AUTH: the error has their arguments."""
    with EmbeddedServer(rename_command=["HELLO", ""]) as server:
        url = server.url.replace("redis://", f"redis://worker:{SECRET}@")
        broker = SidekiqBroker(url=url, protocol=3)
        error = raised(lambda: broker.connection.call("PING"))
    assert "***" in str(error)
    assert SECRET not in with_locals(error)


def titles_of(pid: int) -> str:
    """The command lines of a process and of its children."""
    if not sys.platform.startswith("linux"):
        command = ["ps", "-ww", "-o", "args=", "--pid", str(pid), "--ppid", str(pid)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # A small Debian has no ps.
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert children
    return "\n".join(Path(f"/proc/{id}/cmdline").read_text().replace("\0", " ") for id in (pid, *children))


def test_a_process_and_its_log(server_url: str, tmp_path: Path) -> None:
    """The real command, from its start to its end."""
    log, record = tmp_path / "log", str(tmp_path / "ran")
    with workers(server_url, log, count=1, module="tests.acceptance.sick_app", RECORD=record) as at_work:
        eventually(lambda: "Redis is unavailable" in log.read_text("utf-8", "replace"))
        (process,) = at_work.running
        titles = titles_of(process.pid)
    assert "sick_app" in titles
    assert SECRET not in titles
    assert SECRET not in log.read_text("utf-8", "replace")
