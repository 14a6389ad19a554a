"""Ruby workers with the companion file: what the plain gem cannot promise."""

from __future__ import annotations

import base64
import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, Namespace, SidekiqBroker, WithDelay, Workflow
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from dramatiq_sidekiq_flow.wire.payload import fingerprint
from interop.soak.__main__ import main as soak
from interop.tests import companions
from interop.tests.processes import RUN, Site, Worker, ruby_environment
from tests.redis_values import raws, texts
from tests.running import advance, members

RETRY_HORIZON = 21 * 86_400


def worker(site: Site, form: companions.Form, queue: str = "ruby", **environment: str) -> Worker:
    """A Ruby worker with the companion; no Python actor has a Ruby constant."""
    options = {"INTEROP_POLL": "0.1", "INTEROP_RETRY_IN": "1", "INTEROP_TIMEOUT": "3", "INTEROP_HEARTBEAT": "2"}
    environment = ruby_environment(site.url, **companions.companion(form), **options, **environment)
    return site._start("ruby", [str(RUN), "sidekiq", "-r", "./worker.rb", "-q", queue, "-c", "3"], environment)


@pytest.fixture(scope="module", params=companions.FORMS)
def form(request: pytest.FixtureRequest) -> companions.Form:
    """Each test here runs with the file to copy and with the gem."""
    form: companions.Form = request.param
    return form


@pytest.fixture(scope="module")
def companion(
    form: companions.Form, server: EmbeddedServer, container: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """One Ruby worker for all tests here: look at your own run only."""
    site = Site(f"{server.url.rstrip('/').removesuffix('/0')}/2", tmp_path_factory.mktemp("companion"), ())
    try:
        worker(site, form)
        yield site
        site.stop()
    finally:
        site.close()


@pytest.fixture
def both(companion: Site) -> Site:
    """So that ``broker`` is of the same site."""
    return companion


def step(*args: Any, **options: Any) -> Job:
    return Job("Rb::Step", *args, queue="ruby", **options)


def in_flight(site: Site) -> list[bytes]:
    return raws(payload for key in site.client.scan_iter("swf:inflight:*") for payload in site.client.hvals(key))


def dead(site: Site, jid: str) -> Any:
    jobs = [json.loads(member) for member in raws(site.client.zrange("dead", 0, -1))]
    return next((job for job in jobs if job["jid"] == jid), None)


def job(**fields: Any) -> dict[str, Any]:
    """A payload as somebody else has pushed it."""
    jid = uuid.uuid4().hex[:24]
    return {"class": "Rb::Step", "args": [], "jid": jid, "queue": "ruby", "retry": True, "created_at": 1.5, **fields}


def test_it_replays_the_recordings(form: companions.Form, server: EmbeddedServer, container: None) -> None:
    environment = ruby_environment(f"{server.url.rstrip('/').removesuffix('/0')}/6", **companions.companion(form))
    done = subprocess.run([str(RUN), "ruby", "replay.rb"], env=environment, capture_output=True, text=True, timeout=100)
    assert "with the companion\n36 passed, 0 failed" in done.stdout, done.stdout + done.stderr


def test_a_step_without_a_ruby_constant_is_the_other_languages(companion: Site, broker: SidekiqBroker) -> None:
    """It keeps its options; a carrier (whose name cannot be a constant) keeps what it carries."""
    after = Group(Job("Py::Nowhere", 1, queue="elsewhere", retry=7), Job("py.nowhere", 2, queue="elsewhere"))
    run_id = Workflow(Chain(step({"return": {"seen": 1}}), after), broker).run()
    companion.eventually(lambda: companion.client.llen("queue:elsewhere") == 2, "two steps for the other language")
    jobs = {j.get("wrapped", j["class"]): j for j in map(json.loads, companion.client.lrange("queue:elsewhere", 0, -1))}
    assert {name: j["retry"] for name, j in jobs.items()} == {"Py::Nowhere": 7, "py.nowhere": True}
    assert {j["workflow_run_id"] for j in jobs.values()} == {run_id}
    assert companion.memory(run_id) == {"seen": 1}
    companion.client.delete("queue:elsewhere")


def test_a_failure_moves_from_flight_to_retry_and_keeps_the_barriers(companion: Site, broker: SidekiqBroker) -> None:
    before = set(companion.client.scan_iter("*_ran"))
    first = step({"sleep": 0.5, "fail": 1})
    run_id = Workflow(Chain(first, Group(step(), WithDelay(Group(), delay=10)), step()), broker).run()
    [barrier] = set(companion.client.scan_iter("*_ran")) - before
    assert companion.client.expire(barrier, 100)
    companion.eventually(lambda: len(companion.events(run_id)) >= 1, "a failure")
    # What is kept of a failed job is kept for its next try and all tries to come.
    companion.eventually(lambda: companion.client.ttl(barrier) > RETRY_HORIZON - 60, "a longer life of the barrier")
    companion.eventually(lambda: len([e for e in companion.events(run_id) if e["outcome"] == "done"]) == 4, "4 steps")
    companion.eventually(lambda: not in_flight(companion), "an empty flight")
    assert companion.members("retry", run_id) == companion.members("dead", run_id) == []


def test_the_memory_lives_as_long_as_its_run(companion: Site, broker: SidekiqBroker) -> None:
    """Also past a Ruby step that keeps nothing, one that fails, and one with a long delay ahead."""
    day = 86_400
    waiting = WithDelay(step(), delay=30 * day * 1000)
    run_id = Workflow(
        Chain(step({"return": {"kept": 1}}), step(), step({"fail": 1}), Group(step({"return": {"n": 2}}), waiting)),
        broker,
    ).run()
    client, key = companion.client, f"swf:mem:{run_id}"
    companion.eventually(lambda: len([e for e in companion.events(run_id) if e["outcome"] == "done"]) == 4, "4 steps")
    companion.eventually(lambda: companion.memory(run_id) == {"kept": 1, "n": 2}, "what was kept")
    assert client.ttl(key) > RETRY_HORIZON + 30 * day - 3700
    # It is over when the last one is done: then it is kept for a day.
    (raw,) = raws(client.zrange("schedule", 0, -1))
    client.zrem("schedule", raw)
    client.lpush("queue:ruby", raw)
    companion.eventually(
        lambda: any(job.get("workflow_run_id") == run_id for job in members(client, "python")), "the end of the run"
    )
    # Those of other tests wait there, too.
    advance(broker, client.llen("queue:python"))
    assert 0 < client.ttl(key) <= day
    assert companion.memory(run_id) == {"kept": 1, "n": 2}


def test_a_step_in_a_namespace_writes_there(companion: Site, broker: SidekiqBroker) -> None:
    branches = [Namespace(name, step({"return": {"size": n}})) for n, name in enumerate(("left", "right"))]
    run_id = Workflow(Chain(Group(*branches), step({"return": {"size": 2}})), broker).run()
    companion.eventually(lambda: len(companion.memory(run_id)) == 3, "three sizes")
    assert companion.memory(run_id) == {"left.size": 0, "right.size": 1, "size": 2}


def test_no_retries_left_is_dead_with_sidekiqs_own_record(companion: Site, broker: SidekiqBroker) -> None:
    run_id = Workflow(Chain(step({"fail": 1}, retry=0), step()), broker).run()
    companion.eventually(lambda: companion.members("dead", run_id), "a dead job")
    [member] = companion.members("dead", run_id)
    assert member["error_class"] == "RuntimeError"
    assert member["retry_count"] == 0
    assert not in_flight(companion)
    line = f"of run {run_id} is dead: RuntimeError. The run waits; retrying the job resumes it."
    companion.eventually(lambda: line in companion.workers[0].log.read_text(), "a line in the log")


def test_an_expired_barrier_is_no_silence(companion: Site) -> None:
    remaining = {"__type__": "chain", "children": [{"__type__": "job", "class": "Rb::Step", "args": []}]}
    payload = job(
        workflow_run_id=str(uuid.uuid4()), workflow_completion_callbacks=[[str(uuid.uuid4()), remaining, False]]
    )
    companion.client.lpush("queue:ruby", json.dumps(payload))
    companion.eventually(lambda: dead(companion, payload["jid"]), "a dead job")
    assert dead(companion, payload["jid"])["error_class"] == "BarrierExpired"
    assert not companion.client.exists(payload["workflow_completion_callbacks"][0][0])
    assert not in_flight(companion)


def test_a_barrier_must_be_a_uuid(companion: Site) -> None:
    payload = job(workflow_run_id=str(uuid.uuid4()), workflow_completion_callbacks=[["queues", None, True]])
    companion.client.lpush("queue:ruby", json.dumps(payload))
    companion.eventually(lambda: dead(companion, payload["jid"]), "a dead job")
    assert dead(companion, payload["jid"])["error_class"] == "InvalidCallbacks"
    assert companion.events(payload["workflow_run_id"]) == []


def test_the_same_job_twice_counts_once(companion: Site, broker: SidekiqBroker) -> None:
    run_id = Workflow(Chain(Group(step(0), Job("Rb::Step", 1, queue="later")), step(2)), broker).run()
    companion.eventually(lambda: len(companion.events(run_id)) == 1, "the first step")
    [event] = companion.events(run_id)
    [other] = map(json.loads, companion.client.lrange("queue:later", 0, -1))
    again = {**other, "args": [0], "jid": event["jid"], "queue": "ruby"}
    companion.client.lpush("queue:ruby", json.dumps(again))
    companion.eventually(lambda: len(companion.events(run_id)) == 2, "the first step again")
    companion.eventually(lambda: not in_flight(companion), "an empty flight")
    assert [e["args"] for e in companion.events(run_id)] == [[0], [0]]
    companion.client.lmove("queue:later", "queue:ruby")
    companion.eventually(lambda: [e["args"][0] for e in companion.events(run_id)] == [0, 0, 1, 2], "the last step")


def test_a_large_group_is_staged(companion: Site, broker: SidekiqBroker) -> None:
    children: list[Job | WithDelay] = [Job("Py::Many", n, queue="many") for n in range(2500)]
    children += [WithDelay(Job("Py::Late", n, queue="many"), delay=3_600_000) for n in range(1100)]
    Workflow(Chain(step(), Group(*children)), broker).run()
    companion.eventually(lambda: companion.client.llen("queue:many") == 2500, "2500 jobs")
    assert [json.loads(j)["args"][0] for j in companion.client.lrange("queue:many", 0, -1)] == list(range(2499, -1, -1))
    assert companion.client.zcard("schedule") == 1100
    assert not list(companion.client.scan_iter("swf:fanout*"))
    companion.client.delete("queue:many", "schedule")


def test_many_chains_side_by_side_are_staged_with_their_barriers(companion: Site, broker: SidekiqBroker) -> None:
    chains = [Chain(Job("Py::Many", n, queue="chains"), Job("Py::Many", queue="chains")) for n in range(1200)]
    Workflow(Chain(step(), Group(*chains)), broker).run()
    companion.eventually(lambda: companion.client.llen("queue:chains") == 1200, "1200 jobs")
    stacks = [json.loads(j)["workflow_completion_callbacks"] for j in companion.client.lrange("queue:chains", 0, -1)]
    barriers = {stack[-1][0] for stack in stacks}
    assert companion.client.exists(*barriers) == 1200
    # Below it is the end of the run.
    assert companion.client.get(stacks[0][-2][0]) == b"1200"
    assert min(companion.client.ttl(barrier) for barrier in barriers) > 86_400
    assert not list(companion.client.scan_iter("swf:fanout*"))
    companion.client.delete("queue:chains")


def test_a_dead_processes_fan_out_is_poured(
    companion: Site, broker: SidekiqBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process died between its commit and the first part."""
    monkeypatch.setattr("dramatiq_sidekiq_flow.workflow.start.pour", lambda connection, writes: None)
    Workflow(Group(*(Job("Py::Many", n, queue="poured") for n in range(2500))), broker).run()
    companion.eventually(lambda: companion.client.llen("queue:poured") == 2500, "2500 jobs")
    assert [json.loads(j)["args"][0] for j in companion.client.lrange("queue:poured", 0, -1)][::-1] == list(range(2500))
    assert not list(companion.client.scan_iter("swf:fanout*"))
    companion.client.delete("queue:poured")


def test_a_fan_out_that_waits_is_logged_once_and_keeps_no_other_back(companion: Site) -> None:
    client = companion.client
    client.set("queue:stuck", "text")
    for number in range(20):
        client.rpush(f"swf:fanout:{number}", "qstuck", "{}")
        client.zadd("swf:fanouts", {str(number): number})
    client.rpush("swf:fanout:good", "qpoured", "{}")
    client.zadd("swf:fanouts", {"good": 100})
    companion.eventually(lambda: client.llen("queue:poured") == 1, "the job of the last fan-out")
    client.rpush("swf:fanout:later", "qpoured", "{}")
    client.zadd("swf:fanouts", {"later": 101})
    companion.eventually(lambda: client.llen("queue:poured") == 2, "another beat")
    log = companion.workers[0].log.read_text(errors="replace")
    assert log.count('"queue:stuck" holds another type, so a fan-out waits') == 20
    client.delete("queue:stuck")
    companion.eventually(lambda: client.llen("queue:stuck") == 20, "what has waited")
    assert not client.exists("swf:fanouts")
    client.delete("queue:stuck", "queue:poured")


def test_a_dead_workers_jobs_come_back_and_a_poison_pill_does_not(companion: Site) -> None:
    barrier = str(uuid.uuid4())
    remaining = {"__type__": "chain", "children": [{"__type__": "job", "class": "Rb::Step", "args": []}]}
    of_run = {"workflow_run_id": str(uuid.uuid4()), "workflow_completion_callbacks": [[barrier, remaining, False]]}
    fine, pill, garbage = job(args=[uuid.uuid4().hex]), job(**of_run), b"\xff{no JSON"
    companion.client.set(barrier, 1, ex=5000)
    member = "gone:1:abcdef:ruby"
    companion.client.set(f"swf:recovered:{pill['jid']}", 2)
    companion.client.set(f"swf:recovered:{fingerprint(garbage)}", 2)
    flight: dict[Any, Any] = {"1:1": json.dumps(fine), "1:2": json.dumps(pill), "1:3": garbage}
    companion.client.hset(f"swf:inflight:{member}", mapping=flight)
    companion.client.zadd("swf:workers", {member: time.time() - 60})
    companion.eventually(lambda: dead(companion, pill["jid"]), "a dead poison pill")
    assert dead(companion, pill["jid"])["error_class"] == "PoisonPill"
    companion.eventually(
        lambda: companion.client.ttl(barrier) > 200 * 86_400, "a barrier that lives as long as its job"
    )
    wrapped = dead(companion, fingerprint(garbage))
    assert wrapped is not None
    assert base64.b64decode(wrapped["raw"]) == garbage
    companion.eventually(lambda: any(e["args"] == fine["args"] for e in companion.events()), "the other one's run")
    assert companion.client.zscore("swf:workers", member) is None


def test_a_suspect_is_tried(companion: Site) -> None:
    """A job that was at work in two workers that died runs again, beside no other of its kind."""
    client = companion.client
    again = [job(args=[uuid.uuid4().hex]) for _ in range(3)]
    for n, payload in enumerate(again):
        client.set(f"swf:recovered:{payload['jid']}", 1)
        client.hset("swf:inflight:gone:2:abcdef:ruby", f"{n + 1}:1", json.dumps(payload))
    client.zadd("swf:workers", {"gone:2:abcdef:ruby": time.time() - 60})
    ran = [payload["args"] for payload in again]
    companion.eventually(lambda: all(args in [e["args"] for e in companion.events()] for args in ran), "their runs")
    companion.eventually(lambda: not in_flight(companion), "an empty flight")
    assert client.zscore("swf:workers", "gone:2:abcdef:ruby") is None
    assert [client.get(f"swf:recovered:{payload['jid']}") for payload in again] == [b"2"] * 3


@pytest.mark.parametrize("receipt", ["fffff:1", "fffff:1!"])
def test_what_is_in_no_threads_hands_comes_back(companion: Site, receipt: str) -> None:
    """A fetch that was delivered late has left it in flight; or it was made a suspect while its worker stood still."""
    client, late = companion.client, job(args=[uuid.uuid4().hex])

    def members() -> list[str]:
        return [member for member in texts(client.zrange("swf:workers", 0, -1)) if member.endswith(":ruby")]

    [member] = companion.eventually(members, "its registration")
    client.hset(f"swf:inflight:{member}", receipt, json.dumps(late))
    companion.eventually(lambda: late["args"] in [e["args"] for e in companion.events()], "its run")
    companion.eventually(lambda: not in_flight(companion), "an empty flight")


def test_what_cannot_be_promoted_is_dead_and_not_in_the_way(companion: Site) -> None:
    fine, jid = job(args=[uuid.uuid4().hex]), uuid.uuid4().hex[:24]
    garbage = b"{\xfe no JSON"
    scheduled: dict[Any, float] = {garbage: 1, json.dumps({"class": 5, "jid": jid}): 2, json.dumps(fine): 3}
    companion.client.zadd("schedule", scheduled)
    companion.eventually(lambda: any(e["args"] == fine["args"] for e in companion.events()), "the good one's run")
    assert dead(companion, fingerprint(garbage))["error_class"] == "MalformedPayload"
    assert dead(companion, jid)["error_class"] == "InvalidPayload"
    assert companion.client.zcard("schedule") == 0


def test_stopped_it_hands_back_what_does_not_end(form: companions.Form, site: Site) -> None:
    sidekiq = worker(site, form)
    payloads = [job(args=[n, {"sleep": 60}]) for n in range(4)]
    site.client.lpush("queue:ruby", *map(json.dumps, payloads))
    site.eventually(lambda: len(in_flight(site)) == 3, "3 jobs at work")
    site.stop()
    assert sidekiq.process.returncode == 0
    left = [json.loads(member) for member in site.client.lrange("queue:ruby", 0, -1)]
    assert sorted(j["args"][0] for j in left) == [0, 1, 2, 3]
    # In the order they were taken: the one that nobody took is the last.
    assert left[0]["args"][0] == 3
    assert not in_flight(site)
    assert site.client.zcard("swf:workers") == 0


@pytest.mark.timeout(250)
@pytest.mark.parametrize("more", [[], ["--references", "0"]])
def test_soak(container: None, tmp_path: Path, more: list[str]) -> None:
    """Kills of both languages and a sick server; `make soak` is the same for longer."""
    options = ["--minutes", "0.3", "--columns", "companion", "--seed", "20261124"]
    assert soak([*options, "--logs", str(tmp_path), "--output", str(tmp_path / "soak.json"), *more]) == 0
