"""Workflows that run: order, memory, duplicates, and barriers that are gone."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.stub import StubBroker

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    Job,
    RedisHashMemory,
    RubyJob,
    SidekiqBroker,
    WithDelay,
    Workflow,
    WorkflowMiddleware,
    current_run,
    find_current_run,
)
from dramatiq_sidekiq_flow.broker import SidekiqMessage
from dramatiq_sidekiq_flow.errors import (
    ConfigurationError,
    InvalidArguments,
    InvalidNode,
    InvalidWorkflow,
    NoCurrentRun,
)
from dramatiq_sidekiq_flow.store import runs

from ..redis_values import as_bytes, raws
from ..running import eventually, in_flight, members, working


@pytest.fixture
def log() -> list[Any]:
    return []


@pytest.fixture
def step(broker: SidekiqBroker, log: list[Any]) -> Any:
    @dramatiq.actor(queue_name="python")
    def step(name: str) -> dict[str, Any]:
        log.append(name)
        return {name: {"by": "python", "seen": len(log)}}

    return step


def take(broker: SidekiqBroker, queue: str = "python", prefetch: int = 1) -> SidekiqMessage:
    """The next job of a queue, in flight."""
    message = next(broker.consume(queue, prefetch=prefetch, timeout=1000))
    assert message is not None
    return message


def finish(broker: SidekiqBroker, message: SidekiqMessage, output: Any = None) -> None:
    message.output = output
    broker.consume(message.queue_name, prefetch=1).ack(message)


def test_a_workflow_runs_in_order(broker: SidekiqBroker, client: redis.Redis, step: Any, log: list[Any]) -> None:
    tree = Chain(
        step.message("a"),
        Group(step.message("b"), Chain(step.message("c"), step.message("d")), Group()),
        WithDelay(Chain(), delay=30),
        WithDelay(step.message("e"), delay=30),
    )
    run_id = Workflow(tree).run()
    with working(broker):
        eventually(lambda: "e" in log)
        broker.join("python", timeout=10_000)
    assert log[0] == "a"
    assert log[-1] == "e"
    assert log.index("c") < log.index("d")
    assert sorted(log) == ["a", "b", "c", "d", "e"]
    memory = RedisHashMemory()
    memory.bind(broker.connection)
    assert memory.read(run_id).keys() == {"a", "b", "c", "d", "e"}
    assert memory.read(run_id, ["e", "nothing"]) == {"e": {"by": "python", "seen": 5}}
    memory.clear(run_id)
    assert memory.read(run_id) == {}
    # Everything that a run leaves behind expires.
    assert [
        key
        for key in client.keys()
        if client.ttl(key) < 0 and key not in (b"queues", b"stat:processed", b"stat:failed")
    ] == []


def test_the_same_run_id_starts_once(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    workflow = Workflow(Group(step.message("a"), step.message("b")))
    run_id = workflow.run()
    assert workflow.run(run_id) == run_id
    assert client.llen("queue:python") == 2


def test_the_current_run_is_known(broker: SidekiqBroker) -> None:
    seen: list[Any] = []

    @dramatiq.actor(queue_name="python")
    def look() -> None:
        run = current_run()
        run.memory.write({"n": len(run.memory.read())})
        seen.append((run.run_id, run.depth, run.memory.read("n")))

    @dramatiq.actor(queue_name="python")
    def alone() -> None:
        with pytest.raises(NoCurrentRun, match="find_current_run"):
            current_run()
        seen.append(find_current_run())

    run_id = Workflow(Chain(look.message(), Group(look.message()))).run()
    alone.send()
    with working(broker, threads=1):
        broker.join("python", timeout=10_000)
    assert [s for s in seen if s] == [(run_id, 1, {"n": 0}), (run_id, 1, {"n": 1})]
    assert None in seen


def test_a_returned_mapping_raises_no_warning(
    broker: SidekiqBroker, step: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @dramatiq.actor(queue_name="python")
    def text() -> str:
        return "discarded"

    with caplog.at_level(logging.WARNING):
        Workflow(Chain(step.message("a"), step.message("b"))).run()
        with working(broker):
            broker.join("python", timeout=10_000)
        assert "discarded" not in caplog.text
        # What really is discarded is still warned of.
        text.send()
        with working(broker):
            broker.join("python", timeout=10_000)
        assert "so the value has been discarded" in caplog.text


def test_delivered_twice_a_job_of_a_group_counts_once(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    Workflow(Chain(Group(step.message("a"), step.message("b")), step.message("c"))).run()
    first = as_bytes(client.lindex("queue:python", -1))
    client.rpush("queue:python", first, first)
    for _ in range(3):
        finish(broker, take(broker), {"x": 1})
    # Three deliveries of one child: the other one is still awaited.
    assert [job["args"] for job in members(client, "python")] == [["b"]]
    finish(broker, take(broker))
    assert [job["args"] for job in members(client, "python")] == [["c"]]
    # And once more after the barrier has released: nothing.
    client.lpush("queue:python", first)
    finish(broker, take(broker))
    finish(broker, take(broker))
    assert members(client, "python") == []
    assert not client.exists("dead")


def test_a_duplicate_does_not_write_its_output_again(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    run_id = Workflow(Group(step.message("a"), step.message("b"))).run()
    client.rpush("queue:python", as_bytes(client.lindex("queue:python", -1)))
    finish(broker, take(broker), {"n": 1})
    finish(broker, take(broker), {"n": 2})
    assert client.hget(f"swf:mem:{run_id}", "n") == b"1"


def test_a_job_acknowledged_twice_advances_once(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    Workflow(Chain(step.message("a"), step.message("b"), step.message("c"))).run()
    message = take(broker)
    finish(broker, message)
    finish(broker, message)
    assert [job["args"] for job in members(client, "python")] == [["b"]]


@pytest.mark.parametrize("suffix", ["", "_ran"])
def test_with_a_missing_barrier_the_job_is_dead_by_name(
    broker: SidekiqBroker, client: redis.Redis, step: Any, log: list[Any], suffix: str
) -> None:
    Workflow(Chain(step.message("a"), step.message("b"))).run()
    (job,) = members(client, "python")
    client.delete(job["workflow_completion_callbacks"][0][0] + suffix)
    with working(broker):
        (dead,) = eventually(lambda: members(client, "dead"))
    assert dead["error_class"] == "BarrierExpired"
    assert dead["workflow_completion_callbacks"] == job["workflow_completion_callbacks"]
    assert log == ["a"]
    assert not in_flight(client)


def test_a_dead_step_is_retried_and_the_run_goes_on(broker: SidekiqBroker, client: redis.Redis) -> None:
    log: list[str] = []

    @dramatiq.actor(queue_name="python", max_retries=0)
    def fragile(name: str) -> None:
        log.append(name)
        if log == ["a"]:
            raise ValueError

    Workflow(Chain(fragile.message("a"), fragile.message("b"))).run()
    with working(broker):
        (dead,) = eventually(lambda: members(client, "dead"))
        # As long as `dead` keeps the job, its barrier lives.
        barrier = dead["workflow_completion_callbacks"][0][0]
        assert client.ttl(barrier) > 180 * 86_400
        # What Sidekiq's UI does on "retry" (api.rb, SortedEntry#retry).
        (raw,) = raws(client.zrange("dead", 0, -1))
        client.zrem("dead", raw)
        client.lpush("queue:python", json.dumps({**dead, "retry_count": dead["retry_count"] - 1}))
        eventually(lambda: log == ["a", "a", "b"])


def test_output_that_json_does_not_have_is_dead_by_name(broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(queue_name="python")
    def odd() -> dict[str, Any]:
        return {"when": object()}

    run_id = Workflow(Chain(odd.message(), odd.message())).run()
    with working(broker):
        (dead,) = eventually(lambda: members(client, "dead"))
    assert dead["error_class"] == "InvalidOutput"
    assert "when" in dead["error_message"]
    assert not client.exists(f"swf:mem:{run_id}")
    assert client.llen("queue:python") == 0


@pytest.mark.parametrize("key", ["queue:next", "queues", "swf:mem:{run}", "{barrier}", "{barrier}_ran"])
def test_a_key_of_another_type_is_named_and_nothing_is_written(
    broker: SidekiqBroker, client: redis.Redis, step: Any, key: str
) -> None:
    run_id = Workflow(Chain(step.message("a"), Job("Next", queue="next"))).run()
    barrier = members(client, "python")[0]["workflow_completion_callbacks"][0][0]
    name = key.format(run=run_id, barrier=barrier)
    message = take(broker)
    client.delete(name)
    client.xadd(name, {"a": 1})
    finish(broker, message, {"x": 1})
    (dead,) = members(client, "dead")
    assert (dead["error_class"], name in dead["error_message"]) == ("WrongType", True)
    assert client.type(name) == b"stream"
    if not key.startswith("{barrier}"):
        assert client.get(barrier) == b"1"


def test_a_step_without_the_middleware_is_dead_by_name(
    redis_url: str, client: redis.Redis, broker: SidekiqBroker, step: Any
) -> None:
    Workflow(Chain(step.message("a"), step.message("b"))).run()
    bare = SidekiqBroker(url=redis_url)

    @dramatiq.actor(actor_name="step", queue_name="python", broker=bare)
    def other(name: str) -> None:
        raise AssertionError("must not run")

    with working(bare):
        (dead,) = eventually(lambda: members(client, "dead"))
    assert dead["error_class"] == "WorkflowMiddlewareMissing"


def test_an_unnamed_actor_travels_as_a_carrier_where_ruby_takes_part(
    broker: SidekiqBroker, client: redis.Redis, step: Any, log: list[Any]
) -> None:
    Workflow(Chain(step.message("a"), Job("Ruby::Step", queue="ruby"), step.message("b"))).run()
    (job,) = members(client, "python")
    assert (job["class"], job["wrapped"], job["display_class"]) == ("Sidekiq::Workflow::NoopWorker", "step", "step")
    assert (job["retry"], job["queue"]) == (True, "python")
    carried = job["workflow_completion_callbacks"][0][1]["children"][1]
    assert (carried["class"], carried["wrapped"]) == ("Sidekiq::Workflow::NoopWorker", "step")
    with working(broker):
        eventually(lambda: client.llen("queue:ruby"))
    assert log == ["a"]


def test_among_themselves_actors_travel_by_their_names(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    Workflow(Chain(step.message("a"), step.message("b"))).run()
    (job,) = members(client, "python")
    assert job["class"] == "step"
    (rest,) = job["workflow_completion_callbacks"][0][1]["children"]
    assert rest.pop("jid")
    assert rest == {"__type__": "job", "class": "step", "args": ["b"], "queue": "python", "retry": True}


def test_what_is_said_of_a_ruby_class_is_used(broker: SidekiqBroker, client: redis.Redis) -> None:
    thumbnail = RubyJob("Images::Thumbnail", queue="critical", retry=3)
    Workflow(Group(thumbnail(1), thumbnail(2, queue="low"), Job("Images::Thumbnail", 3))).run()
    assert [(j["args"], j["retry"]) for j in members(client, "critical")] == [([3], 3), ([1], 3)]
    assert [j["args"] for j in members(client, "low")] == [[2]]


def test_a_noop_goes_where_somebody_is(broker: SidekiqBroker, client: redis.Redis, step: Any, log: list[Any]) -> None:
    """No queue `default` is consumed here: a delayed empty group must not wait there."""
    Workflow(Chain(step.message("a"), WithDelay(Group(), 20), step.message("b"))).run()
    Workflow(Chain(WithDelay(Group(), 20), step.message("c"))).run()
    with working(broker):
        eventually(lambda: sorted(log) == ["a", "b", "c"])
    assert client.smembers("queues") == {b"python"}


def test_keyword_arguments_are_refused_before_anything_is_enqueued(
    client: redis.Redis, broker: SidekiqBroker, step: Any
) -> None:
    with pytest.raises(InvalidArguments, match="keyword"):
        Workflow(Chain(step.message("a"), step.message(name="b")))
    with pytest.raises(InvalidWorkflow):
        Workflow(Chain(step.message("a"), "b"))
    assert client.keys() == []


def test_a_message_that_cannot_be_a_step_is_refused_wherever_it_stands(
    broker: SidekiqBroker, client: redis.Redis, step: Any
) -> None:
    good = step.message(1)
    long = "x" * 300
    changes: list[dict[str, Any]] = [{"message_id": jid} for jid in ("", long, 7)]
    changes += [{"queue_name": long}, {"actor_name": long}]
    for change in changes:
        bad = step.message(2).copy(**change)
        for tree in (Group(good, bad), Chain(Job("A"), Group(good, good.copy(message_id="g"), bad))):
            with pytest.raises(InvalidNode, match=r"\$\.children\[1\]"):
                Workflow(tree)
    for value in (object(), b"bytes", float("nan")):
        with pytest.raises(InvalidArguments, match=r"^args\[0\]"):
            Workflow(Group(good, step.message(value)))
    with pytest.raises(InvalidNode, match=r"\$\.children\[1\]"):
        Workflow(Group(good, Job("A", queue=long)))
    assert not client.keys("queue:*")


def test_a_broker_that_cannot_run_workflows_is_named(redis_url: str) -> None:
    with pytest.raises(ConfigurationError, match="WorkflowMiddleware"):
        Workflow(Chain(), broker=SidekiqBroker(url=redis_url))
    with pytest.raises(ConfigurationError, match="WorkflowMiddleware"):
        Workflow(Chain(), broker=StubBroker())


def test_a_large_group_is_staged_and_started_in_one_step(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    Workflow(
        Group(*(step.message(str(n)) for n in range(2500)), *(WithDelay(step.message("x"), 60_000) for _ in range(3)))
    ).run()
    assert [json.loads(raw)["args"] for raw in client.lrange("queue:python", 0, -1)] == [
        [str(n)] for n in reversed(range(2500))
    ]
    assert client.zcard("schedule") == 3
    assert client.keys("swf:fanout*") == []


def test_a_large_continuation_starts_in_one_step(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    Workflow(Chain(step.message("a"), Group(*(Job("R", n, queue="ruby") for n in range(1500))))).run()
    finish(broker, take(broker))
    assert client.llen("queue:ruby") == 1500
    assert client.keys("swf:fanout*") == []


@pytest.fixture
def lose_the_first(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """From its call on, the first fan-out that is staged vanishes; how many keys that were."""

    def begin() -> list[int]:
        original = runs.writes
        lost: list[int] = []

        def losing(*args: Any) -> Any:
            prepared = original(*args)
            if not lost:
                lost.append(client.delete(*client.keys("swf:fanout*")))
            return prepared

        monkeypatch.setattr(runs, "writes", losing)
        return lost

    return begin


def test_a_staged_fan_out_that_vanishes_is_staged_again(
    broker: SidekiqBroker, client: redis.Redis, step: Any, lose_the_first: Callable[[], list[int]]
) -> None:
    lost = lose_the_first()
    Workflow(Group(*(step.message(str(n)) for n in range(1500)))).run()
    assert lost == [1]
    assert client.llen("queue:python") == 1500


def test_a_continuation_that_vanishes_is_staged_again(
    broker: SidekiqBroker, client: redis.Redis, step: Any, lose_the_first: Callable[[], list[int]]
) -> None:
    Workflow(Chain(step.message("a"), Group(*(Job("R", n, queue="ruby") for n in range(1500))))).run()
    lost = lose_the_first()
    finish(broker, take(broker))
    assert lost == [1]
    assert client.llen("queue:ruby") == 1500


def test_waiting_barriers_live_on_while_their_jobs_move(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    Workflow(Group(step.message("a"), step.message("b"), step.message("c"))).run()
    barrier = members(client, "python")[0]["workflow_completion_callbacks"][0][0]
    for key in (barrier, f"{barrier}_ran"):
        client.expire(key, 86_400)  # what the gem gives them
    finish(broker, take(broker))
    assert min(client.ttl(k) for k in (barrier, f"{barrier}_ran", f"{barrier}:u")) > 20 * 86_400


def test_many_acknowledgements_at_once_count_right(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    Workflow(Chain(Group(*(step.message(str(n)) for n in range(64))), Job("After", queue="ruby"))).run()
    messages = [take(broker, prefetch=64) for _ in range(64)]
    threads = [threading.Thread(target=finish, args=(broker, m)) for m in messages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.llen("queue:ruby") == 1


def test_a_run_may_have_any_name(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    name = f"order-{uuid.uuid4()}"
    assert Workflow(step.message("a")).run(name) == name
    assert members(client, "python")[0]["workflow_run_id"] == name


@pytest.fixture
def tagging(redis_url: str) -> Iterator[SidekiqBroker]:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(tag_runs=True))
    yield broker
    broker.close()


def test_runs_can_be_tagged_for_the_web_ui(tagging: SidekiqBroker, client: redis.Redis) -> None:
    run_id = Workflow(Chain(Job("A", tags=["etl"])), broker=tagging).run()
    assert members(client, "default")[0]["tags"] == ["etl", f"wf:{run_id[:8]}"]


def test_a_step_takes_one_round_trip_to_advance(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    Workflow(Chain(*(step.message(str(n)) for n in range(5)))).run()
    finish(broker, take(broker))  # the scripts are loaded
    message = take(broker)
    before = client.info("stats").get("total_reads_processed")
    if before is None:
        pytest.fail("this server does not count reads")
    finish(broker, message)
    after = client.info("stats")["total_reads_processed"]
    # INFO itself, the consumer's registration in finish(), and the advance.
    assert after - before == 3


def test_time_is_the_callers(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    Workflow(step.message("a")).run()
    (job,) = members(client, "python")
    assert abs(job["created_at"] - time.time()) < 5
