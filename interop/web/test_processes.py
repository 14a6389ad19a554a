"""Python's worker processes, as a person sees and stops them in the browser."""

from __future__ import annotations

import os
import signal

from browser import Browser
from scene import Scene
from selenium.webdriver.remote.webelement import WebElement


def row_of(browser: Browser, identity: str) -> WebElement:
    """The row of a process; its forms know it by its identity."""
    (row,) = [
        row
        for row in browser.all(".processes tr")
        if any(
            field.get_attribute("value") == identity for field in row.find_elements("css selector", "[name=identity]")
        )
    ]
    return row


def holder(scene: Scene, jid: str) -> str:
    """The identity of the process that works on a job, once its record says so."""

    def find() -> str | None:
        return next((i for i in scene.processes() if any(jid in w for w in scene.client.hvals(f"{i}:work"))), None)

    return scene.eventually(find, "a process at work on the job")


def test_quiet(empty: Scene, browser: Browser) -> None:
    """A quiet process ends its jobs, and begins no other."""
    processes = dict(reversed(empty.start()) for _ in range(2))
    held = empty.hold("to be quiet")
    quiet = holder(empty, held)
    (other,) = set(processes) - {quiet}
    browser.open("busy")
    assert len(browser.table(".processes")) == 2
    browser.press(browser.button("quiet", row_of(browser, quiet)))
    empty.eventually(lambda: empty.processes()[quiet]["quiet"] == "true", "a quiet process")
    browser.open("busy")
    browser.shot("busy-quiet")
    assert row_of(browser, quiet).find_elements("css selector", ".label-danger")[0].text == "quiet"
    assert not row_of(browser, other).find_elements("css selector", ".label-danger")
    assert not row_of(browser, quiet).find_elements("css selector", "[name=quiet]")

    jobs = [empty.send("Docs::Extract", number) for number in range(20)]
    empty.eventually(lambda: all(empty.executed(jid) == [False] for jid in jobs), "twenty jobs")
    pids = {event["pid"] for event in empty.executions()}
    assert pids == {empty.processes()[other]["info"]["pid"]}
    assert empty.executed(held) == []
    empty.release()
    empty.eventually(lambda: empty.executed(held) == [False], "the job that the quiet process had begun")
    processes[quiet].check()
    processes[other].check()


def test_stop(empty: Scene, browser: Browser) -> None:
    """A process that is stopped ends its jobs first, and its `dramatiq` command with it; no other process notices."""
    processes = dict(reversed(empty.start()) for _ in range(2))
    held = empty.hold("to the end")
    stopped = holder(empty, held)
    (other,) = set(processes) - {stopped}
    browser.open("busy")
    browser.press(browser.button("stop", row_of(browser, stopped)))
    log = processes[stopped].log
    empty.eventually(lambda: "sent through Redis" in log.read_text(errors="replace"), "the signal in the log")
    assert processes[stopped].process.poll() is None, "it waits for its job"
    jobs = [empty.send("Docs::Extract", number) for number in range(20)]
    empty.release()
    processes[stopped].wait()
    assert processes[stopped].process.returncode == 0
    assert empty.executed(held) == [False]
    browser.open("busy")
    (row,) = browser.table(".processes")
    assert row[0].startswith(":".join(other.split(":")[:2]) + " ")
    assert browser.table(".workers") == []
    empty.eventually(lambda: all(empty.executed(jid) == [False] for jid in jobs), "jobs for who is left")
    processes[other].check()


def test_quiet_all_and_stop_all(empty: Scene, browser: Browser) -> None:
    workers = [empty.start()[0] for _ in range(2)]
    browser.open("busy")
    browser.press(browser.one(".warning-messages [name=quiet]"))
    empty.eventually(lambda: [p["quiet"] for p in empty.processes().values()] == ["true", "true"], "two quiet ones")
    jobs = [empty.send("Docs::Extract", number) for number in range(50)]
    browser.open("busy")
    assert [label.text for label in browser.all(".processes .label-danger")] == ["quiet", "quiet"]
    browser.press(browser.one(".warning-messages [name=stop]"))
    for worker in workers:
        worker.wait()
        assert worker.process.returncode == 0
    browser.open("busy")
    browser.shot("busy-nobody")
    assert browser.table(".processes") == []
    # Nobody has touched what came after the one button, nor lost it after the other.
    assert [job["jid"] for job in empty.queued("python")] == jobs
    assert empty.executions() == []
    assert not empty.client.keys("swf:inflight:*")


def test_killed(empty: Scene, browser: Browser) -> None:
    """A process killed with -9 leaves the page within a minute, and its job is at work elsewhere."""
    processes = dict(reversed(empty.start()) for _ in range(2))
    held = empty.hold("through a death")
    victim = holder(empty, held)
    (other,) = set(processes) - {victim}
    os.killpg(processes[victim].process.pid, signal.SIGKILL)
    browser.until(
        lambda: (
            [row[0] for row in browser.table(".workers") if row[2] == held] == [other]
            and len(browser.table(".processes")) == 1
        ),
        "the job at work in the other process, alone",
        "busy",
    )
    browser.shot("busy-after-a-kill")
    empty.release()
    empty.eventually(lambda: empty.executed(held) == [False], "the end of the job")
