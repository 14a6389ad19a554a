"""Steps that are replaced, or wait, in runs that are paused, explained, fixed, or go on past dead steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import (
    Catch,
    Chain,
    Group,
    Job,
    MayFail,
    Replace,
    Runs,
    SidekiqBroker,
    WaitFor,
    Workflow,
    current_run,
)
from dramatiq_sidekiq_flow.runs import resting_runs
from dramatiq_sidekiq_flow.runs.doctor import Doctor
from dramatiq_sidekiq_flow.runs.run_keeper import RunKeeper
from dramatiq_sidekiq_flow.store import keys, run_pause
from dramatiq_sidekiq_flow.testing import FlowTest
from dramatiq_sidekiq_flow.web.step_page import StepQuery, step_page
from dramatiq_sidekiq_flow.workflow.engine_lookup import engine_of

from ..broken_runs import python_process
from ..redis_values import raws, texts
from ..running import eventually, members, working

HALF_A_YEAR = 180 * 86_400


@pytest.fixture
def flow(broker: SidekiqBroker) -> Iterator[FlowTest]:
    @dramatiq.actor(queue_name="python", broker=broker, retry=0)
    def step(name: str) -> None:
        if name.startswith("fails"):
            raise ValueError(f"{name} cannot")

    with FlowTest(broker) as flow:
        yield flow


def step(broker: SidekiqBroker, name: str) -> Any:
    return broker.get_actor("step").message(name)


def names(run: Any) -> list[Any]:
    return [step.args[0] for step in run.steps if step.done]


def approval(flow: FlowTest, *arguments: Any) -> Any:
    return Chain(WaitFor("approved", *arguments), step(flow.broker, "after"))


class Fetched:
    """A job that a worker has fetched, and its run, which is paused before the job ends."""

    def __init__(self, broker: SidekiqBroker, node: Any) -> None:
        self.broker = broker
        self.run_id = Workflow(node, broker).run()
        self.consumer = broker.consume("python", prefetch=1, timeout=2000)
        self.message: Any = next(self.consumer)

    def ends(self, output: Any = None) -> None:
        """Run its actor, pause the run, and end the job."""
        message = self.message
        self.broker.emit_before("process_message", message)
        result = self.broker.get_actor(message.actor_name)(*message.args)
        self.broker.emit_after("process_message", message, result=output or result)
        assert run_pause.pause(self.run_id, "").run(self.broker.connection) == "paused"
        self.consumer.ack(message)
        self.broker.process.commit.flush()

    def finish(self) -> None:
        """End the jobs of the run that are in the queue, one after another."""
        connection = self.broker.connection
        while connection.call("LLEN", "queue:python"):
            message: Any = next(self.consumer)
            self.consumer.ack(message)
            self.broker.process.commit.flush()


# -- pauses -----------------------------------------------------------------------------


def test_a_signal_during_a_pause_is_not_lost(flow: FlowTest) -> None:
    run_id = flow.run(approval(flow)).run_id
    runs = Runs(flow.broker)
    assert [step.state for step in runs.pause(run_id).steps] == ["parked", "pending"]
    assert flow.broker.connection.call("ZCARD", "schedule") == 0
    assert runs.signal(run_id, "approved", {"by": "Ada"})
    flow.drain()
    assert runs.get(run_id).state == "paused"
    runs.resume(run_id)
    run = flow.finish(run_id)
    assert (names(run), run.memory) == (["approved", "after"], {"approved": {"by": "Ada"}})


def test_without_a_signal_it_waits_on_until_the_same_time(flow: FlowTest) -> None:
    run_id = flow.run(approval(flow, 3_600_000)).run_id
    runs = Runs(flow.broker)
    before = runs.get(run_id).steps[0].due_at
    runs.pause(run_id)
    runs.resume(run_id)
    flow.drain()
    wait = runs.get(run_id).steps[0]
    assert (wait.state, wait.due_at) == ("signal", before)


def test_a_step_that_begins_to_wait_in_a_pause_is_parked(broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(queue_name="python", broker=broker)
    def after() -> None: ...

    job = Fetched(broker, Chain(WaitFor("go", 3_600_000), after.message()))
    job.ends()
    (parked,) = raws(client.lrange(keys.parked(job.run_id), 0, -1))
    assert parked.startswith(b"qpython\0{")
    assert (client.zcard("schedule"), client.exists(keys.waiting(job.run_id))) == (0, 0)
    barriers = [name for name in texts(client.keys("*")) if client.exists(f"{name}_ran")]
    kept = [*barriers, *(f"{name}_ran" for name in barriers), *texts(client.keys("swf:flow:*"))]
    assert [name for name in kept if client.ttl(name) < HALF_A_YEAR - 4000] == []
    runs = Runs(broker)
    assert runs.signal(job.run_id, "go")
    runs.resume(job.run_id)
    with working(broker):
        assert runs.wait(job.run_id, timeout=20_000).state == "done"


def test_a_signal_before_a_pause_lives_as_long_as_the_pause(flow: FlowTest) -> None:
    run_id = flow.run(approval(flow)).run_id
    flow.signal("other", run_id=run_id)
    call = flow.broker.connection.call
    call("EXPIRE", keys.run_signals(run_id), 100)
    Runs(flow.broker).pause(run_id)
    assert call("TTL", keys.run_signals(run_id)) > HALF_A_YEAR - 4000


@pytest.mark.parametrize("top", ["chain", "group"])
@pytest.mark.parametrize("held", [False, True], ids=["", "disarmed"])
def test_a_tree_is_parked_and_goes_on(broker: SidekiqBroker, client: redis.Redis, top: str, held: bool) -> None:
    @dramatiq.actor(queue_name="python", broker=broker)
    def one(name: str) -> None: ...

    node = one.message("it") if top == "chain" else Group(one.message("it"))
    job = Fetched(broker, Chain(node, one.message("after")))
    barriers = [callback.barrier for callback in job.message.payload.stack]
    run_pause.pause(job.run_id, "").run(broker.connection)
    if held:
        # As for a worker with the plain gem.
        assert run_pause.hold(broker.connection, job.run_id, dict.fromkeys(barriers, b"python\0{}")) == len(barriers)
    run_pause.unpause(job.run_id).run(broker.connection)
    job.ends(Replace(Group(one.message("a"), one.message("b"))))
    assert client.llen("queue:python") == 0
    parked = [entry.partition(b"\0") for entry in raws(client.lrange(keys.parked(job.run_id), 0, -1))]
    assert [(place, b'"a"' in payload or b'"b"' in payload) for place, _, payload in parked] == [(b"qpython", True)] * 2
    run = Runs(broker).get(job.run_id)
    assert [(step.number, step.state) for step in run.steps] == [
        *((1, "done"), (2, "pending"), (3, "parked"), (4, "parked")),
    ]
    if top == "chain":
        # The tree has another barrier.
        assert not client.exists(keys.disarmed(job.run_id))
    lives = [name for name in texts(client.keys("*")) if client.get(f"{name}_ran") in (b"-1", b"0") and len(name) == 36]
    short = [name for name in lives if client.ttl(name) < HALF_A_YEAR - 4000]
    assert short == ([barriers[0]] if top == "chain" else [])
    Runs(broker).resume(job.run_id)
    job.finish()
    assert Runs(broker).get(job.run_id).state == "done"
    assert sorted(texts(client.hkeys(keys.step_times(job.run_id)))) == ["0", "1", "2", "3", "4"]


# -- steps that may fail -----------------------------------------------------------------


def test_a_step_that_waits_in_vain_may_fail(flow: FlowTest) -> None:
    caught = Catch(WaitFor("a", 0), step(flow.broker, "instead"))
    run_id = flow.run(Chain(MayFail(WaitFor("b", 0)), caught, step(flow.broker, "after"))).run_id
    run = Runs(flow.broker).get(run_id)
    assert (run.state, [step.state for step in run.steps]) == ("done", ["dead", "dead", "done", "done"])
    assert {(step.error or "").partition(":")[0] for step in run.failures} == {"SignalTimeout"}


def test_a_step_of_a_tree_may_fail(flow: FlowTest) -> None:
    """Its numbers add up, though the fallbacks that do not run were counted later than those of the run."""
    broker = flow.broker
    tree = Chain(
        Catch(step(broker, "fails"), step(broker, "instead")),
        Catch(step(broker, "lives"), Group(step(broker, "x"), step(broker, "y"))),
        MayFail(step(broker, "fails too")),
    )

    @dramatiq.actor(queue_name="python", broker=broker)
    def grow(name: str) -> Any:
        return Replace(tree)

    run_id = flow.run(Chain(Catch(grow.message("it"), step(broker, "z")), step(broker, "after"))).run_id
    run = Runs(broker).get(run_id)
    states = {step.args: step.state for step in run.steps}
    skipped = dict.fromkeys(("'x'", "'y'", "'z'"), "skipped")
    lives = dict.fromkeys(("'it'", "'instead'", "'lives'", "'after'"), "done")
    assert states == {**skipped, **lives, "'fails'": "dead", "'fails too'": "dead"}
    assert (run.state, run.progress.total, run.progress.done, run.progress.failed) == ("done", 6, 4, 2)
    (listed,) = Runs(broker).list()
    assert (listed.progress.total, listed.progress.done) == (6, 4)
    # Below the step: its fallback, then the tree.
    assert {step.args: step.path for step in run.steps if step.args in ("'z'", "'fails'")} == {
        "'z'": "1.1",
        "'fails'": "1.2.1",
    }


def test_a_step_with_a_fallback_is_shown_with_its_tree(flow: FlowTest) -> None:
    broker = flow.broker

    @dramatiq.actor(queue_name="python", broker=broker)
    def grow(name: str) -> Any:
        return Replace(Chain(step(broker, "b"), WaitFor("go")))

    run_id = flow.run(Chain(Catch(grow.message("a"), step(broker, "z")), step(broker, "after"))).run_id
    run = Runs(broker).get(run_id)
    # The fallback leads to what follows, and not to the tree.
    assert [line.strip() for line in run.mermaid().splitlines() if ">" in line] == [
        *("s1 -. dead .-> s2", "s3 --> s4", "s1 --> s3", "s4 & s2 --> s5"),
    ]
    assert [line.split()[:2] for line in str(run).splitlines() if line[:1] in "+/~."] == [
        *(["+", "1"], ["/", "2"], ["+", "4"], ["~", "5"], [".", "3"]),
    ]
    rows = {state: [step.number for step in step_page(run, StepQuery(state)).steps] for state in ("", "done", "signal")}
    assert rows == {"": [1, 2, 3, 4, 5], "done": [1, 4], "signal": [5]}
    waiting = Runs(broker).explain(run_id).findings[-1]
    assert (waiting.numbers, waiting.why) == ((3,), "Its turn comes after steps from 1 on, of which 2 of 3 are done.")


# -- callbacks of runs -------------------------------------------------------------------


@pytest.mark.parametrize("how", ["returns", "calls"])
def test_a_callback_of_a_run_is_not_replaced(flow: FlowTest, how: str) -> None:
    @dramatiq.actor(queue_name="python", broker=flow.broker, max_retries=0)
    def call(how: str, about: Any = None) -> Any:
        if how == "returns":
            return Replace(step(flow.broker, "never"))
        return current_run().add(step(flow.broker, "never"))

    workflow = Workflow(step(flow.broker, "one"), flow.broker, on_complete=call.message(how))
    run_id = flow.run(workflow).run_id
    flow.drain()
    (dead,) = raws(flow.broker.connection.call("ZRANGE", "dead", 0, -1))
    assert b"ConfigurationError" in dead
    assert b"A callback of a run is not a step" in dead
    assert Runs(flow.broker).get(run_id).progress.total == 1


def test_a_failed_run_does_not_rest_while_a_step_waits(flow: FlowTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting_runs, "FIRST", 0.0)
    tree = Group(step(flow.broker, "fails"), WaitFor("go"))
    workflow = Workflow(tree, flow.broker, on_complete=Job("Tell", queue="calls"))
    told: list[Any] = []
    flow.ruby("Tell", told.append)
    run_id = flow.run(workflow).run_id
    keeper, call = RunKeeper(engine_of(flow.broker), is_elsewhere=False), flow.broker.connection.call
    keeper.keep()
    assert (Runs(flow.broker).get(run_id).state, call("LLEN", "queue:calls"), told) == ("failed", 0, [])
    flow.signal("go")
    flow.drain()
    assert [each["state"] for each in told] == ["failed"]


# -- explanations and fixes ---------------------------------------------------------------


def test_an_explanation_names_the_signal(flow: FlowTest) -> None:
    run_id = flow.run(Chain(WaitFor("it's ready"), step(flow.broker, "after"))).run_id
    explanation = Runs(flow.broker).explain(run_id)
    first, second = explanation.findings
    assert (explanation.verdict, first.cause, first.outlook, second.cause) == (
        *("waiting", "signal", "waits", "after_others"),
    )
    assert first.why.startswith('It waits for the signal "it\'s ready".')
    assert first.cures[0] == f"""sidekiq-flow runs signal {run_id} 'it'"'"'s ready'"""
    assert "step 1 'wait for it\\'s ready'" in second.why or 'step 1 "wait for it\'s ready"' in second.why
    assert first.due is not None
    assert list(Doctor(Runs(flow.broker)).examine()) == []


def test_a_step_that_waits_needs_no_actor(broker: SidekiqBroker, client: redis.Redis) -> None:
    python_process(client, "python", actors=("step",))
    Workflow(WaitFor("go", queue="python"), broker).run("run")
    assert [finding.cause for finding in Runs(broker).explain("run").findings] == ["queued"]


def test_a_cancelled_run_keeps_no_signals(flow: FlowTest) -> None:
    run_id = flow.run(approval(flow)).run_id
    flow.signal("other", run_id=run_id)
    call = flow.broker.connection.call
    assert call("EXISTS", keys.run_signals(run_id), keys.waiting(run_id)) == 2
    Runs(flow.broker).cancel(run_id)
    assert call("EXISTS", keys.run_signals(run_id), keys.waiting(run_id)) == 0


def test_steps_of_a_tree_are_released(broker: SidekiqBroker, client: redis.Redis) -> None:
    """The barriers are gone, and the numbers of the added steps are not their positions."""
    log: list[str] = []

    @dramatiq.actor(queue_name="python", broker=broker, retry=0)
    def one(name: str) -> None:
        log.append(name)

    Workflow(Chain(Group(one.message("it"), one.message("beside")), one.message("after")), broker).run("run")
    message: Any = next(broker.consume("python", prefetch=1, timeout=2000))
    log.append("it")
    message.output = Replace(Chain(Group(one.message("a"), one.message("b"), one.message("d")), one.message("c")))
    broker.consume("python").ack(message)
    for key in raws(client.keys("*_ran")):
        client.delete(key, key.removesuffix(b"_ran"), key.removesuffix(b"_ran") + b":u")
    doctor = Doctor(Runs(broker))
    with working(broker):
        eventually(lambda: client.zcard("dead") == 4)
        (found,) = doctor.examine()
        assert [action.outcome for action in doctor.fix(found, "release", dry=False)] == ["done"] * 4
        eventually(lambda: Runs(broker).get("run").state == "done")
    assert sorted(log) == ["a", "after", "b", "beside", "c", "d", "it"]
    assert (log[-1], members(client, "dead")) == ("after", [])
    assert log.index("c") > max(map(log.index, ("a", "b", "d")))
