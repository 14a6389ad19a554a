"""Ruby's own API reads what Python wrote, and finds what is so, while both languages work."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, SidekiqBroker, WithDelay, Workflow
from dramatiq_sidekiq_flow.wire.nodes import Node
from interop.tests.processes import Site
from interop.tests.workflows import CARRIED, py, rb

#: Milliseconds: it beats each second.
HEARTBEAT = 5_000

#: Sidekiq's major version -> keys of metrics that it does not read: days of four digits are 7's, of two are 8's.
FOREIGN_METRICS = {
    "7": ("h|*", "j|??????|*"),
    "8": ("[^h]*-[0-9][0-9]-[0-9][0-9]:*", "j|????????|*"),
}


@pytest.fixture
def fleet(site: Site) -> Site:
    """Two Python processes and a Ruby one, all of them to be seen."""
    site.ruby_worker()
    # A Python process looks when it starts at which metrics the others read.
    site.eventually(lambda: site.client.scard("processes") == 1, "the record of the Ruby process")
    for _ in range(2):
        site.python_worker(heartbeat=HEARTBEAT)
    site.eventually(lambda: site.client.scard("processes") == 3, "three processes")
    return site


def run(broker: SidekiqBroker, node: Node) -> str:
    return Workflow(node, broker).run()


def shown(event: dict[str, Any]) -> str:
    """The class that metrics know an execution by."""
    name: str = event.get("wrapped") or event["class"]
    return name


def pythons(dump: dict[str, Any]) -> list[dict[str, Any]]:
    return [process for process in dump["processes"] if process["labels"] == ["python"]]


def test_rubys_api_agrees_with_what_happened(fleet: Site, broker: SidekiqBroker) -> None:
    run(broker, Chain(py(1), Group(*(py(n) for n in range(20)), *(rb(n) for n in range(5))), Job(CARRIED, 2), rb(3)))
    run(broker, Group(*(py(n, {"fail": 1}) for n in range(3))))
    dying = run(broker, Job("Py::DeadAtOnce", {"fail": 9}, retry=0))
    waiting = run(broker, WithDelay(py("later"), delay=3_600_000))
    fleet.eventually(lambda: len(fleet.events()) == 1 + 25 + 1 + 1 + 6 + 1, "all executions")
    open_gates = [run(broker, Job("Py::Gate", f"gate:{n}")) for n in range(2)]
    fleet.eventually(lambda: len(fleet.api("dump")["work"]) == 2, "two jobs on the Busy page")
    truth = fleet.events()
    # And the job that ends the run whose last step is Ruby's.
    ends = Counter({"Sidekiq::Workflow::NoopWorker": 1})
    executions = len(truth) + ends.total()

    def counted() -> dict[str, Any] | None:
        """Ruby writes its counts each ten seconds, and Python, here, each second."""
        found = fleet.api("dump")
        return found if found["stats"]["processed"] == executions else None

    dump = fleet.eventually(counted, f"{executions} jobs on the dashboard")
    failed = [event for event in truth if event["outcome"] == "failed"]
    assert dump["stats"]["failed"] == len(failed) == 4
    assert dump["stats"]["today"] == executions
    assert dump["stats"]["processes"] == 3
    assert dump["stats"]["busy"] == 2
    assert (dump["stats"]["dead"], dump["stats"]["retry"], dump["stats"]["scheduled"]) == (1, 0, 1)
    assert dump["stats"]["enqueued"] == 0

    # Sets and queues hold what Redis holds.
    ((dead, died_at),) = dump["dead"]
    assert json.loads(dead)["workflow_run_id"] == dying
    assert died_at == pytest.approx(time.time(), abs=300)
    ((later, due),) = dump["schedule"]
    assert json.loads(later)["workflow_run_id"] == waiting
    assert due > time.time()
    assert dump["retry"] == []
    assert set(dump["queues"]) >= {"python", "ruby"}

    # The processes are the real ones.
    ours = pythons(dump)
    assert len(ours) == 2
    assert {process["pid"] for process in ours} >= {e["pid"] for e in truth if e["language"] == "python"}
    for process in ours:
        assert process["concurrency"] == 4
        assert process["queues"] == ["python"]
        assert process["weights"] == [{"python": 1}]
        assert (process["quiet"], process["embedded"]) == ("false", False)
        assert process["rss"] > 1000
        assert process["beat"] == pytest.approx(time.time(), abs=60)
    assert sum(process["busy"] for process in ours) == 2

    # What they work on.
    work = dump["work"]
    assert {json.loads(entry["payload"])["workflow_run_id"] for entry in work} == set(open_gates)
    assert {(entry["queue"], entry["class"]) for entry in work} == {("python", "Py::Gate")}
    assert {entry["process"] for entry in work} <= {process["identity"] for process in ours}
    for entry in work:
        assert entry["run_at"] == pytest.approx(time.time(), abs=300)

    # The Metrics page, in the layout of the Ruby that runs.
    metrics = fleet.eventually(lambda: _complete(fleet.api("metrics"), executions), "the metrics of all")
    processed, failures = Counter(map(shown, truth)) + ends, Counter(map(shown, failed))
    assert {name: totals["p"] for name, totals in metrics["listed"].items()} == processed
    assert {name: totals["f"] for name, totals in metrics["listed"].items() if totals.get("f")} == failures
    for name, totals in metrics["listed"].items():
        alone = {key: value for key, value in metrics["alone"][name].items() if value}
        assert alone == {key: value for key, value in totals.items() if value}, name
        assert metrics["timed"][name] == processed[name] - failures[name], name
    (version,) = {process["version"] for process in dump["processes"] if process not in ours}
    foreign = {pattern: fleet.client.keys(pattern) for pattern in FOREIGN_METRICS[version.partition(".")[0]]}
    assert not any(foreign.values()), foreign

    for number in range(2):
        fleet.client.rpush(f"gate:{number}", "open")
    fleet.eventually(lambda: not fleet.api("dump")["work"], "an idle Busy page")
    fleet.stop()
    final = fleet.api("dump")
    assert final["processes"] == []
    assert final["stats"]["processed"] == executions + 2


def _complete(metrics: dict[str, Any], executions: int) -> dict[str, Any] | None:
    found = sum(totals["p"] for totals in metrics["listed"].values())
    return metrics if found == executions else None


def test_quiet_and_stop_one_python_process_from_ruby(fleet: Site, broker: SidekiqBroker) -> None:
    stopped, quieted = pythons(fleet.api("dump"))
    assert fleet.api("signal", quieted["identity"], "quiet!") == {"found": True}
    fleet.eventually(lambda: fleet.client.hget(quieted["identity"], "quiet") == b"true", "a quiet process")
    for number in range(10):
        run(broker, py(number))
    fleet.eventually(lambda: len(fleet.events()) == 10, "ten jobs")
    assert {event["pid"] for event in fleet.events()} == {stopped["pid"]}
    assert fleet.api("signal", stopped["identity"], "stop!") == {"found": True}
    # Its whole command ends, as it does after SIGTERM.
    ending = [worker for worker in fleet.workers if _is_of(worker.process.pid, stopped["pid"])]
    assert len(ending) == 1
    fleet.workers.remove(ending[0])
    try:
        ending[0].wait()
        assert ending[0].process.returncode == 0
    finally:
        ending[0].kill()
    assert {process["identity"] for process in pythons(fleet.api("dump"))} == {quieted["identity"]}


def _is_of(command: int, pid: int) -> bool:
    return os.getpgid(pid) == command


def test_buttons_of_the_sets_pressed_in_ruby(fleet: Site, broker: SidekiqBroker) -> None:
    """Retry now, kill, delete, and retry from dead; a workflow goes on where it stood."""
    slow = {"fail": 1}
    retried, killed, deleted = (
        run(broker, Chain(Job("Py::Slow", slow, name), py(name))) for name in ("retried", "killed", "deleted")
    )
    runs = {
        name: fleet.eventually(lambda r=r: fleet.members("retry", r), f"{name} in the retry set")[0]["jid"]
        for name, r in (("retried", retried), ("killed", killed), ("deleted", deleted))
    }
    assert fleet.api("retry", runs["retried"])["found"]
    fleet.eventually(lambda: len(fleet.events(retried)) == 3, "the retried run to end")
    assert [e["retry_count"] for e in fleet.events(retried)] == [None, -1, None]
    assert fleet.api("delete", "retry", runs["deleted"])["found"]
    assert fleet.api("kill", runs["killed"])["found"]
    assert fleet.members("dead", killed)[0]["jid"] == runs["killed"]
    assert fleet.api("retry-dead", runs["killed"])["found"]
    fleet.eventually(lambda: len(fleet.events(killed)) == 3, "the killed run to end")
    assert len(fleet.events(deleted)) == 1
    assert not fleet.client.exists("retry", "dead")
