"""Chains, groups and delays whose steps are of both languages: each runs once, in order, whoever starts it."""

from __future__ import annotations

import itertools
import uuid

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, SidekiqBroker, WithDelay
from interop.tests.processes import Site
from interop.tests.workflows import CARRIED, LANGUAGES, finished, languages, py, rb, start, step
from tests.trees import Shape, build, violations

starters = pytest.mark.parametrize("starter", LANGUAGES)


@starters
def test_a_chain_goes_from_ruby_to_python_and_back(both: Site, broker: SidekiqBroker, starter: str) -> None:
    run_id = start(both, broker, starter, Chain(rb(1), py(2), rb(3), py(4)))
    events = finished(both, run_id, 4)
    assert [(e["language"], e["args"]) for e in events] == [
        ("ruby", [1]),
        ("python", [2]),
        ("ruby", [3]),
        ("python", [4]),
    ]
    for earlier, later in itertools.pairwise(events):
        assert earlier["end"] <= later["start"]


@starters
@pytest.mark.parametrize("last", LANGUAGES)
def test_whichever_language_finishes_a_group_last_goes_on(
    both: Site, broker: SidekiqBroker, starter: str, last: str
) -> None:
    first = "python" if last == "ruby" else "ruby"
    gates = {"ruby": f"gate:{uuid.uuid4()}", "python": f"gate:{uuid.uuid4()}"}
    held = (Job("Rb::Gate", gates["ruby"]), Job("Py::Gate", gates["python"]))
    before = both.barriers().keys()
    run_id = start(both, broker, starter, Chain(Group(rb(), *held, py()), rb("after"), py("end")))

    def waiting() -> list[int]:
        # Of the chain, and of the group: the steps that have still to count.
        return sorted(value for barrier, value in both.barriers().items() if barrier not in before)

    both.eventually(lambda: waiting() == [1, 2], "two of the group's four steps to count")
    both.client.lpush(gates[first], 1)
    both.eventually(lambda: waiting() == [1, 1], f"the {first} gate to count")
    assert len(both.events(run_id)) == 3
    both.client.lpush(gates[last], 1)
    events = finished(both, run_id, 6)
    assert (events[3]["language"], events[3]["args"]) == (last, [gates[last]])
    assert [e["args"] for e in events[4:]] == [["after"], ["end"]]


#: Groups in groups, delays in delays; and the languages of the ten jobs, from the left.
NESTED: Shape = (
    "chain",
    [
        "job",
        (
            "group",
            [
                "job",
                ("delay", 300, ("group", ["job", ("delay", 200, "job"), ("group", ["job"])])),
                ("chain", ["job", ("delay", 250, ("group", ["job", "job"])), "job"]),
            ],
        ),
        ("delay", 150, "job"),
    ],
)
#: What is delayed, by which milliseconds, after the end of which job.
DELAYS = {2: (300, 0), 3: (500, 0), 4: (300, 0), 6: (250, 5), 7: (250, 5), 9: (150, 8)}


@starters
@pytest.mark.parametrize("first", LANGUAGES)
def test_nested_groups_with_delays(both: Site, broker: SidekiqBroker, starter: str, first: str) -> None:
    cycle = LANGUAGES if first == "ruby" else LANGUAGES[::-1]
    tree, count = build(NESTED, lambda n: step(cycle[n % 2], n))
    run_id = start(both, broker, starter, tree)
    by_number = {e["args"][0]: e for e in finished(both, run_id, count)}
    times = sorted((e[what], what, n) for n, e in by_number.items() for what in ("start", "end"))
    assert list(violations(NESTED, count, [(what, n) for _, what, n in times])) == []
    for job, (delay, after) in DELAYS.items():
        assert by_number[job]["start"] >= by_number[after]["end"] + delay / 1000, f"job {job} came early"


@starters
@pytest.mark.parametrize("before", LANGUAGES)
def test_an_empty_delayed_group_takes_its_time(both: Site, broker: SidekiqBroker, starter: str, before: str) -> None:
    """Whoever finishes the step before it makes the job that waits."""
    run_id = start(both, broker, starter, Chain(step(before, 1), WithDelay(Group(), delay=300), rb(2), py(3)))
    events = [e for e in finished(both, run_id, 4) if e["args"]]
    assert [e["args"] for e in events] == [[1], [2], [3]]
    assert events[1]["start"] >= events[0]["end"] + 0.3


@starters
@pytest.mark.parametrize("taker", LANGUAGES)
def test_an_empty_delayed_group_at_the_start(site: Site, broker: SidekiqBroker, starter: str, taker: str) -> None:
    """Whoever starts the workflow makes the job that waits; only one language listens to its queue."""
    run_id = start(site, broker, starter, Chain(WithDelay(Chain(), delay=100), rb(1), py(2)))
    made = site.members("schedule", run_id)
    assert [(job["class"], job["retry"], job["args"]) for job in made] == [("Sidekiq::Workflow::NoopWorker", 0, [])]
    queue = made[0]["queue"]
    # `ruby` and `python` have their own workers; what is asked is who takes the waiting job.
    site.ruby_worker(queues=("ruby", queue) if taker == "ruby" and queue != "python" else ("ruby",))
    site.python_worker(queues=("python", queue) if taker == "python" else ("python",))
    if queue == "python":
        taker = "python"
    events = finished(site, run_id, 3)
    assert [(e["language"], e["args"]) for e in events] == [(taker, []), ("ruby", [1]), ("python", [2])]


@starters
def test_ruby_advances_onto_actors_without_a_ruby_name(site: Site, broker: SidekiqBroker, starter: str) -> None:
    """Nothing is installed in Ruby: no class stands for any of the actors."""
    site.ruby_worker(stubs=False)
    site.python_worker()
    carried = [Job(CARRIED, n) for n in (2, 4, 5)]
    run_id = start(
        site,
        broker,
        starter,
        Chain(rb(1), carried[0], rb(3), Group(carried[1], rb(6)), WithDelay(carried[2], 100), rb(7)),
    )
    events = finished(site, run_id, 7)
    assert sorted(e["args"][0] for e in events[3:5]) == [4, 6]
    assert [e["args"][0] for e in events if e not in events[3:5]] == [1, 2, 3, 5, 7]
    for event in events:
        is_carried = event["args"][0] in (2, 4, 5)
        assert event["language"] == ("python" if is_carried else "ruby")
        assert event["queue"] == ("python" if is_carried else "ruby")
        assert event.get("wrapped") == (CARRIED if is_carried else None)


@starters
def test_python_keeps_the_options_of_a_ruby_class(both: Site, broker: SidekiqBroker, starter: str) -> None:
    run_id = start(both, broker, starter, Chain(py(1), Job("Rb::Critical", 2), py(3)))
    assert [e["queue"] for e in finished(both, run_id, 3)] == ["python", "critical", "python"]
    assert languages(both, run_id) == ["python", "ruby", "python"]
