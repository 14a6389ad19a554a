"""Pages that stay up to date: server-sent events, and one read for all browsers."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import redis

from dramatiq_sidekiq_flow.web import RunsApp, event_stream
from dramatiq_sidekiq_flow.web.rendering import Fragment
from dramatiq_sidekiq_flow.web.shared_reads import THREADS, SharedReads

from ..recorded_runs import RecordedRun, chain, job
from .site import broker_of, small_run

SECONDS = 20.0


class Stream:
    """A browser that reads events."""

    def __init__(self, app: RunsApp, address: str) -> None:
        path, _, query = address.partition("?")
        self.scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 5000),
            "server": ("127.0.0.1", 80),
        }
        self.headers: dict[bytes, bytes] = {}
        self.parts: dict[str, str] = {}
        self.events = 0
        self.lines: list[str] = []
        self.left = asyncio.Event()
        self.task = asyncio.ensure_future(app(self.scope, self.receive, self.send))

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200
            self.headers = dict(message["headers"])
            return
        for line in message["body"].decode("ascii").split("\n"):
            self.lines.append(line)
            if line.startswith("data: "):
                self.events += 1
                self.parts |= {each["id"]: each["html"] for each in json.loads(line[6:])}

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert not self.task.done(), self.task.result()
            assert time.monotonic() < deadline, self.parts
            await asyncio.sleep(0.01)

    async def leave(self) -> None:
        self.left.set()
        await asyncio.wait_for(self.task, SECONDS)


def run_all(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 100))


def test_browsers_of_a_page_share_what_is_read(client: redis.Redis, redis_url: str) -> None:
    # Not at rest: it is looked at each second.
    run = RecordedRun(client, "small", chain(*(job("step") for _ in range(4))))
    run.done(1)
    run.queued(2)
    app = RunsApp(broker_of(redis_url))
    calls = 0
    look = app._pages.runs.get

    def counted(run_id: str) -> Any:
        nonlocal calls
        calls += 1
        return look(run_id)

    app._pages.run.runs.get = counted  # type: ignore[method-assign]

    async def test() -> None:
        began = time.monotonic()
        streams = [Stream(app, f"/events/runs/small?page={number % 2 + 1}") for number in range(8)]
        for stream in streams:
            await stream.until(lambda stream=stream: "steps" in stream.parts)  # type: ignore[misc]
            assert stream.headers[b"content-type"].startswith(b"text/event-stream")
            assert stream.headers[b"cache-control"] == b"no-store"
        # Page 2 does not exist, and is page 1: two addresses, one read.
        assert len(app._pages.feeds) == 2
        run.done(2)
        for stream in streams:
            await stream.until(lambda stream=stream: "2 of 4" in stream.parts["head"])  # type: ignore[misc]
            # What did not change was not sent again.
            assert stream.events < 4
        assert calls <= time.monotonic() - began + 2
        for stream in streams[1:]:
            await stream.leave()
        (feed,) = app._pages.feeds._feeds.values()
        assert not feed.task.done()
        await streams[0].leave()
        # Nothing is read any more.
        await asyncio.wait_for(asyncio.wait([feed.task]), 5)
        assert len(app._pages.feeds) == 0

    run_all(test)


def test_a_problem_is_shown_and_goes_away(client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dramatiq_sidekiq_flow.web.feeds.PAUSE_AT_REST", 0.1)
    app = RunsApp(broker_of(redis_url))

    async def test() -> None:
        stream = Stream(app, "/events/runs/small")
        await stream.until(lambda: "no record" in stream.parts.get("problem", ""))
        small_run(client)
        await stream.until(lambda: "fetch" in stream.parts.get("steps", ""))
        assert stream.parts["problem"] == ""
        client.rename("swf:flow:small", "other")
        client.set("swf:flow:small", "not a hash")
        await stream.until(lambda: "holds another type" in stream.parts["problem"])
        await stream.leave()

    run_all(test)


def test_the_list_is_live_and_a_stream_ends(
    client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = RunsApp(broker_of(redis_url))

    async def test() -> None:
        stream = Stream(app, "/events/list?state=running")
        await stream.until(lambda: "No run is like this" in stream.parts.get("runs", ""))
        small_run(client, "new")
        await stream.until(lambda: 'href="/runs/new"' in stream.parts["runs"])
        # The browser comes again after that, and is authorized again.
        monkeypatch.setattr("dramatiq_sidekiq_flow.web.feeds.LONGEST", 0.0)
        monkeypatch.setattr("dramatiq_sidekiq_flow.web.feeds.SIGN_OF_LIFE", 0.1)
        last = Stream(app, "/events/list?state=running")
        await asyncio.wait_for(last.task, SECONDS)
        assert last.lines[0] == "retry: 1000"
        await stream.leave()

    run_all(test)


def test_an_event_is_one_line_whatever_is_in_it() -> None:
    text = "a\nb\r\nc\u2028d\udc80</script>\n\ndata: x"
    written = event_stream.event({"steps": Fragment(text, "1")})
    assert written.count(b"\n") == 3
    (found,) = json.loads(written.decode("ascii").split("\n")[1].removeprefix("data: "))
    assert found == {"id": "steps", "html": text, "digest": "1"}


def test_reads_are_shared_and_so_are_errors() -> None:
    calls: list[str] = []
    gate = threading.Event()

    def read() -> str:
        calls.append("read")
        assert gate.wait(SECONDS)
        return "value"

    def fail() -> str:
        calls.append("fail")
        raise OSError("no disk")

    async def together(*reads: Awaitable[str]) -> list[str | BaseException]:
        return await asyncio.gather(*reads, return_exceptions=True)

    async def test() -> None:
        reads = SharedReads()
        # The read that is shared has to wait for these.
        busy = [asyncio.ensure_future(reads.get(number, lambda: gate.wait(SECONDS))) for number in range(THREADS)]
        waiting = [asyncio.ensure_future(reads.get("a", read)) for _ in range(10)]
        await asyncio.sleep(0)
        # One that goes away does not take the others with it.
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        await asyncio.sleep(0)
        gate.set()
        assert (await together(*waiting))[1:] == ["value"] * 9
        assert all(await asyncio.gather(*busy))
        errors = await together(*(reads.get("b", fail) for _ in range(5)))
        assert [str(each) for each in errors] == ["no disk"] * 5
        assert calls == ["read", "fail"]
        reads.forget("a")
        assert await reads.get("a", read) == "value"
        assert calls == ["read", "fail", "read"]

    run_all(test)
