"""What each role of docs/security.md does, everything once: ``python -m tests.acceptance.acl_roles ROLE``.

REDIS_URL is of the role's user.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import Any

from dramatiq_sidekiq_flow import Chain, Group, Job, MayFail, Runs, WaitFor, WithDelay, Workflow, send_many, templates
from dramatiq_sidekiq_flow.cli.main import main as cli
from dramatiq_sidekiq_flow.runs.id_search import IdSearch
from dramatiq_sidekiq_flow.store import processes, run_records, run_stats, sets
from dramatiq_sidekiq_flow.store.queue_stats import depths
from dramatiq_sidekiq_flow.wire import codec

from ..running import eventually

#: More than a script pushes at once.
MANY = 1_050

HOUR = timedelta(hours=1)

#: A callback of a run.
THUMBNAIL_OF_ALL = Job("Images::Unknown", 5, queue="ruby")


def produce() -> None:
    """Send jobs, and start runs of every kind."""
    from . import acl_app as app

    app.step.send("sent")
    app.step.send_with_options(args=("sent-later",), delay=10)
    app.sends.send("sends")
    app.fails_once.send("fails-once")
    app.fails.send("fails")
    app.dies.send("dies")
    waits = app.waits.message("waits")
    app.broker.enqueue(waits)
    print(waits.message_id)
    pair = Group(*(app.step.message(f"pair-{side}") for side in "ab"))
    nested = Group(Chain(app.step.message("first"), app.step.message("second")), pair)
    ruby: Any = app.THUMBNAIL(200)
    Workflow(
        Chain(
            nested,
            WithDelay(app.step.message("delayed"), timedelta(milliseconds=10)),
            Group(),
            app.step.message("last"),
            ruby,
        )
    ).run()
    goes_on = Chain(MayFail(app.dies_once.message("dies-once")), app.quick.message())
    Workflow(goes_on, repeatable=True, unique_key="went-on", deadline=HOUR, seed={"it": 1}).run("went-on")
    # By reference: what remains is long.
    Workflow(Chain(*(app.step.message(f"link-{n}") for n in range(6)))).run()
    Workflow(Chain(app.fails_once.message("step-fails-once"), app.step.message("after-it"))).run()
    Workflow(Chain(app.fails.message("step-fails"), app.step.message("released"))).run("of-the-dead")
    for _ in range(3):
        # A beat of a worker may push the jobs before the producer does, though hardly each time.
        Workflow(Group(*(app.quick.message() for _ in range(MANY)))).run()
    Workflow(Chain(app.step.message("fans-out"), Group(*(app.quick.message() for _ in range(MANY))))).run()
    Workflow(Chain(Job("Images::Unknown", 1, queue="ruby"), app.step.message("never"))).run("never")
    waits_in_ruby, waits_for_long = Job("Images::Unknown", 2, queue="ruby"), WithDelay(app.step.message("x"), HOUR)
    never = Chain(Group(waits_in_ruby, waits_for_long), app.step.message("never"))
    # Its callback waits for the keeper, since the queue cannot take it yet.
    full = Job("Images::Unknown", 4, queue="full")
    Workflow(never, tags=["acl"], unique_key="to-cancel", on_complete=full).run("to-cancel")
    Workflow(WithDelay(app.step.message("never"), HOUR), tags=["acl"], on_complete=THUMBNAIL_OF_ALL).run("cancel-too")
    # The keeper, one of the workers, cancels the first one, and looks whether the other goes on.
    Workflow(Chain(Job("Images::Unknown", 3, queue="ruby"), never), deadline=100).run("too-late")
    failure, complete = app.told.message("on-failure"), app.told.message("on-complete")
    Workflow(app.fails.message("calls"), unique_key="calls", on_failure=failure, on_complete=complete).run("calls")
    # These are complete at once.
    for queue in ("full", "ruby"):
        Workflow(Group(), unique_key="empty", deadline=100, on_complete=Job("Images::Unknown", 4, queue=queue)).run()
    Workflow(Chain(app.forgets.message("forgets-1"), app.forgets.message("forgets-2"))).run()
    Workflow(Chain(WaitFor("go"), app.step.message("signalled"))).run("to-signal")
    templates.run("documented", {"doc": "document"})
    send_many(app.quick, [()] * MANY)


def operate() -> None:
    """Pause and go on, cancel a job (JID in the environment) and a run, release another, clear, wait for the end."""
    from . import acl_app as app

    broker = app.broker
    broker.pause_queue("other")
    broker.unpause_queue("other")
    runs = Runs(broker)
    eventually(lambda: runs.get("went-on").state == "done", 60)
    assert runs.retry("went-on", "failed_and_after").failures == ()
    eventually(lambda: runs.get("went-on").state == "done", 60)
    assert runs.retry("went-on", "all").id == runs.get("went-on").repeated
    assert runs.pause(tag="acl", reason="a fault") == ["cancel-too", "to-cancel"]
    assert runs.resume("cancel-too").state == "waiting"
    assert runs.resume("to-cancel").state == "running"
    assert runs.retry("to-cancel").state == "running"
    assert Runs(broker).explain("of-the-dead").verdict == "failed"
    assert run_records.mark_dead("never", 1, b"{}").run(broker.connection)
    # While the job that is cancelled next is in flight.
    cancelled = Runs(broker).cancel(tag="acl", state="running", reason="no need")
    assert cancelled == ["cancel-too", "to-cancel"]
    assert Runs(broker).get("to-cancel").state == "cancelled"
    assert [run.id for run in IdSearch(broker).beginning_with("to-can", 5)] == ["to-cancel"]
    broker.cancel(os.environ["JID"])
    eventually(lambda: Runs(broker).get("to-signal").steps[0].state == "signal")
    assert Runs(broker).signal("to-signal", "go", {"by": "operator"})
    (dead,) = (job for job, _ in sets.members(broker.connection, "dead") if b"of-the-dead" in job)
    assert cli(["release", "tests.acceptance.acl_app", codec.decode(dead)["jid"]]) == 0
    broker.join("python", timeout=20_000)
    broker.declare_queue("ruby")
    broker.flush("ruby")


def look() -> None:
    """How much waits where, which processes there are, and what the registry holds."""
    from . import acl_app as app

    connection = app.broker.connection
    print(depths(connection))
    print(processes.fleet(connection))
    print(run_stats.run_stats(connection))
    print(run_stats.latencies(connection, ["python"]), run_stats.paused(connection))
    assert cli(["registry", "tests.acceptance.acl_app"]) == 0


def read_runs() -> None:
    """List, show and explain runs."""
    from . import acl_app as app

    runs = Runs(app.broker)
    (first, *_) = runs.list(limit=1)
    assert len(runs.list(after=first.id)) > 1
    assert [run.id for run in runs.list(tag="acl", state="running")] == ["cancel-too", "to-cancel"]
    assert runs.get("to-cancel").state == "running"
    assert runs.explain("of-the-dead").verdict == "failed"


ROLES = {"producer": produce, "operator": operate, "dashboard": look, "reader": read_runs}

if __name__ == "__main__":
    ROLES[sys.argv[1]]()
