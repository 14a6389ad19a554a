"""Runs whose last step Ruby with the plain gem runs: a job on a Python queue ends them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Catch, Chain, Group, Job, Replace, Runs, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.wire.wait_for import WaitFor

from ..redis_values import texts
from ..running import advance, eventually, members, working
from ..sweep.judge import at_rest

RUBY = Job("R", 1, queue="ruby")


@pytest.fixture
def steps(broker: SidekiqBroker) -> dict[str, Any]:
    """The actors by name, and the states that the callbacks were told."""

    @dramatiq.actor(queue_name="python", max_retries=0, broker=broker)
    def step() -> None:
        pass

    @dramatiq.actor(queue_name="python", max_retries=0, broker=broker)
    def replaced() -> Replace:
        return Replace(Chain(step.message(), Group(RUBY, step.message())))

    @dramatiq.actor(queue_name="python", max_retries=0, broker=broker)
    def fails() -> None:
        raise ValueError

    told: list[str] = []

    @dramatiq.actor(queue_name="python", broker=broker)
    def tell(run: dict[str, Any] | None = None) -> None:
        assert run is not None
        told.append(run["state"])

    return {actor.actor_name: actor for actor in (step, replaced, fails, tell)} | {"told": told}


def as_plain_ruby(client: redis.Redis) -> bool:
    """Perform a job of the queue ``ruby`` as the plain gem does; return False if there is none."""
    raw: Any = client.rpop("queue:ruby")
    if raw is None:
        return False
    job = json.loads(raw)
    stack = job.get("workflow_completion_callbacks", [])
    while stack:
        barrier, remaining, _ = stack.pop()
        left: Any = client.decr(barrier)
        if left > 0:
            return True
        client.set(f"{barrier}_ran", 0, ex=60)
        if remaining is not None:
            child, *rest = remaining["children"]
            if rest:
                # The barrier of the chain has released, and nothing else needs it.
                client.mset({barrier: 1, f"{barrier}_ran": -1})
                stack.append([barrier, {"__type__": "chain", "children": rest}, False])
            pushed = {**child, "jid": uuid.uuid4().hex[:24], "workflow_run_id": job["workflow_run_id"]}
            pushed |= {"workflow_completion_callbacks": stack} if stack else {}
            del pushed["__type__"]
            client.lpush(f"queue:{child['queue']}", json.dumps(pushed))
            return True
    return True


def work_off(broker: SidekiqBroker, client: redis.Redis) -> None:
    """Let Python and plain Ruby work until nothing is left."""

    def rests() -> bool:
        return not as_plain_ruby(client) and at_rest(client)

    with working(broker):
        eventually(lambda: rests() and rests())


Tree = Callable[[dict[str, Any]], Any]

#: Trees of which a last step may be Ruby's, and one of which none is.
TREES: dict[str, Tree] = {
    "ruby": lambda s: RUBY,
    "chain": lambda s: Chain(s["step"].message(), RUBY),
    "group": lambda s: Chain(s["step"].message(), Group(RUBY, s["step"].message(), Chain(s["step"].message(), RUBY))),
    "fallback": lambda s: Chain(RUBY, Catch(s["fails"].message(), RUBY)),
    "replaced": lambda s: Chain(RUBY, s["replaced"].message()),
    "replaced in a group": lambda s: Group(s["replaced"].message(), RUBY, s["replaced"].message()),
    "replaced in a last group": lambda s: Group(s["replaced"].message(), s["replaced"].message()),
    "otherwise": lambda s: WaitFor("never", 0, RUBY, queue="python"),
    "python": lambda s: Chain(RUBY, s["step"].message()),
}


@pytest.mark.parametrize(("tree", "last"), [*((tree, None) for tree in TREES.values()), (TREES["python"], RUBY)])
def test_the_run_ends(broker: SidekiqBroker, client: redis.Redis, steps: dict[str, Any], tree: Tree, last: str) -> None:
    run_id = Workflow(
        tree(steps), on_complete=steps["tell"].message(), unique_key="one", deadline=600_000, on_success=last
    ).run()
    work_off(broker, client)
    run = Runs(broker).wait(run_id, timeout=20_000)
    assert (run.state, run.inferred) == ("done", False)
    assert run.progress.done + run.progress.failed == run.progress.total == len(run.steps)
    assert not any("end" in step.name for step in run.steps)
    # No step has the times of the job that ends the run.
    numbers = {int(number) for number in texts(client.hkeys(f"swf:flow:{run_id}:times"))} - {0}
    assert numbers == {step.number for step in run.steps if not step.inferred and step.state == "done"}
    assert steps["told"] == ["done"]
    assert not client.exists("swf:unique:one", "swf:deadlines")
    assert [each.id for each in Runs(broker).list(state="done")] == [run_id]


def test_a_run_whose_end_waits_for_a_worker(broker: SidekiqBroker, client: redis.Redis, steps: dict[str, Any]) -> None:
    run_id = Workflow(Chain(steps["step"].message(), Group(RUBY, RUBY)), unique_key="one").run()
    advance(broker)
    assert Runs(broker).get(run_id).progress.waiting == 2
    assert as_plain_ruby(client)
    assert as_plain_ruby(client)
    (job,) = members(client, "python")
    assert (job["class"], job["display_class"], job["swf_step"]) == ("Sidekiq::Workflow::NoopWorker", "end of run", 0)
    assert client.hget(f"swf:flow:{run_id}", "end") == b"python"
    run = Runs(broker).get(run_id)
    assert (run.state, run.inferred, run.progress.done, run.progress.total) == ("running", False, 3, 3)
    assert "end of run" not in str(run)
    (finding,) = Runs(broker).explain(run_id).findings
    assert (finding.name, finding.cause, finding.numbers) == ("end of run", "queued", ())
    assert finding.why.startswith(
        "The steps are done; the end of the run is recorded when a Python worker serves queue"
    )
    # Its job is lost, so the run cannot end.
    client.delete("queue:python")
    run = Runs(broker).get(run_id)
    assert (run.state, run.progress.done) == ("stuck", 1)


def test_a_member_in_python_gives_it_no_number(
    broker: SidekiqBroker, client: redis.Redis, steps: dict[str, Any]
) -> None:
    """The last member of a group pushes it."""
    run_id = Workflow(Group(RUBY, steps["step"].message())).run()
    assert as_plain_ruby(client)
    advance(broker)
    assert [job["swf_step"] for job in members(client, "python")] == [0]
    advance(broker)
    assert texts(client.hkeys(f"swf:flow:{run_id}:times")) == ["0", "2"]
    assert client.hget(f"swf:flow:{run_id}", "state") == b"done"


def test_without_a_record_or_a_queue_there_is_none(redis_url: str, client: redis.Redis) -> None:
    for records in (True, False):
        broker = SidekiqBroker(url=redis_url)
        broker.add_middleware(WorkflowMiddleware(records=records))
        run_id = Workflow(RUBY, broker).run()
        if not records:
            broker.declare_queue("python")
            Workflow(RUBY, broker).run()
        assert not client.hexists(f"swf:flow:{run_id}", "end")
        assert not any("workflow_completion_callbacks" in job for job in members(client, "ruby"))
        broker.close()


def test_a_worker_elsewhere_ends_the_run(broker: SidekiqBroker, client: redis.Redis) -> None:
    """Of a program without actors."""
    client.zadd("swf:workers", {"host:1:abc:far": time.time()})
    run_id = Workflow(RUBY).run()
    assert client.hget(f"swf:flow:{run_id}", "end") == b"far"
