"""Python's worker processes, as a person sees and stops them in the browser."""

from __future__ import annotations

import os
import signal

from interop.web.pages import Pages
from interop.web.scene import Scene


def holder(scene: Scene, jid: str) -> str:
    """The identity of the process that works on a job, once its record says so."""

    def find() -> str | None:
        return next((i for i in scene.processes() if any(jid in w for w in scene.client.hvals(f"{i}:work"))), None)

    found: str = scene.eventually(find, "a process at work on the job")
    return found


def test_quiet(empty: Scene, page: Pages) -> None:
    """A quiet process ends its jobs, and begins no other."""
    processes = {identity: worker for worker, identity in (empty.start() for _ in range(2))}
    held = empty.hold("to be quiet")
    quiet = holder(empty, held)
    (other,) = set(processes) - {quiet}
    page.busy.open()
    assert len(page.busy.processes()) == 2
    page.busy.press("quiet", page.busy.process(quiet))
    empty.eventually(lambda: empty.processes()[quiet]["quiet"] == "true", "a quiet process")
    page.busy.open()
    page.shot("busy-quiet")
    assert page.busy.is_quiet(page.busy.process(quiet))
    assert not page.busy.is_quiet(page.busy.process(other))

    jobs = [empty.send("Docs::Extract", number) for number in range(20)]
    empty.eventually(lambda: all(empty.executed(jid) == [False] for jid in jobs), "twenty jobs")
    pids = {event["pid"] for event in empty.executions()}
    assert pids == {empty.processes()[other]["info"]["pid"]}
    assert empty.executed(held) == []
    empty.release()
    empty.eventually(lambda: empty.executed(held) == [False], "the job that the quiet process had begun")
    processes[quiet].check()
    processes[other].check()


def test_stop(empty: Scene, page: Pages) -> None:
    """A process that is stopped ends its jobs first, and its `dramatiq` command with it; no other process notices."""
    processes = {identity: worker for worker, identity in (empty.start() for _ in range(2))}
    held = empty.hold("to the end")
    stopped = holder(empty, held)
    (other,) = set(processes) - {stopped}
    page.busy.open()
    page.busy.press("stop", page.busy.process(stopped))
    log = processes[stopped].log
    empty.eventually(lambda: "sent through Redis" in log.read_text(errors="replace"), "the signal in the log")
    assert processes[stopped].process.poll() is None, "it waits for its job"
    jobs = [empty.send("Docs::Extract", number) for number in range(20)]
    empty.release()
    processes[stopped].wait()
    assert processes[stopped].process.returncode == 0
    assert empty.executed(held) == [False]
    page.busy.open()
    (row,) = page.busy.processes()
    assert row["Name"].startswith(":".join(other.split(":")[:2]) + " ")
    assert page.busy.jobs() == []
    empty.eventually(lambda: all(empty.executed(jid) == [False] for jid in jobs), "jobs for who is left")
    processes[other].check()


def test_quiet_all_and_stop_all(empty: Scene, page: Pages) -> None:
    workers = [empty.start()[0] for _ in range(2)]
    page.busy.open()
    page.busy.press_for_all("quiet")
    empty.eventually(lambda: [p["quiet"] for p in empty.processes().values()] == ["true", "true"], "two quiet ones")
    jobs = [empty.send("Docs::Extract", number) for number in range(50)]
    page.busy.open()
    assert [page.busy.is_quiet(process) for process in page.busy.processes()] == [True, True]
    page.busy.press_for_all("stop")
    for worker in workers:
        worker.wait()
        assert worker.process.returncode == 0
    page.busy.open()
    page.shot("busy-nobody")
    assert page.busy.processes() == []
    # Nobody has touched what came after the one button, nor lost it after the other.
    assert [job["jid"] for job in empty.queued("python")] == jobs
    assert empty.executions() == []
    assert not empty.client.keys("swf:inflight:*")


def test_killed(empty: Scene, page: Pages) -> None:
    """A process killed with -9 leaves the page within a minute, and its job is at work elsewhere."""
    processes = {identity: worker for worker, identity in (empty.start() for _ in range(2))}
    held = empty.hold("through a death")
    victim = holder(empty, held)
    (other,) = set(processes) - {victim}
    os.killpg(processes[victim].process.pid, signal.SIGKILL)
    page.busy.until(
        lambda: (
            [row["Process"] for row in page.busy.jobs() if row["JID"] == held] == [other]
            and len(page.busy.processes()) == 1
        ),
        "the job at work in the other process, alone",
    )
    page.shot("busy-after-a-kill")
    empty.release()
    empty.eventually(lambda: empty.executed(held) == [False], "the end of the job")
