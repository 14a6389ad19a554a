"""What becomes of a job, by the companion's rules: dropped steps, carriers, ids, times, and the end of a process."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, SidekiqBroker, WithDelay, Workflow, __version__
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop.tests.companions import REGISTRY, installed, worker
from interop.tests.processes import Site, ruby
from tests.redis_values import raws
from tests.running import in_flight

DAY = 86_400
RETRY_HORIZON = 21 * DAY


@pytest.fixture(scope="module")
def both(server: EmbeddedServer, container: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One Ruby worker for all tests here: look at your own run only."""
    folder = tmp_path_factory.mktemp("rules")
    site = Site(f"{server.url.rstrip('/').removesuffix('/0')}/4", folder, ())
    try:
        with installed(folder, "steps.rb", "rules.rb") as environment:
            worker(site, **environment)
            yield site
            site.stop()
    finally:
        site.close()


def step(*args: Any, **options: Any) -> Job:
    return Job("Rb::Step", *args, **{"queue": "ruby", **options})


def dead(site: Site, jid: str) -> dict[str, Any]:
    """The dead job of that id, when it is there."""

    def found() -> list[dict[str, Any]]:
        return [job for job in map(json.loads, raws(site.client.zrange("dead", 0, -1))) if job["jid"] == jid]

    job: dict[str, Any] = site.eventually(found, f"{jid} in dead", 20)[0]
    return job


def deaths(site: Site, jid: str) -> int:
    """How often a death handler was told of this job."""
    return site.client.lrange("deaths", 0, -1).count(jid.encode())


def job(**fields: Any) -> dict[str, Any]:
    jid = uuid.uuid4().hex[:24]
    return {"class": "Rb::Step", "args": [], "jid": jid, "queue": "ruby", "retry": True, "created_at": 1.5, **fields}


def done(site: Site, run_id: str) -> list[dict[str, Any]]:
    return [event for event in site.events(run_id) if event["outcome"] == "done"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Rb::Step", {"retry": False}),
        ("Rb::Step", {"retry": 0, "dead": False}),
        ("Rb::Discards", {}),
        ("Rb::NotDead", {}),
        ("Rb::Unheard", {"retry": False, "queue": "ruby"}),
    ],
    ids=["retry false", "dead false", "discard", "dead false of its class", "no class"],
)
def test_a_step_is_never_dropped(both: Site, broker: SidekiqBroker, name: str, options: dict[str, Any]) -> None:
    """Its run waits for it, so it is dead like any other; it says so, and death handlers run."""
    run_id = Workflow(Chain(step(), Job(name, {"fail": 1}, **options), step()), broker).run()
    [member] = both.eventually(lambda: both.members("dead", run_id), "a dead step", 20)
    assert member["error_class"] == ("NameError" if name == "Rb::Unheard" else "RuntimeError")
    both.eventually(lambda: not in_flight(both.client), "an empty flight", 20)
    assert both.members("retry", run_id) == []
    handled = name != "Rb::Discards" or member.get("discarded_at")  # Sidekiq 7 calls no death handler for a discard
    if handled:
        # Death handlers run after the job has left flight.
        both.eventually(lambda: deaths(both, member["jid"]), "its death handler", 20)
    if name == "Rb::Step":
        # A person retries it: the run goes on.
        assert both.api("retry-dead", member["jid"])["found"]
        both.eventually(lambda: len(done(both, run_id)) == 3, "the whole run", 20)
    if handled:
        assert deaths(both, member["jid"]) == 1


def test_a_plain_job_may_be_dropped(both: Site) -> None:
    payload = job(args=[{"fail": 1}], retry=False)
    both.client.lpush("queue:ruby", json.dumps(payload))
    both.eventually(lambda: deaths(both, payload["jid"]), "its death handler", 20)
    both.eventually(lambda: not in_flight(both.client), "an empty flight", 20)
    assert payload["jid"] not in str(both.client.zrange("dead", 0, -1))


def test_a_step_that_a_middleware_skips_is_dead(both: Site, broker: SidekiqBroker) -> None:
    run_id = Workflow(Chain(step(swallow=True), step()), broker).run()
    [member] = both.eventually(lambda: both.members("dead", run_id), "a dead step", 20)
    assert member["error_class"] == "StepSkipped"
    assert both.events(run_id) == []


@pytest.mark.parametrize("noop", ["Sidekiq::Workflow::NoopWorker", "Sidekiq::Sideline::NoopWorker"])
def test_a_carrier_is_not_performed(both: Site, noop: str) -> None:
    payload = job(**{"class": noop}, wrapped="docs.extract", retry=0, workflow_run_id=str(uuid.uuid4()))
    both.client.lpush("queue:ruby", json.dumps(payload))
    found = dead(both, payload["jid"])
    if noop == "Sidekiq::Sideline::NoopWorker":  # not the gem's name here: no such class
        assert found["error_class"] == "NameError"
        return
    assert found["error_class"].endswith("WrongQueue")
    assert all(word in found["error_message"] for word in ("ruby", "docs.extract", "queue_name", payload["jid"]))
    assert both.events(payload["workflow_run_id"]) == []


def test_a_carrier_with_retries_comes_back(both: Site) -> None:
    payload = job(**{"class": "Sidekiq::Workflow::NoopWorker"}, wrapped="docs.extract", retry=5)
    both.client.lpush("queue:ruby", json.dumps(payload))

    def failed() -> list[dict[str, Any]]:
        return [j for j in map(json.loads, raws(both.client.zrange("retry", 0, -1))) if j["jid"] == payload["jid"]]

    [again] = both.eventually(failed, "a retry", 20)
    assert again["wrapped"] == "docs.extract"
    both.api("delete", "retry", payload["jid"])


def test_the_log_names_the_versions_that_run(site: Site) -> None:
    with installed(site.logs) as environment:
        sidekiq = worker(site, **environment, INTEROP_QUIET="0")
        line = f"sidekiq-flow {__version__} with Sidekiq "
        site.eventually(lambda: line in sidekiq.log.read_text(errors="replace"), "the line of the versions", 20)
        assert "was tested with" not in sidekiq.log.read_text(errors="replace")
        site.stop()


def test_a_sidekiq_without_a_method_that_is_overridden_is_refused(site: Site) -> None:
    with installed(site.logs, before=["later_sidekiq.rb"]) as environment:
        sidekiq = worker(site, **environment)
        assert sidekiq.process.wait(30) != 0
        site.workers.remove(sidekiq)
    log = sidekiq.log.read_text(errors="replace")
    assert "Sidekiq::Scheduled::Poller#initial_wait" in log
    assert "Update sidekiq-flow" in log


def test_the_registry_file_alone_refuses_a_carrier(site: Site) -> None:
    with installed(site.logs, "registered.rb", entry=REGISTRY) as environment:
        worker(site, **environment)
        payload = job(**{"class": "Sidekiq::Workflow::NoopWorker"}, wrapped="docs.extract", retry=0)
        good = job(args=["good"])
        site.client.lpush("queue:ruby", json.dumps(payload), json.dumps(good))
        assert dead(site, payload["jid"])["error_class"] == "SidekiqFlow::WrongQueue"
        site.eventually(lambda: any(e["args"] == ["good"] for e in site.events()), "the good one", 20)
        site.stop()


def test_the_other_dialects_keys_are_refused_by_name(both: Site) -> None:
    payload = job(sideline_run_id="r", sideline_completion_callbacks=[[str(uuid.uuid4()), None, True]])
    both.client.lpush("queue:ruby", json.dumps(payload))
    found = dead(both, payload["jid"])
    assert found["error_class"] == "OtherDialect"
    assert "sideline_run_id" in found["error_message"]
    assert 'WorkflowMiddleware(dialect="workflow")' in found["error_message"]
    assert not any(event["jid"] == payload["jid"] for event in both.events())


def push(site: Site, *steps: dict[str, Any]) -> tuple[str, str]:
    """A job with a chain of nodes after it, as another client may have written them; run id and barrier."""
    barrier, run_id = str(uuid.uuid4()), str(uuid.uuid4())
    site.client.set(barrier, 1, ex=DAY)
    site.client.set(f"{barrier}_ran", -1, ex=DAY)
    tree = {"__type__": "chain", "children": steps}
    payload = job(workflow_run_id=run_id, workflow_completion_callbacks=[[barrier, tree, False]])
    site.client.lpush("queue:ruby", json.dumps(payload))
    return run_id, barrier


def node(*args: Any, **options: Any) -> dict[str, Any]:
    return {"__type__": "job", "class": "Rb::Step", "args": args, "queue": "ruby", **options}


def test_a_given_id_is_kept_and_never_doubled(both: Site) -> None:
    jid = str(uuid.uuid4())
    group = {"__type__": "group", "children": [node(2, jid=jid), node(3, jid=jid)]}
    run_id, _ = push(both, node(1, jid=jid), group, node(4))
    both.eventually(lambda: len(done(both, run_id)) == 5, "five steps", 20)
    jids = [event["jid"] for event in both.events(run_id)]
    assert jids[1] == jid
    # One of the group has it; the other one would not have counted.
    assert sum(j == jid for j in jids[2:4]) == 1


def test_a_time_in_the_tree_is_kept(both: Site) -> None:
    at = time.time() + 30 * DAY
    before = set(both.client.scan_iter("*_ran"))
    run_id, first = push(both, node(), node("late", at=at), node())
    [late] = both.eventually(lambda: both.members("schedule", run_id), "the late one in schedule", 20)
    assert late["args"] == ["late"]
    [score] = [s for m, s in both.client.zscan_iter("schedule") if json.loads(m)["jid"] == late["jid"]]
    assert score == pytest.approx(at)
    # Its barrier outlives it.
    barriers = set(both.client.scan_iter("*_ran")) - before - {f"{first}_ran".encode()}
    assert max(map(both.client.ttl, barriers)) > 30 * DAY + RETRY_HORIZON - 60
    both.client.delete("schedule")


def test_extend_ttl_shortens_nothing(both: Site, broker: SidekiqBroker) -> None:
    before = set(both.client.scan_iter("*_ran"))
    run_id = Workflow(Group(step({"extend": 300}), WithDelay(step(), delay=40 * DAY * 1000)), broker).run()
    both.eventually(lambda: done(both, run_id), "the first step", 20)
    # That of the group, and that of the job which ends the run.
    barriers = set(both.client.scan_iter("*_ran")) - before
    assert len(barriers) == 2
    assert min(map(both.client.ttl, barriers)) > 40 * DAY
    run_id = Workflow(Group(step({"extend": 100 * DAY}), WithDelay(step(), delay=40 * DAY * 1000)), broker).run()
    both.eventually(lambda: done(both, run_id), "the first step", 20)
    assert any(both.client.ttl(key) > 99 * DAY for key in set(both.client.scan_iter("*_ran")) - before)
    both.client.delete("schedule")


def test_what_ruby_starts_lives_as_long_as_its_delays(both: Site, server: EmbeddedServer) -> None:
    """Also in a process that has only loaded the file."""
    before = set(both.client.scan_iter("*_ran"))
    late = {"__type__": "with_delay", "delay": 50 * DAY * 1000, "task": node()}
    tree = {"__type__": "chain", "children": [late, {"__type__": "group", "children": [node(), late]}, node()]}
    with installed(both.logs) as environment:
        ruby(both.url, "start.rb", stdin=json.dumps({"tree": tree}), **environment)
    barriers = set(both.client.scan_iter("*_ran")) - before
    assert len(barriers) == 1
    for key in barriers:
        # Its own delay, the one that is still ahead, and the retries.
        assert both.client.ttl(key) > 100 * DAY + RETRY_HORIZON - 60
        assert both.client.ttl(key.removesuffix(b"_ran")) > 100 * DAY + RETRY_HORIZON - 60
    both.client.delete("schedule")


def test_a_stopped_process_is_off_the_list(site: Site) -> None:
    with installed(site.logs, "rules.rb") as environment:
        sidekiq = worker(site, queue="ruby,2", **environment)
        site.eventually(lambda: site.client.zcard("swf:workers") == 1, "a worker", 20)
        site.stop()
        assert sidekiq.process.returncode == 0
        assert site.client.zcard("swf:workers") == 0
    # In a web server, too, which lives on.
    with installed(site.logs, "embed.rb") as environment:
        environment["INTEROP_REQUIRE"] = environment["INTEROP_REQUIRE"].removesuffix(":/interop/extra/embed.rb")
        assert json.loads(ruby(site.url, "/interop/extra/embed.rb", **environment)) == [2, 0, 0]
