"""Retries of runs with what comes after their dead steps, and of whole runs."""

from __future__ import annotations

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
    Workflow,
)
from dramatiq_sidekiq_flow.cli.main import main as cli
from dramatiq_sidekiq_flow.errors import CannotRetry, InvalidFilter
from dramatiq_sidekiq_flow.runs.steering import RETRIABLE
from dramatiq_sidekiq_flow.store.connection import Connection

from .. import operations
from ..running import members, working


@pytest.fixture
def log() -> list[Any]:
    return []


@pytest.fixture
def step(broker: SidekiqBroker, log: list[Any]) -> Any:
    @dramatiq.actor(queue_name="python", max_retries=0, broker=broker)
    def step(name: Any, fails: int = 0) -> dict[str, Any]:
        log.append(name)
        if log.count(name) <= fails:
            raise ValueError("no")
        return {f"of {name}": log.count(name)}

    return step


def finish(broker: SidekiqBroker, run_id: str) -> Any:
    with working(broker):
        return Runs(broker).wait(run_id, timeout=20_000)


# -- failed_and_after --------------------------------------------------------------


def test_a_restart_forgets_the_steps_and_nothing_else(connection: Connection, client: Any) -> None:
    operation = operations.NAMED["restart"]
    operation.prepare(client)
    assert operation.call(connection) == [b"DONE"]
    record = operations.RECORD
    assert client.hmget(record, "state", "finished", "caught", "skipped") == [b"running", None, b"0", b"2"]
    assert set(client.hkeys(f"{record}:times")) == {b"0", b"6"}
    assert not client.exists(f"{record}:failed", f"{record}:added")
    bits = [n for n in range(1000, 1060) if not client.getbit(f"{record}:done", n)]
    assert bits == list(range(1003, 1050))
    assert client.get("swf:unique:k") == operations.RUN.encode()
    assert client.ttl("swf:mem:run") > 60
    assert client.zscore("swf:flows:running", operations.RUN) is not None
    assert client.zscore("swf:flows:done", operations.RUN) is None


def test_another_run_has_the_unique_key(connection: Connection, client: redis.Redis) -> None:
    operation = operations.NAMED["restart"]
    operation.prepare(client)
    client.set("swf:unique:k", "other", ex=60)
    client.hset("swf:flow:other", "state", "failed")
    assert operation.call(connection) == [b"TAKEN", b"other"]
    assert client.zcard("dead") == 1


@pytest.mark.parametrize("state", ["cancelled", ""])
def test_nothing_of_a_run_starts_that_is_cancelled_or_unknown(connection: Connection, client: Any, state: str) -> None:
    operation = operations.NAMED["restart"]
    operation.prepare(client)
    client.hset(operations.RECORD, "state", state) if state else client.delete(operations.RECORD)
    assert operation.call(connection) == [b"GONE"]
    assert client.zcard("dead") == 1


def test_the_plan_of_a_paused_run_is_parked(connection: Connection, client: Any) -> None:
    operation = operations.NAMED["restart"]
    operation.prepare(client)
    client.hset(operations.RECORD, "state", "paused")
    assert operation.call(connection) == [b"DONE"]
    assert client.hget(operations.RECORD, "state") == b"paused"
    assert b"qnext\0job" in client.lrange(operations.PARKED, 0, -1)


def test_a_step_runs_again_with_the_memory_and_the_number_that_it_had(
    broker: SidekiqBroker, client: redis.Redis, step: Any, log: list[Any]
) -> None:
    tree = Chain(step.message("a"), Catch(step.message("b", 1), step.message("instead")), step.message("c"))
    run_id = Workflow(tree, unique_key="k").run()
    assert finish(broker, run_id).progress.total == 4
    runs = Runs(broker)
    again = runs.retry(run_id, mode="failed_and_after")
    assert (again.id, again.state, again.finished_at, again.failures) == (run_id, "running", None, ())
    assert [step.state for step in again.steps] == ["done", "queued", "pending", "pending"]
    run = finish(broker, run_id)
    assert log == ["a", "b", "instead", "c", "b", "c"]
    assert (run.state, run.progress.done, run.progress.total, run.failures) == ("done", 3, 3, ())
    assert run.memory == {"of a": 1, "of instead": 1, "of b": 2, "of c": 2}
    # There is nothing to retry now.
    assert runs.retry(run_id, mode="failed_and_after").state == "done"


def test_what_follows_a_group_runs_once_for_all_its_dead_steps(
    broker: SidekiqBroker, step: Any, log: list[Any]
) -> None:
    group = Group(MayFail(step.message("a", 1)), MayFail(step.message("b", 1)), step.message("c"))
    run_id = Workflow(Chain(group, step.message("d"))).run()
    assert finish(broker, run_id).state == "done"
    Runs(broker).retry(run_id, mode="failed_and_after")
    assert finish(broker, run_id).state == "done"
    assert sorted(log) == ["a", "a", "b", "b", "c", "d", "d"]
    assert log[-1] == "d"


def test_a_run_that_is_at_work_is_not_started_anew(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    run_id = Workflow(Chain(MayFail(step.message("a", 1)), Job("Rb::Step", queue="ruby"))).run()
    with working(broker, queues={"python"}):
        broker.join("python")
    runs = Runs(broker)
    with pytest.raises(CannotRetry, match="at rest"):
        runs.retry(run_id, mode="failed_and_after")
    runs.cancel(run_id)
    assert runs.retry(run_id, mode="failed_and_after").state == "cancelled"
    assert len(members(client, "dead")) == 1


def test_without_a_step_that_the_run_went_on_past_it_is_the_mode_failed(
    broker: SidekiqBroker, step: Any, log: list[Any]
) -> None:
    run_id = Workflow(Group(Chain(step.message("a", 1), step.message("b")), step.message("c"))).run()
    assert finish(broker, run_id).state == "failed"
    assert Runs(broker).retry(state="failed", mode="failed_and_after") == [run_id]
    assert finish(broker, run_id).state == "done"
    assert sorted(log) == ["a", "a", "b", "c"]


def test_a_step_that_was_replaced_is_replaced_anew(broker: SidekiqBroker, step: Any, log: list[Any]) -> None:
    @dramatiq.actor(queue_name="python", broker=broker)
    def grows() -> Any:
        return Replace(Chain(step.message("x"), step.message("y")))

    run_id = Workflow(Chain(MayFail(step.message("a", 1)), grows.message(), step.message("z"))).run()
    assert finish(broker, run_id).state == "done"
    Runs(broker).retry(run_id, mode="failed_and_after")
    run = finish(broker, run_id)
    assert log == ["a", "x", "y", "z"] * 2
    assert (run.state, run.progress.done, run.progress.total) == ("done", 5, 5)
    (listed,) = Runs(broker).list()
    assert (listed.progress.done, listed.progress.total) == (5, 5)


def test_a_job_that_died_before_this_version_stays(broker: SidekiqBroker, client: Any, step: Any) -> None:
    run_id = Workflow(Chain(MayFail(step.message("a", 9)), step.message("b"))).run()
    finish(broker, run_id)
    (job,) = members(client, "dead")
    del job["swf_died_as"]
    client.delete("dead")
    client.zadd("dead", {str(job).replace("'", '"').replace("True", "true"): 1})
    assert Runs(broker).retry(run_id, mode="failed_and_after").state == "done"


# -- all -------------------------------------------------------------------------------


def test_a_whole_run_starts_again(broker: SidekiqBroker, client: Any, step: Any, log: list[Any]) -> None:
    @dramatiq.actor(queue_name="python", broker=broker)
    def told(what: str, run: Any = None) -> None:
        log.append((what, run["state"], run["run_id"]))

    tree = Chain(step.message("a", 1), Group(MayFail(step.message("b")), step.message("c")))
    options: Any = {"tags": ["nightly"], "unique_key": "k", "repeatable": True, "seed": {"given": 7}}
    first = Workflow(tree, on_complete=told.message("it is"), **options).run()
    runs = Runs(broker)
    assert finish(broker, first).state == "failed"
    with pytest.raises(CannotRetry, match="unique key 'k'"):
        runs.retry(first, mode="all")
    runs.cancel(first)
    second = runs.retry(first, mode="all")
    assert second.id != first
    assert (second.tags, second.memory, second.progress.total) == (("nightly",), {"given": 7}, 3)
    assert runs.get(first).repeated == second.id
    assert runs.retry(first, mode="all").id == second.id
    assert finish(broker, second.id).state == "done"
    with working(broker):
        broker.join("python")
    assert sorted(map(str, log[-4:])) == sorted(map(str, ["a", "b", "c", ("it is", "done", second.id)]))
    third = runs.retry(state="cancelled", mode="all")
    assert third == [runs.get(first).repeated] != [second.id]
    # The record and what it keeps expire together.
    assert abs(client.ttl(f"swf:flow:{second.id}:start") - client.ttl(f"swf:flow:{second.id}")) < 60


def test_a_run_that_does_not_keep_its_start_is_not_repeated(broker: SidekiqBroker, client: Any, step: Any) -> None:
    run_id = Workflow(step.message("a"), tags=["x"]).run()
    runs = Runs(broker)
    assert not client.exists(f"swf:flow:{run_id}:start")
    finish(broker, run_id)
    for which in ({"run_id": run_id}, {"tag": "x"}):
        with pytest.raises(CannotRetry, match="repeatable=True"):
            runs.retry(**which, mode="all")


def test_a_run_at_work_is_not_repeated(broker: SidekiqBroker, client: Any, step: Any) -> None:
    run_id = Workflow(step.message("a"), repeatable=True).run()
    with pytest.raises(CannotRetry, match="at work"):
        Runs(broker).retry(run_id, mode="all")
    client.set(f"swf:flow:{run_id}:start", b"no zlib")
    Runs(broker).cancel(run_id)
    with pytest.raises(CannotRetry, match="cannot be read"):
        Runs(broker).retry(run_id, mode="all")


# -- the modes -------------------------------------------------------------------------


def test_the_mode_is_checked(broker: SidekiqBroker) -> None:
    with pytest.raises(InvalidFilter, match="failed, failed_and_after, all"):
        Runs(broker).retry("id", mode="some")
    assert {state for states in RETRIABLE.values() for state in states} == {
        *("failed", "running", "paused", "done", "cancelled")
    }


def test_the_command_line_knows_the_modes(
    broker: SidekiqBroker, step: Any, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = Workflow(Chain(MayFail(step.message("a", 1)), step.message("b"))).run()
    finish(broker, run_id)
    assert cli(["runs", "retry", run_id, "--mode", "failed_and_after", "--url", redis_url]) == 0
    assert capsys.readouterr().out == f"{run_id}\n"
    assert cli(["runs", "retry", run_id, "--mode", "all", "--url", redis_url]) == 2
    assert "repeatable=True" in capsys.readouterr().err
