"""Buttons pressed in the browser do to Python's jobs what they do to Ruby's."""

from __future__ import annotations

from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job
from interop.web.pages import Pages
from interop.web.scene import ODD, Scene
from interop.web.scene_actors import NO_CONSTANT

#: Where a button is pressed: on the list, where the job is ticked, or on the page of the job.
PLACES = pytest.mark.parametrize("place", ["list", "job"])


def press(page: Pages, scene: Scene, name: str, jid: str, button: str, place: str) -> None:
    """Press a button for one job of a set."""
    found = scene.find(name, jid)
    assert found is not None
    jobs = page.of_set(name)
    if place == "list":
        jobs.open()
        jobs.tick(jid)
    else:
        jobs.open_job(f"{found[1]!r}-{jid}")
    jobs.press(button)


def stuck(scene: Scene, name: str, actor: str, *args: Any) -> tuple[str, str]:
    """A job that failed and is in a set: its jid, and what to repair."""
    what = scene.broken(name)
    if actor == NO_CONSTANT:
        run_id = scene.carried(what, *args)
        job = scene.eventually(lambda: scene.of_run(name, run_id), f"a carrier in {name}")
        assert job["class"] == "Sidekiq::Workflow::NoopWorker"
        return job["jid"], what
    jid = scene.send(actor, what, *args)
    scene.eventually(lambda: scene.find(name, jid), f"{actor} in {name}")
    return jid, what


@PLACES
@pytest.mark.parametrize("actor", ["Docs::Extract", NO_CONSTANT])
def test_retry_now(working: Scene, page: Pages, actor: str, place: str) -> None:
    jid, what = stuck(working, "retry", actor, *ODD)
    working.repair(what)
    press(page, working, "retry", jid, "retry", place)
    working.eventually(lambda: working.executed(jid) == [True, False], "a second, good try")
    assert working.find("retry", jid) is None
    (first, second) = [event["args"] for event in working.executions() if event["jid"] == jid]
    assert first == second == [what, *ODD]


def test_retry_now_that_fails_again(working: Scene, page: Pages) -> None:
    """A person's retry does not count as one: as many are left as before (``api.rb``)."""
    jid, _ = stuck(working, "retry", "Docs::Extract")
    press(page, working, "retry", jid, "retry", "job")
    job, _ = working.eventually(
        lambda: working.executed(jid) == [True, True] and working.find("retry", jid), "a second, bad try"
    )
    assert job["retry_count"] == 0
    assert job["retried_at"] > job["failed_at"]
    press(page, working, "retry", jid, "delete", "list")


def test_kill(working: Scene, page: Pages) -> None:
    jid, what = stuck(working, "retry", "Docs::Extract", *ODD)
    before = working.find("retry", jid)
    press(page, working, "retry", jid, "kill", "list")
    after = working.find("dead", jid)
    assert working.find("retry", jid) is None
    assert before is not None
    assert after is not None
    assert {**after[0], "discarded_at": 0} == {**before[0], "discarded_at": 0}
    assert working.executed(jid) == [True]
    # From there it can still come back.
    working.repair(what)
    press(page, working, "dead", jid, "retry", "list")
    working.eventually(lambda: working.executed(jid) == [True, False], "a second, good try")


@PLACES
@pytest.mark.parametrize(("name", "actor"), [("retry", "Docs::Extract"), ("dead", "Docs::Once")])
def test_delete(working: Scene, page: Pages, name: str, actor: str, place: str) -> None:
    jid, what = stuck(working, name, actor, *ODD)
    other, _ = stuck(working, name, actor)
    working.repair(what)
    press(page, working, name, jid, "delete", place)
    assert working.find(name, jid) is None
    assert working.find(name, other) is not None
    assert working.executed(jid) == [True]
    press(page, working, name, other, "delete", place)


@PLACES
def test_retry_dead(working: Scene, page: Pages, place: str) -> None:
    jid, what = stuck(working, "dead", "Docs::Once", *ODD)
    working.repair(what)
    press(page, working, "dead", jid, "retry", place)
    working.eventually(lambda: working.executed(jid) == [True, False], "a second, good try")
    assert working.find("dead", jid) is None


@PLACES
@pytest.mark.parametrize(("name", "actor"), [("dead", "Docs::Once"), ("retry", NO_CONSTANT)])
def test_a_run_goes_on(working: Scene, page: Pages, name: str, actor: str, place: str) -> None:
    """A step retried in the browser: its run goes on where it stood, to its end, and once."""
    what = working.broken("step")
    run_id = working.run(
        Chain(
            working.message("Docs::Extract", "first"),
            Group(working.message(actor, what), working.message("Docs::Extract", "beside")),
            working.message("Docs::Finish"),
            working.message("Docs::Hold", f"scene:end:{what}"),
            Job("Reports::Build", what, queue="ruby"),
        )
    )

    def names() -> list[str]:
        return [event["name"] for event in working.executions() if event["run_id"] == run_id]

    jid = working.eventually(lambda: working.of_run(name, run_id), "the step that failed")["jid"]
    working.eventually(lambda: sorted(names()) == sorted(["Docs::Extract", "Docs::Extract", actor]), "three steps")
    working.repair(what)
    press(page, working, name, jid, "retry", place)
    working.eventually(lambda: "Docs::Finish" in names(), "the step after the group")
    # The last one is at work now, and Busy shows it as a job of this run.
    row = page.busy.until(
        lambda: next((row for row in page.busy.jobs() if what in row["Arguments"]), None), "the last step at work"
    )
    assert (row["Queue"], row["Job"]) == ("python", f"Docs::Hold wf:{run_id[:8]}")
    working.client.rpush(f"scene:end:{what}", "open")
    working.eventually(lambda: "Docs::Hold" in names(), "the end of the run")
    assert sorted(names()) == sorted(["Docs::Extract", "Docs::Extract", actor, actor, "Docs::Finish", "Docs::Hold"])
    assert working.of_run(name, run_id) is None

    def ruby() -> list[Any]:
        return [job["args"] for job in working.queued("ruby") if job["workflow_run_id"] == run_id]

    working.eventually(ruby, "the Ruby step, in its queue")
    assert ruby() == [[what]]
    memory = working.client.hgetall(f"swf:mem:{run_id}")
    assert set(memory) == {"extracted", "finished"}


def test_delete_one_of_a_queue(working: Scene, page: Pages) -> None:
    """The page sends the whole payload back, and Sidekiq removes that very element."""
    first, second, third = [working.send("Docs::Waiting", number, *ODD) for number in range(3)]
    page.queue.open("waiting")
    page.queue.delete(second)
    assert [job["jid"] for job in working.queued("waiting")] == [first, third]
    # And the queue as a whole.
    page.queues.open()
    page.queues.delete("waiting")
    assert working.queued("waiting") == []
    assert "waiting" not in working.client.smembers("queues")


@PLACES
@pytest.mark.parametrize("actor", ["Docs::Extract", NO_CONSTANT])
def test_add_to_queue(working: Scene, page: Pages, actor: str, place: str) -> None:
    if actor == NO_CONSTANT:
        job = working.of_run("schedule", working.carried(*ODD, delay=7_200_000))
        assert job is not None
        jid = job["jid"]
    else:
        jid = working.send(actor, *ODD, delay=7_200_000)
    press(page, working, "schedule", jid, "add_to_queue", place)
    working.eventually(lambda: working.executed(jid) == [False], "the job that was for later")
    assert working.find("schedule", jid) is None
    (args,) = [event["args"] for event in working.executions() if event["jid"] == jid]
    assert args == ODD


@PLACES
def test_delete_scheduled(working: Scene, page: Pages, place: str) -> None:
    jid = working.send("Docs::Extract", *ODD, delay=7_200_000)
    press(page, working, "schedule", jid, "delete", place)
    assert working.find("schedule", jid) is None
    assert working.executed(jid) == []


def _all(page: Pages, name: str, what: str) -> None:
    jobs = page.of_set(name)
    jobs.open()
    jobs.press_for_all(what)


def test_all_at_once(working: Scene, page: Pages) -> None:
    """Retry all, kill all, delete all."""
    client = working.client

    def both() -> list[tuple[str, str]]:
        return [stuck(working, "retry", "Docs::Extract"), stuck(working, "retry", NO_CONSTANT)]

    jobs = both()
    for _, what in jobs:
        working.repair(what)
    _all(page, "retry", "retry")
    working.eventually(lambda: all(working.executed(jid) == [True, False] for jid, _ in jobs), "all retried")
    assert client.zcard("retry") == 0

    jobs = both()
    _all(page, "retry", "kill")
    assert client.zcard("retry") == 0
    assert all(working.find("dead", jid) for jid, _ in jobs)
    for _, what in jobs:
        working.repair(what)
    _all(page, "dead", "retry")
    working.eventually(lambda: all(working.executed(jid) == [True, False] for jid, _ in jobs), "all dead ones retried")
    assert client.zcard("dead") == 0

    jobs = both()
    _all(page, "retry", "delete")
    assert client.zcard("retry") == 0
    stuck(working, "dead", "Docs::Once")
    _all(page, "dead", "delete")
    assert client.zcard("dead") == 0
    assert all(working.executed(jid) == [True] for jid, _ in jobs)
