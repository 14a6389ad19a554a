"""What the scripts write to the record of a run: its start, its steps, its failures, its end."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from functools import partial
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    Job,
    RedisHashMemory,
    Runs,
    SidekiqBroker,
    WithDelay,
    Workflow,
    WorkflowMiddleware,
)
from dramatiq_sidekiq_flow.errors import ConfigurationError, InvalidOptions, InvalidWorkflow
from dramatiq_sidekiq_flow.wire.lifetimes import DEAD_TIMEOUT, RETRY_HORIZON
from dramatiq_sidekiq_flow.workflow.templates import templates

from ..redis_values import as_bytes, raws, texts
from ..running import eventually, members, working
from ..sweep.judge import at_rest

WEEK = 7 * 86_400


@pytest.fixture
def step(broker: SidekiqBroker) -> Any:
    failures: dict[str, int] = {}

    @dramatiq.actor(queue_name="python", max_retries=1, min_backoff=20, max_backoff=20, broker=broker)
    def step(name: str, fails: int = 0) -> None:
        failures[name] = failures.get(name, 0) + 1
        if failures[name] <= fails:
            raise ValueError(f"failure {failures[name]} of {fails}")

    return step


def finish(broker: SidekiqBroker, *run_ids: str) -> None:
    """Work until the runs are done."""
    with working(broker):
        for run_id in run_ids:
            # That of a run that Ruby started begins with a step that is done.
            eventually(partial(broker.connection.call, "EXISTS", f"swf:flow:{run_id}"))
            assert Runs(broker).wait(run_id, timeout=20_000).state == "done"


def times(client: redis.Redis, run_id: str) -> dict[str, str]:
    found: Any = client.hgetall(f"swf:flow:{run_id}:times")
    return {number.decode(): value.decode() for number, value in found.items() if number != b"0"}


def field(client: redis.Redis, run_id: str, name: str) -> str:
    return as_bytes(client.hget(f"swf:flow:{run_id}", name)).decode()


def test_a_start(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    before = time.time()
    run_id = Workflow(Chain(step.message("a"), Job("R", 1, queue="ruby")), tags=["nightly", "x", "x"]).run()
    record: Any = client.hgetall(f"swf:flow:{run_id}")
    assert record.keys() == {b"state", b"started", b"total", b"tree", b"keep", b"tags", b"end"}
    assert (record[b"state"], record[b"total"], record[b"keep"]) == (b"running", b"2", b"604800")
    assert before - 0.001 <= float(record[b"started"]) <= time.time()
    assert json.loads(record[b"tags"]) == ["nightly", "x"]
    steps = [
        {"step": "step", "queue": "python", "args": "'a'"},
        {"step": "R", "queue": "ruby", "args": "1", "ruby": True},
    ]
    assert json.loads(record[b"tree"]) == {"chain": steps}
    for name in ("running", "tag:nightly", "tag:x"):
        assert client.zscore(f"swf:flows:{name}", run_id) == float(record[b"started"])
    # As long as its barriers, and as after its end.
    for key in (f"swf:flow:{run_id}", f"swf:flow:{run_id}:times", "swf:flows:running", "swf:flows:tag:x"):
        assert RETRY_HORIZON + WEEK <= client.ttl(key) <= RETRY_HORIZON + WEEK + 1
    (job,) = members(client, "python")
    assert job["swf_step"] == 1
    # The worker of a step gives the next number to the one that it starts.
    assert "swf_step" not in job["workflow_completion_callbacks"][0][1]["children"][0]
    with working(broker):
        eventually(lambda: client.exists("queue:ruby"))
    assert members(client, "ruby")[0]["swf_step"] == 2


def test_a_second_call_changes_nothing(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    workflow = Workflow(step.message("a"))
    workflow.run("the-run")
    finish(broker, "the-run")
    workflow.run("the-run")
    assert field(client, "the-run", "state") == "done"


def test_a_run_of_the_same_name_starts_anew(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    """After its marker has expired."""
    Workflow(Chain(step.message("a"), step.message("b"))).run("again")
    finish(broker, "again")
    client.delete("swf:run:again")
    client.hset("swf:flow:again:failed", "2", "{}")
    Workflow(Chain(step.message("c"), step.message("d"))).run("again")
    assert times(client, "again") == {}
    assert not client.exists("swf:flow:again:failed")
    assert not client.hexists("swf:flow:again", "finished")


def test_the_numbers_follow_the_tree(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    """Also where equal jobs of a group are encoded together."""
    group = Group(*(step.message(str(n)) for n in range(3)), Chain(step.message("3"), step.message("4")))
    Workflow(Chain(Group(group, WithDelay(step.message("5"), 10)), step.message("6"))).run()
    assert all(job["swf_step"] - 1 == int(job["args"][0]) for job in members(client, "python"))
    (delayed,) = members(client, "schedule")
    assert delayed["swf_step"] == 6


def test_a_number_is_not_an_option_of_a_job() -> None:
    with pytest.raises(InvalidOptions, match="'swf_step' is not an option"):
        Job("R", swf_step=1)


def test_the_end(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    run_id = Workflow(Chain(step.message("a"), Group(step.message("b"), step.message("c", 1)), step.message("d"))).run()
    before = time.time()
    finish(broker, run_id)
    assert field(client, run_id, "state") == "done"
    assert before <= float(field(client, run_id, "finished")) <= time.time()
    assert (client.zrange("swf:flows:running", 0, -1), texts(client.zrange("swf:flows:done", 0, -1))) == ([], [run_id])
    for key in (f"swf:flow:{run_id}", f"swf:flow:{run_id}:times"):
        assert WEEK - 20 <= client.ttl(key) <= WEEK
    found = times(client, run_id)
    assert sorted(found) == ["1", "2", "3", "4"]
    starts, ends, failures, workers = zip(*(value.split(" ") for value in found.values()))
    assert failures == ("0", "0", "1", "0") or sorted(failures) == ["0", "0", "0", "1"]
    assert set(workers) == {broker.process.heartbeat.identity}
    assert all(before <= float(start) <= float(end) <= time.time() for start, end in zip(starts, ends))


def test_a_run_of_one_job_and_one_of_none_are_done(client: redis.Redis, redis_url: str) -> None:
    """Without a memory, a single job has nothing else to advance."""
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware())

    @dramatiq.actor(queue_name="python", broker=broker)
    def single() -> None: ...

    one = Workflow(single.message(), broker).run()
    none = Workflow(Chain(Group(), Chain()), broker).run()
    assert (field(client, none, "state"), field(client, none, "total")) == ("done", "0")
    finish(broker, one)
    broker.close()


def test_a_run_that_ends_in_a_delayed_empty_group_is_done(
    broker: SidekiqBroker, client: redis.Redis, step: Any
) -> None:
    """Its last job has no number."""
    run_id = Workflow(Chain(step.message("a"), WithDelay(Group(), 20))).run()
    finish(broker, run_id)
    assert field(client, run_id, "state") == "done"


def test_a_large_run_has_a_bit_for_each_step(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    run_id = Workflow(Chain(Group(*(step.message(str(n)) for n in range(1_200))), step.message("last"))).run()
    assert client.ttl(f"swf:flow:{run_id}:done") > WEEK
    finish(broker, run_id)
    assert len(times(client, run_id)) == 999
    assert client.bitcount(f"swf:flow:{run_id}:done") == 202
    assert client.getbit(f"swf:flow:{run_id}:done", 999) == 0
    assert client.getbit(f"swf:flow:{run_id}:done", 1201) == 1
    assert 0 < client.ttl(f"swf:flow:{run_id}:done") <= WEEK
    assert Runs(broker).get(run_id).progress.done == 1201


def test_a_death_and_its_retry(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    run_id = Workflow(Chain(step.message("a"), step.message("b", 2), step.message("c"))).run()
    with working(broker):
        eventually(lambda: client.zcard("dead") == 1)
        assert field(client, run_id, "state") == "failed"
        assert texts(client.zrange("swf:flows:failed", 0, -1)) == [run_id]
        failure = json.loads(as_bytes(client.hget(f"swf:flow:{run_id}:failed", "2")))
        (dead,) = members(client, "dead")
        assert failure.pop("at") == pytest.approx(time.time(), abs=20)
        message = {"jid": dead["jid"], "class": "step", "queue": "python", "error_class": "ValueError"}
        assert failure == {**message, "error_message": "failure 2 of 2"}
        # For as long as it can be retried.
        for part in ("", ":times", ":failed"):
            assert client.ttl(f"swf:flow:{run_id}{part}") >= DEAD_TIMEOUT
        assert client.ttl("swf:flows:failed") > WEEK
        # As the Web UI retries a job after its first failure.
        (member,) = raws(client.zrange("dead", 0, -1))
        client.zrem("dead", member)
        client.lpush("queue:python", member.replace(b'"retry_count":1', b'"retry_count":-1'))
        assert Runs(broker).wait(run_id, timeout=20_000).state == "done"
    assert not client.exists(f"swf:flow:{run_id}:failed")
    assert client.zcard("swf:flows:failed") == 0
    assert times(client, run_id)["2"].split(" ")[2] == "0"


def test_one_of_two_failures_is_mended(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    run_id = Workflow(Chain(Group(step.message("a", 2), step.message("b", 2)), step.message("c"))).run()
    with working(broker):
        eventually(lambda: client.zcard("dead") == 2)
        (member, _) = raws(client.zrange("dead", 0, -1))
        client.zrem("dead", member)
        client.lpush("queue:python", member)
        eventually(lambda: len(times(client, run_id)) == 1)
    assert field(client, run_id, "state") == "failed"
    assert client.hlen(f"swf:flow:{run_id}:failed") == 1


def test_a_step_of_a_run_that_ruby_started(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    """It has no number: the record says that the run is there, and when it is done."""
    for count in (1, 2):
        Workflow(Chain(*(step.message(f"{n} of {count}") for n in range(count)))).run(f"run-{count}")
    for raw in raws(client.lrange("queue:python", 0, -1)):
        client.lrem("queue:python", 1, raw)  # type: ignore[arg-type]
        client.lpush("queue:python", _without_numbers(raw))
    client.delete(*client.keys("swf:flow*"))
    finish(broker, "run-1", "run-2")
    for count in (1, 2):
        record: Any = client.hgetall(f"swf:flow:run-{count}")
        assert (record[b"state"], record[b"adopted"]) == (b"done", b"1")
        assert b"total" not in record
        assert 0 < client.ttl(f"swf:flow:run-{count}") <= WEEK
    assert sorted(texts(client.zrange("swf:flows:done", 0, -1))) == ["run-1", "run-2"]


def _without_numbers(raw: bytes) -> bytes:
    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items() if key != "swf_step"}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return json.dumps(strip(json.loads(raw))).encode()


def test_records_can_be_switched_off(client: redis.Redis, redis_url: str) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(), records=False))
    done: list[int] = []

    @dramatiq.actor(queue_name="python", broker=broker, max_retries=0)
    def plain(n: int) -> None:
        done.append(n)
        if n == 3:
            raise ValueError

    for n in range(4):
        Workflow(Chain(plain.message(n), Group(plain.message(n), plain.message(n))), broker).run()
    assert b"swf_step" not in b"".join(raws(client.lrange("queue:python", 0, -1)))
    with working(broker):
        eventually(lambda: len(done) == 10)
        eventually(lambda: client.zcard("dead") == 1)
    assert client.keys("swf:flow*") == []
    broker.close()


def test_arguments_can_be_left_out_and_records_kept_for_another_time(client: redis.Redis, redis_url: str) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(record_args=False, keep_records=timedelta(hours=1)))

    @dramatiq.actor(queue_name="python", broker=broker)
    def plain(secret: str) -> None: ...

    run_id = Workflow(plain.message("secret"), broker).run()
    assert json.loads(field(client, run_id, "tree")) == {"step": "plain", "queue": "python"}
    finish(broker, run_id)
    assert 0 < client.ttl(f"swf:flow:{run_id}") <= 3600
    broker.close()


@pytest.mark.parametrize("keep", [0, 7, timedelta(), timedelta(days=-1)])
def test_a_time_to_keep_records_is_checked(keep: Any) -> None:
    with pytest.raises(ConfigurationError, match="keep_records takes a time"):
        WorkflowMiddleware(keep_records=keep)


@pytest.mark.parametrize("tags", ["nightly", [1], [""]])
def test_tags_are_checked(step: Any, tags: Any) -> None:
    with pytest.raises(InvalidWorkflow, match="tags takes a list of names"):
        Workflow(step.message("a"), tags=tags)


def test_the_runs_of_a_template_are_listed(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    templates.register("recorded", lambda: Workflow(step.message("a"), tags=["t"]))
    try:
        run_id = templates.run("recorded")
    finally:
        templates.clear()
    assert field(client, run_id, "template") == "recorded"
    assert [run.id for run in Runs(broker).list(template="recorded")] == [run_id]
    assert [run.id for run in Runs(broker).list(tag="t")] == [run_id]


def test_a_record_of_another_type_fails_no_step(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    for key in ("swf:flows:running", "swf:flows:done", "swf:flow:typed", "swf:flow:other:times"):
        client.set(key, "text")
    for run_id in ("typed", "other"):
        Workflow(Chain(step.message(run_id), step.message(f"last of {run_id}"))).run(run_id)
    client.set("swf:flow:typed", "text")
    client.set("swf:flow:other:times", "text")
    with working(broker):
        eventually(lambda: at_rest(client))
        eventually(lambda: field(client, "other", "state") == "done")
    assert client.zcard("dead") == client.zcard("retry") == 0
    assert client.get("swf:flow:typed") == b"text"


def test_a_long_run_keeps_its_record(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    """Each 50th step prolongs it, in a chain and in a group."""
    for tree in (
        Chain(*(step.message(f"c{n}") for n in range(60))),
        Group(*(step.message(f"g{n}") for n in range(60))),
    ):
        run_id = Workflow(Chain(tree, Job("R", queue="ruby"))).run()
        keys = [f"swf:flow:{run_id}", f"swf:flow:{run_id}:times", "swf:flows:running"]
        for key in keys:
            client.expire(key, 1000)
        with working(broker):
            eventually(lambda: client.exists("queue:ruby"))
        assert [client.ttl(key) >= RETRY_HORIZON - 4000 for key in keys] == [True, True, True]
        client.flushdb()


def test_a_duplicate_after_the_end_changes_nothing(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    run_id = Workflow(step.message("a")).run()
    (raw,) = raws(client.lrange("queue:python", 0, -1))
    finish(broker, run_id)
    client.hset(f"swf:flow:{run_id}", "finished", "1.5")
    client.lpush("queue:python", raw)
    with working(broker):
        eventually(lambda: at_rest(client))
    assert (field(client, run_id, "state"), field(client, run_id, "finished")) == ("done", "1.5")


def test_a_retry_is_no_death(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    run_id = Workflow(step.message("a")).run()
    consumer = broker.consume("python", prefetch=1, timeout=200)
    message: Any = next(consumer)
    message.stuff_exception(ValueError("once"))
    broker.emit_after("process_message", message, exception=ValueError("once"))
    consumer.nack(message)
    consumer.close()
    assert client.zcard("retry") == 1
    assert field(client, run_id, "state") == "running"
    assert not client.exists(f"swf:flow:{run_id}:failed")
