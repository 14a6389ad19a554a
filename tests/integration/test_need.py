"""Groups that need some of their members: members that are late or dead, carriers, and what is shown of them."""

from __future__ import annotations

import json
import time
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    Job,
    MayFail,
    Namespace,
    RedisCallbackStorage,
    RedisHashMemory,
    Replace,
    Runs,
    SidekiqBroker,
    Workflow,
    WorkflowMiddleware,
)
from dramatiq_sidekiq_flow.errors import ConfigurationError, InvalidWorkflow
from dramatiq_sidekiq_flow.runs.remedies import Remedies
from dramatiq_sidekiq_flow.store import group_steps
from dramatiq_sidekiq_flow.store.connection import Connection
from dramatiq_sidekiq_flow.store.group_steps import GroupStep, StepGroup
from dramatiq_sidekiq_flow.store.runs import NO_MEMORY
from dramatiq_sidekiq_flow.testing import FlowTest

from .. import operations
from ..broken_runs import python_process
from ..operations import ME, MINE, NEED_STACK, NEEDING, TTL
from ..redis_values import raws
from ..running import eventually, in_flight, members, working
from .test_pluggable import SetBarrier


@pytest.fixture
def log() -> list[Any]:
    return []


@pytest.fixture
def ok(broker: SidekiqBroker, log: list[Any]) -> Any:
    @dramatiq.actor(queue_name="python", broker=broker)
    def ok(name: Any, run: Any = None) -> Any:
        log.append(name)
        return {f"of {name}": 1}

    return ok


@pytest.fixture
def bad(broker: SidekiqBroker) -> Any:
    @dramatiq.actor(queue_name="python", max_retries=0, broker=broker)
    def bad(name: Any) -> None:
        raise ValueError("no")

    return bad


@pytest.fixture
def grows(broker: SidekiqBroker, log: list[Any]) -> Any:
    @dramatiq.actor(queue_name="python", broker=broker)
    def grows(name: Any) -> Any:
        return Replace(Group(Job("ok", f"{name} 1"), Job("ok", f"{name} 2")))

    return grows


def work(broker: SidekiqBroker) -> None:
    with working(broker):
        broker.join("python")


def elsewhere(actor: Any, name: Any) -> Job:
    """A step on a queue that is not worked on."""
    return Job(actor.actor_name, name, queue="slow", retry=actor.options.get("max_retries", True))


def bring(client: redis.Redis, *, times: int = 1) -> None:
    """Bring the jobs of the queue ``slow`` to a worker, so often."""
    for raw in raws(client.lrange("queue:slow", 0, -1)):
        client.lpush("queue:python", *[raw] * times)
    client.delete("queue:slow")


def look_at_dead(broker: SidekiqBroker, client: redis.Redis) -> None:
    """The keeper's look, without its interval."""
    for member in raws(client.zrange("dead", 0, -1)):
        broker.process.heartbeat.upkeep.handle(member)


def test_members_that_are_late_go_on_to_their_end(
    broker: SidekiqBroker, client: redis.Redis, ok: Any, grows: Any, log: list[Any]
) -> None:
    """Also if they are delivered twice, replaced by trees, and long after the barrier has expired."""
    late = Chain(elsewhere(ok, "late"), ok.message("later"))
    replaced = elsewhere(grows, "grown")
    nested = Group(elsewhere(ok, "n1"), elsewhere(ok, "n2"))
    run_id = Workflow(Chain(Group(late, ok.message("a"), replaced, nested, need=1), ok.message("b"))).run()
    work(broker)
    run = Runs(broker).get(run_id)
    assert (log, run.state) == (["a", "b"], "done")
    states = [step.state for step in run.steps]
    assert states == ["queued", "pending", "done", "queued", "queued", "queued", "done"]
    assert (run.progress.done, run.progress.waiting) == (2, 4)
    (listed,) = Runs(broker).list()
    assert listed.state == "done"
    for barrier in raws(client.keys("0*-8*")):
        client.delete(barrier)
    bring(client, times=2)
    work(broker)
    assert sorted(set(log)) == ["a", "b", "grown 1", "grown 2", "late", "later", "n1", "n2"]
    assert log.count("grown 1") == log.count("later") == log.count("b") == 1
    assert not in_flight(client)
    assert not client.exists("dead")
    run = Runs(broker).get(run_id)
    assert (run.state, run.progress.done, run.progress.total) == ("done", 9, 9)
    assert set(run.memory) == {f"of {name}" for name in log}
    assert all(client.ttl(key) > 0 for key in raws(client.keys("0*-8*")))


def test_many_late_members_at_once(connection: Connection, client: redis.Redis) -> None:
    """The barrier has expired, or waits no more; a member is noted, and counts nothing."""
    members = StepGroup(NEED_STACK, TTL, NO_MEMORY)
    steps = [GroupStep(members, f"a:{n}", unit, {}) for n, unit in enumerate(("a", "b", "a"), 1)]
    for marker in (None, 0):
        client.delete(f"{NEEDING}:u")
        if marker is not None:
            client.set(NEEDING, 0, ex=TTL)
            client.set(f"{NEEDING}_ran", marker, ex=TTL)
        client.hset(MINE, mapping={step.receipt: "job" for step in steps})
        assert group_steps.advance(ME, steps).run(connection) == []
        assert not client.exists(MINE)
        assert client.smembers(f"{NEEDING}:u") == {b"a", b"b"}
        assert client.get(NEEDING) == (None if marker is None else b"0")
        assert client.ttl(f"{NEEDING}:u") > 0


def test_a_death_counts_when_the_others_are_too_few(
    broker: SidekiqBroker, client: redis.Redis, ok: Any, bad: Any, log: list[Any]
) -> None:
    """Deaths that a person or plain Ruby caused are found by the keeper; a member with two of them is one."""
    twice_dead = Chain(Group(bad.message(1), elsewhere(bad, 2)), ok.message("x"))
    group = Group(twice_dead, elsewhere(bad, 3), elsewhere(ok, "y"), ok.message("z"), need=3)
    run_id = Workflow(Chain(group, ok.message("end")), on_failure=ok.message("called")).run()
    work(broker)
    states = [Runs(broker).get(run_id).state]
    second, third, y = raws(client.lrange("queue:slow", 0, -1))[::-1]
    client.delete("queue:slow")
    client.zadd("dead", {second: time.time()})
    look_at_dead(broker, client)
    states.append(Runs(broker).list()[0].state)
    client.zadd("dead", {third: time.time()})
    assert Runs(broker).get(run_id).state == "waiting"
    look_at_dead(broker, client)
    look_at_dead(broker, client)
    states += [Runs(broker).get(run_id).state, Runs(broker).list()[0].state]
    assert states == ["running", "running", "failed", "failed"]
    assert members(client, "python")[0]["swf_callback"] == "failure"
    for job in members(client, "dead"):
        if job["args"] != [3]:
            client.zrem("dead", *(raw for raw in raws(client.zrange("dead", 0, -1)) if job["jid"].encode() in raw))
            client.lpush("queue:python", json.dumps({**job, "class": "ok", "retry_count": 0}))
    work(broker)
    assert Runs(broker).list()[0].state == "running"
    client.lpush("queue:python", y)
    work(broker)
    run = Runs(broker).get(run_id)
    assert (run.state, [step.number for step in run.failures]) == ("done", [4])
    assert sorted(name for name in map(str, log)) == ["1", "2", "called", "end", "x", "y", "z"]


def test_a_spared_death_that_was_mended_hides_no_other(
    broker: SidekiqBroker, client: redis.Redis, ok: Any, log: list[Any]
) -> None:
    @dramatiq.actor(queue_name="python", max_retries=0, broker=broker)
    def once(name: str) -> None:
        log.append(name)
        if log.count(name) == 1:
            raise ValueError("no")

    def retried(name: str) -> str:
        """The recorded state after a person has retried a step."""
        (raw,) = (raw for raw in raws(client.zrange("dead", 0, -1)) if json.loads(raw)["args"] == [name])
        client.zrem("dead", raw)
        client.lpush("queue:python", raw)
        work(broker)
        return Runs(broker).list()[0].state

    Workflow(Group(Group(once.message("a"), elsewhere(ok, "b"), need=1), once.message("c"), once.message("d"))).run()
    work(broker)
    assert [retried(name) for name in ("a", "c", "d")] == ["failed", "failed", "done"]


def test_the_death_of_a_late_member_stops_nothing(connection: Connection, client: redis.Redis) -> None:
    """Also if more members are counted as dead than may be: plain Ruby does not count a retry."""
    operations.met(client)
    operations.fail_needed(connection)
    assert client.hget(operations.RECORD, "state") == b"running"
    (failure,) = raws([client.hget(f"{operations.RECORD}:failed", "7")])
    assert failure.endswith(b',"spared":true}')


def carrier(broker: SidekiqBroker, tree: Any) -> dict[str, Any]:
    """The job of a group that the plain gem has pushed, in the middle of a run."""
    workflow = Workflow(Chain(Job("Rb::Step", queue="ruby", retry=0), tree, Job("ok", "end")), broker)
    run_id = workflow.run()
    return {"workflow_run_id": run_id, **workflow.wire["children"][1]}


def test_a_worker_starts_the_group_that_ruby_has_pushed(
    broker: SidekiqBroker, client: redis.Redis, ok: Any, log: list[Any]
) -> None:
    """Once, with the numbers of its steps."""
    inner = Group(ok.message("b"), elsewhere(ok, "c"), need=1)
    node = carrier(broker, Group(elsewhere(ok, "a"), inner, need=1))
    (first,) = members(client, "ruby")
    (barrier, rest, _), *_ = first["workflow_completion_callbacks"]
    assert rest["children"][0]["wrapped"] == "group needing 1"
    following = {"__type__": "chain", "children": rest["children"][1:]}
    del node["__type__"]
    job = {**node, "jid": "0" * 24, "workflow_completion_callbacks": [[barrier, following, False]]}
    client.delete("queue:ruby")
    for key in (barrier, f"{barrier}_ran"):
        client.expire(key, TTL)
    client.sadd("queues", "python")
    client.lpush("queue:python", *[json.dumps(job)] * 2)
    run_id = job["workflow_run_id"]
    assert Runs(broker).get(run_id).state == "running"
    work(broker)
    assert sorted(log) == ["b", "end"]
    run = Runs(broker).get(run_id)
    assert [step.state for step in run.steps] == ["done", "queued", "done", "queued", "done"]
    assert run.state == "done"
    bring(client)
    work(broker)
    assert sorted(log) == ["a", "b", "c", "end"]
    assert not client.exists("dead")


def test_the_carrier_of_a_group_is_no_unknown_actor(broker: SidekiqBroker, client: redis.Redis, ok: Any) -> None:
    job = carrier(broker, Group(ok.message(1), ok.message(2), need=1))
    python_process(client, "python", actors=("ok",))
    client.delete("queue:ruby")
    client.sadd("queues", "python")
    client.lpush("queue:python", json.dumps({**job, "jid": "c" * 24}))
    found = Runs(broker).explain(job["workflow_run_id"])
    assert "group needing 1" in str(found)
    assert "unknown_actor" not in {finding.cause for finding in found.findings}


def test_a_carrier_without_a_group_is_dead(broker: SidekiqBroker, client: redis.Redis) -> None:
    job = {"class": "Sidekiq::Workflow::NoopWorker", "wrapped": "group needing 1", "args": [1], "jid": "0" * 24}
    client.lpush("queue:python", json.dumps({**job, "queue": "python", "retry": 0, "workflow_run_id": "r"}))
    broker.declare_queue("python")
    work(broker)
    (dead,) = members(client, "dead")
    assert dead["error_class"] == "InvalidPayload"


@pytest.mark.parametrize("need", [0, 3, -1, True, 1.0, "1"])
def test_a_group_cannot_need_any_number(ok: Any, need: Any) -> None:
    with pytest.raises(InvalidWorkflow, match="from 1 to 2 here"):
        Group(ok.message(1), ok.message(2), need=need)


def test_what_cannot_have_such_a_group(redis_url: str, ok: Any) -> None:
    assert Group(ok.message(1), ok.message(2), need=2).need is None
    assert repr(Group(Job("A"), Job("B"), need=1)) == "Group(Job('A'), Job('B'), need=1)"
    with pytest.raises(InvalidWorkflow, match="must have a step"):
        Workflow(Group(ok.message(1), Chain(), need=1))
    with pytest.raises(InvalidWorkflow, match="wrap each of its steps"):
        Workflow(MayFail(Group(ok.message(1), ok.message(2), need=1)))
    own = SidekiqBroker(url=redis_url)
    own.add_middleware(WorkflowMiddleware(barriers=SetBarrier()))
    with pytest.raises(ConfigurationError, match="without barriers of your own"):
        Workflow(Group(Job("A"), Job("B"), need=1), own)
    own.close()


def test_it_is_shown(broker: SidekiqBroker, client: redis.Redis, ok: Any, bad: Any) -> None:
    tree = Chain(Namespace("n", Group(ok.message(1), elsewhere(ok, 2), *map(bad.message, [3]), need=2)), ok.message(4))
    workflow = Workflow(tree)
    assert str(workflow).splitlines()[:3] == ["chain", "  group, 2 of 3 needed", "    ok(1) in python"]
    assert 'n1(["2 of 3"])' in workflow.mermaid()
    run_id = workflow.run()
    work(broker)
    run = Runs(broker).get(run_id)
    assert "group, 2 of 3 needed" in str(run)
    assert 'n1(["2 of 3"])' in run.mermaid()
    assert (run.state, run.progress.failed) == ("running", 1)
    text = str(Runs(broker).explain(run_id))
    assert "2 of the 3 members of the group of steps 1 to 3 are done; 1 so far" in " ".join(text.split())
    bring(client)
    work(broker)
    assert "n.of 2" in Runs(broker).get(run_id).memory


@pytest.mark.parametrize("options", [{"callback_storage": RedisCallbackStorage(min_bytes=1)}, {"records": False}, {}])
def test_large_trees_with_such_groups(redis_url: str, options: dict[str, Any]) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(), **options))
    with FlowTest(broker, seed=3) as flow:

        @dramatiq.actor(queue_name="python", max_retries=0, broker=broker)
        def step(text: str, dies: bool = False) -> None:
            if dies:
                raise ValueError("no")

        text = "x" * 300
        some = [Group(step.message(text), step.message(text, True), step.message(text), need=2) for _ in range(8)]
        run = flow.run(Chain(step.message(text), *some, step.message(text)))
        flow.assert_order(run)
        assert (len(run.order), len(run.failed)) == (18, 8)
        folded = flow.run(Chain(Group(*(step.message(text, n % 2 > 0) for n in range(1100)), need=500)))
        assert (len(folded.order), len(folded.failed)) == (550, 550)
        if "records" not in options:
            shown = Runs(broker).get(folded.run_id)
            assert (shown.state, shown.progress.done, shown.progress.failed) == ("done", 550, 550)
    broker.close()


def test_a_paused_run_starts_no_group_until_it_goes_on(
    broker: SidekiqBroker, client: redis.Redis, ok: Any, log: list[Any]
) -> None:
    runs = Runs(broker)
    run_id = Workflow(Group(Chain(ok.message("a"), ok.message("a2")), elsewhere(ok, "b"), need=1)).run()
    runs.pause(run_id)
    work(broker)
    assert log == []
    runs.resume(run_id)
    with working(broker):
        eventually(lambda: runs.get(run_id).state == "done")
    assert log == ["a", "a2"]
    bring(client)
    work(broker)
    assert log[-1] == "b"


def test_a_member_that_counted_is_not_late(
    broker: SidekiqBroker, client: redis.Redis, ok: Any, grows: Any, log: list[Any]
) -> None:
    """It was replaced by a tree, with which the group was met, and comes again: no second tree starts."""
    run_id = Workflow(Group(grows.message("b"), elsewhere(grows, "c"), Chain(elsewhere(ok, "d")), need=1)).run()
    (again,) = raws(client.lrange("queue:python", 0, -1))
    work(broker)
    client.lpush("queue:python", again)
    work(broker)
    barrier = json.loads(again)["workflow_completion_callbacks"][0][0]
    assert client.get(barrier) == b"0"
    assert sorted(log) == ["b 1", "b 2"]
    bring(client, times=2)
    work(broker)
    # A step that is replaced is counted, and so is the tree in its place.
    assert len(client.smembers(f"{barrier}:u")) == 5
    assert sorted(set(log)) == ["b 1", "b 2", "c 1", "c 2", "d"]
    assert log.count("c 1") == 1
    assert Runs(broker).get(run_id).progress.done == 7


def test_a_step_is_released_in_a_group_whose_barrier_is_gone(
    broker: SidekiqBroker, client: redis.Redis, ok: Any, bad: Any, log: list[Any]
) -> None:
    """The barrier is made again for the members that are still needed, unless the group was met."""
    group = Group(bad.message(1), bad.message(2), elsewhere(ok, "a"), elsewhere(ok, "b"), need=2)
    run_id = Workflow(Chain(group, ok.message("end"))).run()
    work(broker)
    (barrier,) = (key for key in raws(client.keys("0*-8*")) if len(key) == 36)
    client.delete(barrier)
    view = Runs(broker)._reader.view(run_id, thorough=True)
    remedies = Remedies(broker.completion.engine, view)  # type: ignore[union-attr]
    step = Runs(broker).get(run_id).steps[0]
    act = remedies.of("release", step).act
    assert act is not None
    act()
    assert client.get(barrier) == b"2"
    bring(client)
    work(broker)
    assert sorted(log)[-1] == "end"
    assert Runs(broker).get(run_id).state == "done"
