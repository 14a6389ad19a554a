"""Memories and barriers of an application's own: a crash repeats, and loses nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Group, SidekiqBroker, WithDelay, Workflow, WorkflowMiddleware, current_run
from dramatiq_sidekiq_flow.errors import BarrierExpired

from ..redis_values import as_bytes, raws
from ..running import eventually, in_flight, members, working


class DictMemory:
    """As small as a memory can be."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.writes: list[Any] = []
        self.problems: list[Exception] = []

    def write(self, run_id: str, values: Mapping[str, Any]) -> None:
        if self.problems:
            raise self.problems.pop()
        self.writes.append(dict(values))
        self.runs.setdefault(run_id, {}).update(values)

    def read(self, run_id: str, keys: Iterable[str] | None = None) -> dict[str, Any]:
        found = self.runs.get(run_id, {})
        return {key: found[key] for key in (found if keys is None else keys) if key in found}

    def clear(self, run_id: str) -> None:
        self.runs.pop(run_id, None)


class SetBarrier:
    """Counts in this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.parties: dict[str, int] = {}
        self.units: dict[str, list[str]] = {}
        self.calls: list[Any] = []
        self.extended: list[Any] = []
        self.problems: list[Exception] = []

    def create(self, barrier_id: str, parties: int, ttl: int) -> None:
        assert ttl > 20 * 86_400_000
        self.calls.append(("create", barrier_id))
        self.parties.setdefault(barrier_id, parties)
        self.units.setdefault(barrier_id, [])

    def wait(self, barrier_id: str, unit: str) -> bool:
        with self.lock:
            self.calls.append(("wait", barrier_id))
            if self.problems:
                raise self.problems.pop()
            if barrier_id not in self.parties:
                raise BarrierExpired(f"There is no barrier {barrier_id}.", barrier_id)
            units = self.units[barrier_id]
            if unit not in units:
                units.append(unit)
            return units.index(unit) == self.parties[barrier_id] - 1

    def extend(self, barrier_id: str, ttl: int) -> None:
        self.extended.append((barrier_id, ttl))


@pytest.fixture
def memory() -> DictMemory:
    return DictMemory()


@pytest.fixture
def barriers() -> SetBarrier:
    return SetBarrier()


@pytest.fixture
def broker(redis_url: str, memory: DictMemory, barriers: SetBarrier) -> Iterator[SidekiqBroker]:
    broker = SidekiqBroker(url=redis_url, poll_interval=50)
    broker.add_middleware(WorkflowMiddleware(memory=memory, barriers=barriers))
    dramatiq.set_broker(broker)
    yield broker
    broker.close()


@pytest.fixture
def log() -> list[Any]:
    return []


@pytest.fixture
def step(broker: SidekiqBroker, log: list[Any]) -> Any:
    @dramatiq.actor(queue_name="python")
    def step(name: str) -> dict[str, Any]:
        run = current_run()
        log.append(name)
        return {name: len(run.memory.read())}

    return step


def take(broker: SidekiqBroker) -> Any:
    message = next(broker.consume("python", prefetch=1, timeout=2000))
    assert message is not None
    return message


def finish(broker: SidekiqBroker, message: Any, output: Any = None) -> None:
    message.output = output
    broker.consume("python", prefetch=1).ack(message)


def test_a_workflow_runs_on_both(
    broker: SidekiqBroker, client: redis.Redis, memory: DictMemory, step: Any, log: list[str]
) -> None:
    tree = Chain(
        step.message("a"),
        Group(step.message("b"), Chain(step.message("c"), Group(step.message("d"), Chain())), Group()),
        WithDelay(Group(), delay=20),
        WithDelay(step.message("e"), delay=20),
    )
    run_id = Workflow(tree).run()
    with working(broker):
        eventually(lambda: "e" in log)
        broker.join("python", timeout=20_000)
    assert (log[0], log[-1], sorted(log)) == ("a", "e", ["a", "b", "c", "d", "e"])
    assert log.index("c") < log.index("d")
    assert memory.read(run_id, ["a", "e", "z"]) == {"a": 0, "e": 4}
    # Nothing of either is in Redis.
    assert client.keys("swf:mem:*") == client.keys("*_ran") == []
    assert client.zcard("dead") == 0


def test_seeded_before_the_first_job_exists(broker: SidekiqBroker, memory: DictMemory, step: Any) -> None:
    run_id = Workflow(step.message("a")).start(seed={"seed": 1})
    assert memory.runs == {run_id: {"seed": 1}}


def test_barriers_exist_before_the_jobs_that_count_them(
    broker: SidekiqBroker, barriers: SetBarrier, step: Any, client: redis.Redis
) -> None:
    seen = []
    create = barriers.create

    def looking(barrier_id: str, parties: int, ttl: int) -> None:
        seen.append((parties, client.llen("queue:python")))
        create(barrier_id, parties, ttl)

    barriers.create = looking  # type: ignore[method-assign]
    Workflow(Chain(step.message("a"), Group(step.message("b"), step.message("c")), step.message("d"))).run()
    finish(broker, take(broker))
    assert seen == [(1, 0), (1, 0), (2, 0)]


def test_the_same_run_id_makes_the_same_barriers(broker: SidekiqBroker, barriers: SetBarrier, step: Any) -> None:
    workflow = Workflow(Chain(step.message("a"), step.message("b")))
    workflow.run("one")
    workflow.run("one")
    assert len(barriers.parties) == 1
    workflow.run("two")
    assert len(barriers.parties) == 2


def test_a_crash_between_counting_and_pushing_pushes_the_same_jobs(
    broker: SidekiqBroker, barriers: SetBarrier, client: redis.Redis, step: Any
) -> None:
    Workflow(Chain(Group(step.message("a"), step.message("b")), Group(step.message("c"), step.message("d")))).run()
    finish(broker, take(broker))
    raw = as_bytes(client.lindex("queue:python", -1))
    finish(broker, take(broker))
    first = members(client, "python")
    # As if the worker had died with its push unmade: the job comes again.
    client.delete("queue:python", *client.keys("swf:released:*"))
    client.lpush("queue:python", raw)
    finish(broker, take(broker))
    again = members(client, "python")
    keep = ("jid", "args", "workflow_run_id", "workflow_completion_callbacks")
    assert [{k: job[k] for k in keep if k in job} for job in again] == [
        {k: job[k] for k in keep if k in job} for job in first
    ]
    assert len(again) == 2
    assert len(barriers.parties) == 3


def test_a_job_that_comes_twice_pushes_once(
    broker: SidekiqBroker, barriers: SetBarrier, client: redis.Redis, step: Any
) -> None:
    Workflow(Chain(step.message("a"), step.message("b"))).run()
    raw = as_bytes(client.lindex("queue:python", -1))
    client.lpush("queue:python", raw)
    finish(broker, take(broker))
    finish(broker, take(broker))
    assert [job["args"] for job in members(client, "python")] == [["b"]]
    assert not in_flight(client)


def test_a_job_that_another_worker_has_is_not_counted(
    broker: SidekiqBroker, barriers: SetBarrier, client: redis.Redis, step: Any
) -> None:
    """It was recovered before it began: it has not run here, and runs there."""
    Workflow(Chain(step.message("a"), step.message("b"))).run()
    message = take(broker)
    message.gone = True
    barriers.calls.clear()
    finish(broker, message)
    assert barriers.calls == []
    assert not broker.process.in_flight["python"].held
    assert members(client, "python") == []


def test_a_barrier_that_is_gone_is_dead_by_name(
    broker: SidekiqBroker, barriers: SetBarrier, client: redis.Redis, step: Any
) -> None:
    Workflow(Chain(step.message("a"), step.message("b"))).run()
    barriers.parties.clear()
    with working(broker):
        (dead,) = eventually(lambda: members(client, "dead"))
    assert dead["error_class"] == "BarrierExpired"


@pytest.mark.parametrize("which", ["memory", "barriers"])
def test_one_that_fails_fails_the_job_which_is_tried_again(
    broker: SidekiqBroker,
    memory: DictMemory,
    barriers: SetBarrier,
    client: redis.Redis,
    step: Any,
    log: list[str],
    which: str,
) -> None:
    run_id = Workflow(Chain(step.message("a"), step.message("b"))).run()
    (memory if which == "memory" else barriers).problems.append(OSError("the store is down"))
    with working(broker):
        (job,) = eventually(lambda: members(client, "retry"))
        assert (job["error_class"], job["error_message"]) == ("OSError", "the store is down")
        (barrier,) = barriers.parties
        assert any(extended == barrier for extended, _ in barriers.extended)
        (raw,) = raws(client.zrange("retry", 0, -1))
        client.zadd("retry", {raw: 1})
        eventually(lambda: log == ["a", "a", "b"])
        broker.join("python", timeout=10_000)
    assert memory.runs[run_id].keys() == {"a", "b"}
    assert client.zcard("dead") == 0


def test_the_output_is_kept_before_the_run_goes_on(
    broker: SidekiqBroker, memory: DictMemory, barriers: SetBarrier, step: Any
) -> None:
    Workflow(Chain(step.message("a"), step.message("b"))).run()
    written: list[int] = []
    wait = barriers.wait

    def looking(barrier_id: str, unit: str) -> bool:
        written.append(len(memory.writes))
        return wait(barrier_id, unit)

    barriers.wait = looking  # type: ignore[method-assign]
    finish(broker, take(broker), {"x": 1})
    assert written == [1]


def test_a_large_fan_out_is_staged(broker: SidekiqBroker, barriers: SetBarrier, client: redis.Redis, step: Any) -> None:
    Workflow(Chain(step.message("a"), Group(*(step.message(str(n)) for n in range(1500))))).run()
    finish(broker, take(broker))
    assert client.llen("queue:python") == 1500
    assert client.keys("swf:fanout*") == []
    assert set(barriers.parties.values()) == {1, 1500}
