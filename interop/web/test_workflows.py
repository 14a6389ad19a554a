"""The tab of workflows shows runs as they are, and its buttons steer them."""

from __future__ import annotations

from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, Runs, WaitFor, Workflow
from interop.web.pages import Pages
from interop.web.scene import Scene
from interop.web.tab import Workflows

#: Text that a page must not take for a part of itself.
BOLD = "<b>\"bold\"</b> & 'co'"


@pytest.fixture
def tab(page: Pages) -> Workflows:
    return Workflows(page.browser, page.version)


def start(scene: Scene, node: Any, tag: str) -> str:
    return Workflow(node, broker=scene.broker, tags=[tag]).run()


def recorded(scene: Scene, run_id: str) -> str:
    """The state that the record of a run has."""
    return str(scene.client.hget(f"swf:flow:{run_id}", "state"))


def test_a_dead_step_is_shown_and_retried(working: Scene, tab: Workflows) -> None:
    what = working.broken(BOLD)
    extract = working.broker.get_actor("Docs::Extract").message
    node = Chain(
        extract("first"),
        Group(working.message("Docs::Once", what), extract("beside")),
        Group(*(extract(number) for number in range(30))),
        working.message("Docs::Finish"),
    )
    run_id = start(working, node, f"tag {BOLD}")
    jid = working.eventually(lambda: working.of_run("dead", run_id), "the step that failed")["jid"]
    working.eventually(lambda: len([e for e in working.executions() if e["run_id"] == run_id]) == 3, "three steps")
    working.eventually(working.settled, "counters that know of every execution")

    tab.follow_tab()
    tab.choose("failed", f"tag {BOLD}")
    (row,) = tab.runs()
    assert row["State"] == "failed"
    assert row["Run"] == f"{run_id} tag {BOLD}"
    assert row["Progress"] == "2 / 34, 1 dead"
    assert tab.is_styled()
    tab.shots("workflows")

    tab.follow_run(run_id)
    assert tab.state() == "failed"
    assert tab.facts()["Progress"] == "2 of 34 done, 1 dead"
    dead = tab.step(2)
    assert dead["Step"].startswith('Docs::Once \'<b>"bold"</b> & ')
    assert dead["Step"].endswith(f" ValueError: {what} is <b>unreadable</b>: naïve, сломано")
    assert (dead["State"], dead["Queue"], dead["Language"]) == ("dead", "python", "Python")
    assert [tab.step(number)["State"] for number in (1, 3, 34)] == ["done", "done", "open"]
    folded = tab.step(4)
    assert (folded["Step"], folded["State"]) == ("Docs::Extract x 30", "0 of 30 done")
    tab.shots("workflow")

    working.repair(what)
    tab.press("retry")
    working.eventually(lambda: working.executed(jid) == [True, False], "a second, good try")
    working.eventually(lambda: recorded(working, run_id) == "done", "the end of the run")
    tab.open_run(run_id)
    assert tab.state() == "done"
    assert {row["State"] for row in tab.steps() if row["#"]} == {"done", "30 of 30 done"}
    assert tab.buttons() == []


def test_a_run_is_cancelled(working: Scene, tab: Workflows) -> None:
    gate = f"scene:gate:{BOLD}"
    node = Chain(working.message("Docs::Hold", gate), Job("Reports::Build", 7, queue="ruby"))
    run_id = start(working, node, "cancelled")
    tab.until_run(run_id, lambda: tab.step(1)["State"] == "at work", "the first step at work")
    assert tab.state() == "running"
    assert (tab.step(2)["State"], tab.step(2)["Language"]) == ("open", "Ruby")
    assert tab.buttons() == ["pause", "cancel"]
    tab.press("cancel", BOLD)
    assert tab.state() == "cancelled"
    assert tab.facts()["Reason"] == BOLD
    assert tab.step(2)["State"] == "skipped"
    working.client.rpush(gate, "open")
    working.eventually(lambda: any(e["run_id"] == run_id for e in working.executions()), "the end of the step that ran")
    run = Runs(working.broker).get(run_id)
    assert (run.state, run.reason) == ("cancelled", BOLD)
    assert not [job for job in working.queued("ruby") if job["workflow_run_id"] == run_id]


def test_a_run_is_paused_and_resumed(working: Scene, tab: Workflows) -> None:
    gate = "scene:gate:paused"
    node = Chain(working.message("Docs::Hold", gate), WaitFor("go"), working.message("Docs::Finish"))
    run_id = start(working, node, "paused")
    tab.until_run(run_id, lambda: tab.step(1)["State"] == "at work", "the first step at work")
    tab.press("pause", BOLD)
    assert (tab.state(), tab.facts()["Reason"], tab.buttons()) == ("paused", BOLD, ["resume", "cancel"])
    working.client.rpush(gate, "open")
    tab.until_run(run_id, lambda: tab.step(2)["State"] == "parked", "the second step")
    tab.shots("workflow-paused")
    tab.press("resume")
    tab.until_run(run_id, lambda: tab.step(2)["State"] == "waits for a signal", "the step that waits")
    assert (tab.state(), tab.buttons(), tab.step(3)["State"]) == ("running", ["pause", "cancel"], "open")
    assert Runs(working.broker).signal(run_id, "go")
    working.eventually(lambda: recorded(working, run_id) == "done", "the end of the run")


def test_dead_steps_of_a_large_group(working: Scene, tab: Workflows) -> None:
    what = working.broken("member")
    run_id = start(working, Group(*(working.message("Docs::Once", name) for name in [*range(24), what])), "large")
    working.eventually(lambda: recorded(working, run_id) == "failed", "the step that failed")
    tab.until_run(run_id, lambda: "24 of 25" in tab.step(1)["State"], "all others")
    assert tab.step(1)["State"] == "24 of 25 done, 1 dead"
    (row,) = tab.dead_steps()
    assert (row["#"], row["Step"], row["Queue"]) == ("25", "Docs::Once", "python")
    assert row["Error"] == f"ValueError: {what} is <b>unreadable</b>: naïve, сломано"


def test_a_list_has_pages(working: Scene, tab: Workflows) -> None:
    runs = [start(working, working.message("Docs::Waiting", number), "pages") for number in range(30)]
    tab.open()
    tab.choose("running", "pages")
    found = [row["Run"].split()[0] for row in tab.runs()]
    assert len(found) == 25
    tab.follow_next()
    found += [row["Run"].split()[0] for row in tab.runs()]
    # Those that started in the same millisecond come in the order of their ids.
    assert sorted(found) == sorted(runs)
    assert not tab.has_next()
