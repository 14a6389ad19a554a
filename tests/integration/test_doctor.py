"""The doctor: which runs it finds, and what its fixes do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Group, Runs, SidekiqBroker, WithDelay, Workflow
from dramatiq_sidekiq_flow.cli.main import main
from dramatiq_sidekiq_flow.errors import InvalidFilter, UnknownRun
from dramatiq_sidekiq_flow.runs import run_reader
from dramatiq_sidekiq_flow.runs.doctor import Doctor
from dramatiq_sidekiq_flow.store import run_records
from dramatiq_sidekiq_flow.store.connection import Connection

from ..broken_runs import WAYS, killed_ruby_worker, misspelt_class, python_process, unserved_queue
from ..recorded_runs import RecordedRun, chain, group, job, ruby_process
from ..redis_values import raws
from ..running import eventually, members, working

#: The jobs that fail while their name is in it.
Failing = set[str]


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def failing() -> Failing:
    return set()


@pytest.fixture
def step(broker: SidekiqBroker, log: list[str], failing: Failing) -> Any:
    @dramatiq.actor(queue_name="python", broker=broker, retry=0)
    def step(name: str) -> None:
        if name in failing:
            raise ValueError(f"{name} cannot")
        log.append(name)

    return step


def lose_barriers(client: redis.Redis) -> None:
    for key in raws(client.keys("*_ran")):
        client.delete(key, key.removesuffix(b"_ran"), key.removesuffix(b"_ran") + b":u")


def cured(broker: SidekiqBroker, fix: Any) -> list[str]:
    """Fix all runs that the doctor finds; the outcomes."""
    doctor = Doctor(Runs(broker))
    return [action.outcome for found in doctor.examine() for action in doctor.fix(found, fix, dry=False)]


def ended(broker: SidekiqBroker, run_id: str) -> Callable[[], bool]:
    return lambda: Runs(broker).get(run_id).state == "done"


def test_dead_steps_run_again(
    broker: SidekiqBroker, client: redis.Redis, step: Any, log: list[str], failing: Failing
) -> None:
    failing |= {"b", "c"}
    Workflow(
        Chain(step.message("a"), Group(step.message("b"), step.message("c"), step.message("d")), step.message("e"))
    ).run("run")
    with working(broker):
        eventually(lambda: client.zcard("dead") == 2)
        failing.clear()
        (found,) = Doctor(Runs(broker)).examine()
        planned = Doctor(Runs(broker)).fix(found, "rerun")
        assert [action.outcome for action in planned] == ["planned", "planned"]
        assert client.zcard("dead") == 2
        before = {each["jid"]: each["retry_count"] for each in members(client, "dead")}
        client.sadd("paused", "python")
        assert cured(broker, "rerun") == ["done", "done"]
        # As Sidekiq's Web UI does: a retry by hand counts for nothing.
        assert {each["jid"]: each["retry_count"] + 1 for each in members(client, "python")} == before
        assert [run.id for run in Runs(broker).list(state="running")] == ["run"]
        client.srem("paused", "python")
        eventually(ended(broker, "run"))
    assert Counter(log) == Counter("abcde")
    assert client.zcard("dead") == 0


def test_dead_steps_are_released(
    broker: SidekiqBroker, client: redis.Redis, step: Any, log: list[str], failing: Failing
) -> None:
    failing |= {"b", "e"}
    tree = Chain(step.message("a"), Group(step.message("b"), step.message("c")), step.message("d"), step.message("e"))
    Workflow(tree).run("run")
    with working(broker):
        eventually(lambda: client.zcard("dead") == 1)
        assert cured(broker, "release") == ["done"]
        # The last step of a run can be released, too.
        eventually(lambda: client.zcard("dead") == 1 and members(client, "dead")[0]["args"] == ["e"])
        assert cured(broker, "release") == ["done"]
        eventually(ended(broker, "run"))
    assert Counter(log) == Counter("acd")
    assert client.zcard("swf:flows:failed") == 0


def test_a_run_whose_barriers_are_gone_goes_on(
    broker: SidekiqBroker, client: redis.Redis, step: Any, log: list[str]
) -> None:
    """The members of both groups that are not done are counted: the step after them runs once, after all of them."""
    inner = Group(step.message("a"), step.message("b"))
    Workflow(Chain(Group(Chain(inner, step.message("c")), step.message("d")), step.message("e"))).run("run")
    lose_barriers(client)
    with working(broker):
        eventually(lambda: client.zcard("dead") == 3)
        assert cured(broker, "rerun") == ["refused"] * 3
        assert cured(broker, "release") == ["done"] * 3
        eventually(ended(broker, "run"))
    assert Counter(log) == Counter("abcde")
    assert log[-1] == "e"
    assert log.index("c") > max(log.index("a"), log.index("b"))


def test_members_that_have_not_run_are_counted(
    broker: SidekiqBroker, client: redis.Redis, step: Any, log: list[str]
) -> None:
    late = WithDelay(step.message("b"), timedelta(hours=1))
    Workflow(Chain(Group(step.message("a"), late), step.message("c"))).run("run")
    lose_barriers(client)
    with working(broker):
        eventually(lambda: client.zcard("dead") == 1)
        assert cured(broker, "release") == ["done"]
        eventually(lambda: Runs(broker).get("run").progress.done == 1)
        assert [each.state for each in Runs(broker).get("run").steps] == ["done", "scheduled", "pending"]
        (waiting,) = raws(client.zrange("schedule", 0, -1))
        client.zadd("schedule", {waiting: 1})
        eventually(ended(broker, "run"))
    assert log == ["a", "b", "c"]


def test_a_lost_step_is_recorded_as_dead(broker: SidekiqBroker, client: redis.Redis) -> None:
    killed_ruby_worker(client, "run")
    for fix in ("rerun", "release"):
        assert cured(broker, fix) == ["refused"]
    assert cured(broker, "fail") == ["done"]
    run = Runs(broker).get("run")
    assert (run.state, run.failures[0].error) == ("failed", "Lost: Its job was nowhere.")
    assert raws(client.zrange("swf:flows:failed", 0, -1)) == [b"run"]
    assert client.zcard("swf:flows:running") == 0


def test_a_run_that_has_ended_is_not_recorded_as_failed(connection: Connection, client: redis.Redis) -> None:
    RecordedRun(client, "run", job("a"), state="done")
    assert not run_records.mark_dead("run", 1, b"{}").run(connection)
    assert run_records.state_of(connection, "run") == "done"
    assert client.zcard("swf:flows:failed") == 0


def test_a_released_step_has_failed_no_more(
    broker: SidekiqBroker, client: redis.Redis, step: Any, failing: Failing
) -> None:
    failing.add("a")
    Workflow(Chain(step.message("a"), WithDelay(step.message("b"), timedelta(hours=1)))).run("run")
    with working(broker):
        eventually(lambda: client.zcard("dead") == 1)
        assert cured(broker, "release") == ["done"]
        eventually(lambda: client.zcard("schedule") == 1)
    assert [run.state for run in Runs(broker).list()] == ["running"]
    assert Runs(broker).get("run").state == "waiting"


def test_a_step_in_retry_that_cannot_succeed_is_buried(broker: SidekiqBroker, client: redis.Redis) -> None:
    misspelt_class(client, "run")
    assert cured(broker, "fail") == ["done"]
    assert (client.zcard("retry"), client.zcard("dead")) == (0, 1)
    run = Runs(broker).get("run")
    assert (run.state, run.failures[0].error) == ("failed", "NameError: uninitialized constant Docs::Thmub")


def test_a_job_in_a_queue_is_left_there_but_for_cancel(broker: SidekiqBroker, client: redis.Redis) -> None:
    unserved_queue(client, "run")
    for fix in ("rerun", "release", "fail"):
        assert cured(broker, fix) == ["refused"] * 3
    assert client.llen("queue:pythn") == 3
    assert cured(broker, "cancel") == ["done"]
    run = Runs(broker).get("run")
    assert (run.state, run.reason) == ("cancelled", "doctor: no_consumer")
    assert client.llen("queue:pythn") == 0


def test_a_run_ends_when_its_queue_gets_a_worker(broker: SidekiqBroker, step: Any, log: list[str]) -> None:
    Workflow(Chain(step.message("a"), step.message("b"))).run("run")
    (found,) = Doctor(Runs(broker)).examine()
    assert (found.verdict, found.blocked[0].cures) == (
        "stuck",
        ("Start a worker that consumes it: dramatiq with -Q python.",),
    )
    with working(broker):
        eventually(ended(broker, "run"))
    assert log == ["a", "b"]
    assert list(Doctor(Runs(broker)).examine(["run"])) == []


def test_only_runs_that_need_a_person_are_found(broker: SidekiqBroker, client: redis.Redis) -> None:
    python_process(client, "python", actors=("first",))
    RecordedRun(client, "moves", job("first")).queued(1)
    RecordedRun(client, "done", job("first"), state="done")
    half = RecordedRun(client, "half", group(job("first"), job("third")))
    half.queued(1)
    half.queued(2)
    RecordedRun(client, "expired", job("first"))
    client.delete("swf:flow:expired")
    seen: list[tuple[int, int]] = []
    found = list(Doctor(Runs(broker)).examine(progress=lambda *numbers: seen.append(numbers)))
    assert [(each.run.id, each.verdict) for each in found] == [("half", "moving")]
    assert seen[-1] == (3, 3)
    assert [each.run.id for each in Doctor(Runs(broker)).examine(["moves", "half", "half"])] == ["half"]
    with pytest.raises(UnknownRun):
        list(Doctor(Runs(broker)).examine(["expired"]))
    with pytest.raises(InvalidFilter, match="rerun, release"):
        Doctor(Runs(broker)).fix(found[0], "mend")  # type: ignore[arg-type]


def test_a_step_that_plain_ruby_may_have_begun_is_looked_at_again(
    broker: SidekiqBroker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ruby_process(client, "ruby")
    RecordedRun(client, "run", chain(job("Docs::Thumb", queue="ruby"), job("second")))
    monkeypatch.setattr(run_reader, "RUBY_BEAT", 0.2)
    monkeypatch.setattr("dramatiq_sidekiq_flow.runs.doctor.RUBY_BEAT", -0.5)
    (found,) = Doctor(Runs(broker)).examine()
    assert (found.verdict, found.findings[0].cause) == ("stuck", "lost_in_ruby")


# -- the command ------------------------------------------------------------------------


def test_the_command(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    # A Ruby process has told what it works on.
    monkeypatch.setattr(run_reader, "RUBY_BEAT", 0.0)
    monkeypatch.setattr("dramatiq_sidekiq_flow.runs.doctor.RUBY_BEAT", -1.0)
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out == "0 runs are open, and all of them go on.\n"
    for way in WAYS:
        way.make(client, way.cause)
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "5 of 7 runs. More: sidekiq-flow runs explain ID"
    assert "no_consumer stuck" in lines
    assert main(["doctor", "dead", "no_consumer", "--fix", "rerun", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [[action["outcome"] for action in each["actions"]] for each in found] == [["planned"], ["refused"] * 3]
    assert main(["doctor", "no_consumer", "--fix", "rerun"]) == 1
    assert "  not:   each of 3 steps from 1 on, 'first': its job is in queue 'pythn'" in capsys.readouterr().out
    assert main(["doctor", "dead", "--fix", "rerun", "--yes"]) == 0
    assert "  done:  step 1 'first' runs again: from dead to queue 'python'" in capsys.readouterr().out
    assert client.llen("queue:python") == 2
    assert main(["doctor", "no_consumer", "--fix", "cancel", "--yes"]) == 0
    assert main(["doctor", "--yes"]) == 2
