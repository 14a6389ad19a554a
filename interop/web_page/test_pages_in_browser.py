"""The pages of runs in Chromium: live, without JavaScript, light and dark, wide and narrow."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
import redis
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from dramatiq_sidekiq_flow import Chain, Group, RedisHashMemory, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop.web_page.run_pages import RunPages
from tests.recorded_runs import RecordedRun, chain, delayed, group, job
from tests.running import working

RUN = "5f0d8c1e-8e0c-4a3f-9d1c-0a8f6f0f8f11"


@pytest.fixture(autouse=True)
def _plain(pages: RunPages) -> Iterator[None]:
    """A window as people have it, and no error in its console."""
    pages.look("light", 1280)
    yield
    assert pages.complaints() == []


def fill(client: redis.Redis) -> None:
    """Write runs in each state, and a large one."""
    now = time.time()
    several = group(
        job("Docs::Thumb", 200, queue="ruby"),
        job("extract", "42"),
        chain(job("recognize", 1), job("spell", 2)),
        delayed(60_000, job("tell")),
    )
    tree = chain(job("fetch", 42, "https://example.org/a"), several, job("store"), job("Mail", queue="ruby"))
    run = RecordedRun(client, RUN, tree, started=now - 65, template="nightly", tags=["customer-7", "eu"])
    run.done(1, seconds=12.4)
    run.done(3, seconds=3)
    run.in_flight(4)
    run.in_retry(2, now + 4000)
    run.scheduled(6, now + 3000)
    client.hset(f"swf:mem:{RUN}", mapping={"text": '"<b>four words of text</b>"', "words": "[1, 2, 3]"})
    members = group(*(job("part", number) for number in range(10_000)))
    pairs = group(*(chain(job("a", number), job("B", queue="ruby")) for number in range(30)))
    tree = chain(job("split"), members, pairs, job("join"))
    large = RecordedRun(client, "large", tree, state="failed", started=now - 3600, template="fan-out")
    for number in range(1, 60):
        large.done(number, seconds=number / 10, failed=number % 2)
    pipeline = client.pipeline()
    for number in range(1000, 8000):
        pipeline.setbit("swf:flow:large:done", number, 1)
    pipeline.execute()
    for number in (8001, 8002, 8003):
        large.failed(number, "ValueError", "bad <script>alert(1)</script>\nTraceback (most recent call last): ...")
    states = ("done", "cancelled", "failed", "done", "running", "paused")
    for number, state in enumerate(states):
        ended: dict[str, Any] = {"finished": now - 100 * number - 150} if state in ("done", "cancelled") else {}
        other = f"{number}c9e6679-7425-40de-944b-e07fc1f90ae7"
        steps = chain(job("one"), job("two"), job("three"))
        short = RecordedRun(
            client, other, steps, state=state, started=now - 100 * number - 200, template="import", **ended
        )
        for step in range(1, 4 if state == "done" else 2):
            short.done(step)
        if state == "failed":
            short.failed(2)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)])
def test_the_pages_are_readable(client: redis.Redis, pages: RunPages, scheme: str, width: int) -> None:
    fill(client)
    for name, path, shown in (
        ("list", "/", "nightly"),
        ("run", f"/runs/{RUN}", "extract"),
        ("large", "/runs/large", "join"),
    ):
        pages.look(scheme, width)
        pages.open(path)
        pages.sees("#live-text", "Live")
        # At once, or with the next read: what others have read a moment ago is shown first.
        pages.sees("main", shown)
        assert pages.overflow() <= 0
        assert pages.faint() == []
        pages.shot(f"{name}-{scheme}-{width}")


def test_a_run_is_shown_live_and_what_a_person_does_stays(
    client: redis.Redis, server: EmbeddedServer, pages: RunPages
) -> None:
    broker = SidekiqBroker(server.url)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
    gates = {name: threading.Event() for name in ("first", "second", "last")}

    @dramatiq.actor(broker=broker, queue_name="python")
    def step(name: str) -> dict[str, Any]:
        assert gates[name].wait(60)
        return {name: "<i>value</i>"}

    try:
        with working(broker):
            run_id = Workflow(
                Chain(step.message("first"), Group(step.message("second"), step.message("last"))), broker=broker
            ).run()
            pages.open(f"/runs/{run_id}")
            pages.script("window.before = true")
            pages.sees("#head", "0 of 3")
            pages.press("#action-cancel summary")
            pages.write("#cancel-reason", "not any ")
            gates["first"].set()
            pages.sees("#head", "1 of 3")
            pages.sees("#memory", "<i>value</i>")
            pages.sees("#step-1", "done")
            pages.write("#cancel-reason", "more")
            gates["second"].set()
            pages.sees("#head", "2 of 3")
            assert pages.script("return document.activeElement.id + ':' + document.activeElement.value") == (
                "cancel-reason:not any more"
            )
            gates["last"].set()
            pages.sees("#state", "done")
            pages.sees("#live-text", "Live")
            assert pages.script("return window.before")
            assert pages.script("return document.querySelector('#action-cancel')") is None
    finally:
        for gate in gates.values():
            gate.set()
        broker.close()


@pytest.mark.parametrize("scripts", [True, False])
def test_a_run_is_cancelled_with_and_without_javascript(client: redis.Redis, pages: RunPages, scripts: bool) -> None:
    run = RecordedRun(client, f"to-cancel-{scripts}", chain(job("one"), job("two")))
    run.queued(1)
    pages.command("Emulation.setScriptExecutionDisabled", value=not scripts)
    try:
        pages.driver.get(f"{pages.root}/runs/{run.id}")
        pages.press("#action-cancel summary")
        pages.write("#cancel-reason", "<b>wrong data</b>")
        pages.press("#action-cancel button")
        pages.sees("#state", "cancelled")
        assert "<b>wrong data</b>" in pages.text("#head")
    finally:
        pages.command("Emulation.setScriptExecutionDisabled", value=False)
    assert client.hget(f"swf:flow:{run.id}", "state") == b"cancelled"
    assert client.llen("queue:python") == 0


def test_the_keyboard_reaches_everything(client: redis.Redis, pages: RunPages) -> None:
    fill(client)
    pages.open(f"/runs/{RUN}")
    keys = ActionChains(pages.driver)
    keys.send_keys(Keys.TAB).perform()
    assert pages.script("return document.activeElement.className") == "skip"
    keys.send_keys(Keys.ENTER).send_keys(Keys.TAB).send_keys(Keys.TAB).send_keys(Keys.TAB).send_keys(Keys.TAB).perform()
    assert pages.script("return document.activeElement.tagName") == "SUMMARY"
    outline = "const style = getComputedStyle(document.activeElement); return style.outlineStyle + style.outlineWidth"
    assert pages.script(outline) == "solid3px"
    keys.send_keys(Keys.ENTER).send_keys(Keys.TAB).send_keys("no").send_keys(Keys.TAB).perform()
    assert pages.script("return document.activeElement.innerText") == "Pause this run"
    # The boxes of the graph, and what they lead to.
    pages.script("document.querySelector('.box').focus()")
    keys.send_keys(Keys.ENTER).perform()
    pages.sees("tr:target", "fetch")
