"""A step that fails in one language is brought back by the other, and its run goes on."""

from __future__ import annotations

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, SidekiqBroker, WithDelay
from interop.tests.processes import Site
from interop.tests.workflows import CARRIED, LANGUAGES, languages, py, rb, start, step
from tests.redis_values import raws

starters = pytest.mark.parametrize("starter", LANGUAGES)

#: Milliseconds: longer than any test.
NEVER = 3_600_000


def history(site: Site, run_id: str) -> list[tuple[str, str, int | None]]:
    """Language, outcome and retry count of each execution."""
    return [(e["language"], e["outcome"], e["retry_count"]) for e in site.events(run_id)]


@starters
@pytest.mark.parametrize("name", ["Py::Step", CARRIED])
def test_ruby_brings_a_failing_python_step_back(site: Site, broker: SidekiqBroker, starter: str, name: str) -> None:
    site.ruby_worker(poll=0.1)
    site.python_worker(poll=NEVER)
    run_id = start(site, broker, starter, Chain(rb(1), Job(name, {"fail": 2}), rb(3)))
    site.eventually(lambda: len(site.events(run_id)) == 5, "two tries that fail and one that does not")
    assert history(site, run_id) == [
        ("ruby", "done", None),
        ("python", "failed", None),
        ("python", "failed", 0),
        ("python", "done", 1),
        ("ruby", "done", None),
    ]


@starters
def test_python_brings_a_failing_ruby_step_back(site: Site, broker: SidekiqBroker, starter: str) -> None:
    site.ruby_worker(poll=0)
    site.python_worker(poll=50)
    run_id = start(site, broker, starter, Chain(py(1), rb({"fail": 2}), py(3)))

    def is_done() -> bool:
        # Sidekiq lets a retry wait for one to ten seconds and more.
        for member in raws(site.client.zrange("retry", 0, -1)):
            site.client.zadd("retry", {member: 1}, xx=True)
        return len(site.events(run_id)) == 5

    site.eventually(is_done, "three tries and the step after them")
    assert history(site, run_id) == [
        ("python", "done", None),
        ("ruby", "failed", None),
        ("ruby", "failed", 0),
        ("ruby", "done", 1),
        ("python", "done", None),
    ]


@starters
@pytest.mark.parametrize("poller", LANGUAGES)
def test_one_languages_poller_is_enough_for_the_delays_of_both(
    site: Site, broker: SidekiqBroker, starter: str, poller: str
) -> None:
    site.ruby_worker(poll=0.1 if poller == "ruby" else 0)
    site.python_worker(poll=50 if poller == "python" else NEVER)
    delayed = Group(WithDelay(rb(2), delay=200), WithDelay(py(3), delay=200))
    run_id = start(site, broker, starter, Chain(rb(1), delayed, py(4), WithDelay(Group(rb(5), py(6)), 200), rb(7)))
    site.eventually(lambda: len(site.events(run_id)) == 7, "seven steps")
    assert sorted(e["args"][0] for e in site.events(run_id)) == [1, 2, 3, 4, 5, 6, 7]


@starters
@pytest.mark.parametrize("failing", LANGUAGES)
def test_a_dead_step_retried_from_rubys_api_resumes_its_run(
    both: Site, broker: SidekiqBroker, starter: str, failing: str
) -> None:
    other = "python" if failing == "ruby" else "ruby"
    name = "Rb::DeadAtOnce" if failing == "ruby" else "Py::DeadAtOnce"
    fragile = Job(name, {"fail": 1, "return": {"mended": failing}}, retry=0)
    run_id = start(both, broker, starter, Chain(step(other, 1), Group(step(other, 2), fragile), step(other, 3)))
    (dead,) = both.eventually(lambda: both.members("dead", run_id), "the dead job")
    both.eventually(lambda: len(both.events(run_id)) == 3, "the rest of the group")
    assert (dead["error_class"], dead["error_message"]) == ("RuntimeError", "try 1 of 1 that fail")
    assert dead["retry_count"] == 0
    assert both.api("retry-dead", dead["jid"]) == {"found": True, "jid": dead["jid"]}
    both.eventually(lambda: len(both.events(run_id)) == 5, "the run to go on")
    assert languages(both, run_id)[3:] == [failing, other]
    again = both.events(run_id)[3]
    assert (again["jid"], again["outcome"]) == (dead["jid"], "done")
    assert both.memory(run_id) == {"mended": failing}
    assert both.members("dead", run_id) == []


@starters
def test_a_dead_carrier_retried_from_rubys_api_resumes_its_run(both: Site, broker: SidekiqBroker, starter: str) -> None:
    """Ruby sees the gem's own empty job; what it pushes back is still the actor's."""
    run_id = start(both, broker, starter, Chain(py(1), Job(CARRIED, {"fail": 1}, retry=0), rb(2)))
    (dead,) = both.eventually(lambda: both.members("dead", run_id), "the dead job")
    assert dead["wrapped"] == CARRIED
    both.api("retry-dead", dead["jid"])
    both.eventually(lambda: len(both.events(run_id)) == 4, "the run to go on")
    assert languages(both, run_id) == ["python", "python", "python", "ruby"]
