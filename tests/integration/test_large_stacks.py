"""Where no callback storage was chosen: a large stack of a Python step is kept by reference."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.stub import StubBroker

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    InlineCallbackStorage,
    Job,
    RedisHashMemory,
    RubyJob,
    SidekiqBroker,
    WithDelay,
    Workflow,
    WorkflowMiddleware,
)
from dramatiq_sidekiq_flow.registry import registry
from dramatiq_sidekiq_flow.store import scripts
from dramatiq_sidekiq_flow.store.chains import LARGE_STEP, StoredChains
from dramatiq_sidekiq_flow.wire import codec
from dramatiq_sidekiq_flow.wire.lifetimes import RELEASED_TTL, RETRY_HORIZON
from dramatiq_sidekiq_flow.workflow import payload_size

from ..redis_values import as_bytes
from ..running import advance, chains, eventually, in_flight, members, working
from .test_pluggable import SetBarrier

DAY = 86_400
KEY = "workflow_completion_callbacks"

#: An argument that makes a tree large.
BIG = "x" * LARGE_STEP


def make(url: str, **options: Any) -> SidekiqBroker:
    broker = SidekiqBroker(url=url, poll_interval=50)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(), **options))
    return broker


@pytest.fixture
def broker(redis_url: str) -> Iterator[SidekiqBroker]:
    broker = make(redis_url)
    dramatiq.set_broker(broker)
    yield broker
    broker.close()


@pytest.fixture
def log() -> list[Any]:
    return []


@pytest.fixture
def step(broker: SidekiqBroker, log: list[Any]) -> Any:
    return declare(broker, log)


def declare(broker: dramatiq.Broker, log: list[Any]) -> Any:
    def step(n: Any, text: str = "") -> dict[str, Any]:
        log.append(n)
        return {str(n): len(text)}

    return dramatiq.actor(queue_name="python", broker=broker)(step)


def remaining(job: Any) -> list[str]:
    """What kinds of trees a job carries, from the bottom."""
    return [tree["__type__"] for _, tree, _ in job.get(KEY, ()) if tree]


def about(found: Any, wanted: int) -> bool:
    return wanted - 60 <= int(found) <= wanted + 60


def test_a_group_that_follows_a_step_is_not_in_its_payload(
    broker: SidekiqBroker, client: redis.Redis, step: Any, log: list[Any]
) -> None:
    Workflow(Chain(step.message("a"), Group(*map(step.message, range(3000))), step.message("z"))).run()
    (raw,) = client.lrange("queue:python", 0, -1)
    assert len(raw) < 1000
    (job,) = members(client, "python")
    assert remaining(job) == ["reference"]
    (chain,) = chains(client)
    assert about(client.ttl(chain), RETRY_HORIZON + DAY)
    with working(broker):
        eventually(lambda: log[-1:] == ["z"])
        broker.join("python", timeout=10_000)
    assert log[0] == "a"
    assert sorted(log[1:-1]) == [*range(3000)]
    assert client.zcard("dead") == 0


def test_small_trees_travel_in_the_payload(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    Workflow(Chain(*map(step.message, range(30)))).run()
    assert remaining(members(client, "python")[0]) == ["chain"]
    assert not chains(client)


def test_a_hundred_steps_are_stored(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    Workflow(Chain(*map(step.message, range(100)))).run()
    assert remaining(members(client, "python")[0]) == ["reference"]
    assert len(chains(client)) == 1


def test_a_long_chain_is_stored_once(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    Workflow(Chain(*(step.message(n) for n in range(4000)))).run()
    (chain,) = chains(client)
    advance(broker, 20)
    (raw,) = client.lrange("queue:python", 0, -1)
    assert len(raw) < 1000
    assert chains(client) == [chain]
    # It is kept whole until its last step is started.
    assert about(client.ttl(chain), RETRY_HORIZON + DAY)


def test_it_expires_a_day_after_its_last_step_was_started(
    broker: SidekiqBroker, client: redis.Redis, step: Any
) -> None:
    Workflow(Chain(*map(step.message, "abc"), step.message("d", BIG))).run()
    (chain,) = chains(client)
    advance(broker, 2)
    assert about(client.ttl(chain), RETRY_HORIZON + DAY)
    advance(broker)
    assert about(client.ttl(chain), RELEASED_TTL)
    advance(broker)
    assert not in_flight(client)
    assert not members(client, "python")


def test_a_chain_that_cannot_be_released_does_not_fail_its_step(
    broker: SidekiqBroker,
    client: redis.Redis,
    step: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The step is done by then."""
    Workflow(Chain(step.message(1), step.message(2, BIG))).run()
    refused = scripts.Script("release_callbacks")
    monkeypatch.setattr(refused, "command", lambda names, arguments: ("EVAL", "return redis.error_reply('no')", 0))
    monkeypatch.setattr(scripts, "RELEASE_CALLBACKS", refused)
    with caplog.at_level(logging.WARNING, "dramatiq_sidekiq_flow"), working(broker):
        eventually(lambda: not members(client, "python") and not in_flight(client))
    assert [record.getMessage() for record in caplog.records] == [
        "The TTL of a used stored chain was not shortened, so it expires late: no"
    ]
    assert client.zcard("dead") == client.zcard("retry") == 0


def test_each_run_has_chains_of_its_own(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    """Equal ones, too: a run that is over lets its own expire."""
    tree = Chain(Job("step", 1), Job("step", 2, BIG))
    for _ in range(2):
        Workflow(tree).run()
    assert len(chains(client)) == 2
    advance(broker)
    assert sorted(client.ttl(chain) > 2 * DAY for chain in chains(client)) == [False, True]
    advance(broker, 3)
    assert not members(client, "python")
    assert client.zcard("dead") == 0


def ruby(name: str = "Ruby") -> RubyJob:
    return RubyJob(name, queue="ruby", retry=5)


def test_a_ruby_step_carries_whole_trees(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    Workflow(Chain(ruby()("a"), step.message(1, BIG))).run()
    assert remaining(members(client, "ruby")[0]) == ["chain"]
    assert not chains(client)


@pytest.mark.parametrize(
    ("tree", "kinds"),
    [
        # A Ruby step would start the reference.
        (lambda p, r: Chain(Chain(p(1), r(2)), p(3, BIG)), ["chain", "chain"]),
        # The member of Ruby may be the last one, and an empty member completes in any process.
        (lambda p, r: Chain(Chain(p(1), Group(r(2), p(3))), p(4, BIG)), ["chain", "chain"]),
        (lambda p, r: Chain(Chain(p(1), Group(p(3), Chain())), p(4, BIG)), ["chain", "chain"]),
        # One step that Ruby starts is not worth a stored chain, if it is small beside what follows.
        (lambda p, r: Chain(p(1), r(2), p(3, BIG)), ["chain"]),
        # All that Ruby starts is in its own stored step.
        (lambda p, r: Chain(p(1), r(2), p(3, BIG), p(4)), ["reference"]),
        (lambda p, r: Chain(p(1), r(2, BIG), p(3)), ["reference"]),
        # It would be stored again by the Python step of the group.
        (lambda p, r: Chain(p(1), Group(r(2), p(3)), p(4, BIG)), ["chain"]),
        (lambda p, r: Chain(p(1), p(2), Group(r(3, BIG), p(4)), p(5)), ["reference"]),
        (lambda p, r: Chain(Chain(p(1), p(2)), r(3, BIG)), ["reference", "chain"]),
        (lambda p, r: Chain(Chain(p(1), p(2, BIG)), r(3, BIG)), ["reference", "reference"]),
    ],
)
def test_ruby_never_starts_a_reference(
    broker: SidekiqBroker,
    client: redis.Redis,
    step: Any,
    tree: Callable[[Any, Any], Any],
    kinds: list[str],
) -> None:
    def python(*args: Any) -> Job:
        return Job("step", *args, queue="python")

    Workflow(tree(python, ruby())).run()
    (job,) = members(client, "python")
    assert remaining(job) == kinds


@pytest.mark.parametrize(
    ("tree", "kinds"),
    [
        (lambda p, r: Chain(r(1), p(2), p(3, BIG)), ["reference", "chain"]),
        (lambda p, r: Chain(r(1), r(2), p(3), r(4, BIG)), ["reference", "chain"]),
        (lambda p, r: Chain(Chain(r(1)), WithDelay(p(2), 5000), p(3, BIG)), ["reference", "chain"]),
        (lambda p, r: Chain(r(1), Group(p(2), Chain(r(3), p(4))), p(5, BIG)), ["reference", "chain"]),
        (lambda p, r: Chain(Chain(r(1), p(2)), p(3, BIG)), ["reference", "chain"]),
        (lambda p, r: WithDelay(Chain(r(1), p(2), p(3, BIG)), 5000), ["reference", "chain"]),
        # Steps of which Ruby may be the last, or which Ruby completes.
        (lambda p, r: Chain(r(1), p(2, BIG)), ["chain"]),
        (lambda p, r: Chain(r(1), Group(p(2), r(3)), p(4, BIG)), ["chain"]),
        (lambda p, r: Chain(r(1), Group(p(2), Chain()), p(3, BIG)), ["chain"]),
        (lambda p, r: Chain(r(1), WithDelay(Group(), 5000), p(3, BIG)), ["chain"]),
        (lambda p, r: Chain(r(1), Chain(p(2), WithDelay(Group(), 5000)), p(3, BIG)), ["chain"]),
        # The steps that follow are not large.
        (lambda p, r: Chain(r(1), p(2, BIG), p(3)), ["chain"]),
    ],
)
def test_a_ruby_step_carries_whole_the_steps_up_to_one_of_pythons(
    broker: SidekiqBroker,
    client: redis.Redis,
    step: Any,
    tree: Callable[[Any, Any], Any],
    kinds: list[str],
) -> None:
    Workflow(tree(lambda *args: Job("step", *args, queue="python"), ruby())).run()
    (job,) = [*members(client, "ruby"), *members(client, "schedule")]
    assert remaining(job) == kinds
    assert len(chains(client)) == kinds.count("reference")


def test_barriers_and_chains_outlive_ruby_steps_that_do_not_extend_them(
    broker: SidekiqBroker, client: redis.Redis, step: Any
) -> None:
    """The gem gives each barrier of its own a day."""
    Workflow(Chain(ruby()(1), ruby()(2), ruby()(3), step.message(4), step.message(5, BIG))).run()
    (job,) = members(client, "ruby")
    (below, _, _), _ = job[KEY]
    assert about(client.ttl(below), RETRY_HORIZON + 3 * DAY)
    assert about(client.ttl(chains(client)[0]), RETRY_HORIZON + 4 * DAY)
    client.flushdb()
    Workflow(Chain(step.message(1), ruby()(2), ruby()(3), step.message(4), step.message(5, BIG))).run()
    assert about(client.ttl(chains(client)[0]), RETRY_HORIZON + 3 * DAY)
    advance(broker)
    (job,) = members(client, "ruby")
    (below, tree, _), _ = job[KEY]
    assert tree["__type__"] == "reference"
    assert about(client.ttl(below), RETRY_HORIZON + 2 * DAY)
    assert about(client.ttl(chains(client)[0]), RETRY_HORIZON + 3 * DAY)


def test_a_tree_that_a_companion_has_put_in_place_of_its_reference(
    broker: SidekiqBroker, client: redis.Redis, step: Any
) -> None:
    """An older companion does so in each Ruby step: the tree is not stored again each time."""
    steps = [(ruby(), step.message)[n % 2](n, "x" * 1000) for n in range(20)]
    Workflow(Chain(step.message("first"), *steps)).run()
    advance(broker)
    (job,) = members(client, "ruby")
    (chain,) = chains(client)
    (barrier, reference, _), (top, started, _) = job[KEY]
    whole = StoredChains(broker.connection).whole(reference)
    client.delete("queue:ruby")
    client.incrby(top, -1)
    job[KEY] = [[barrier, whole, False]]
    client.lpush("queue:python", codec.encode({**job, **started["children"][0], "jid": "b" * 24}))
    advance(broker)
    (job,) = members(client, "ruby")
    assert remaining(job) == ["chain", "chain"]
    assert chains(client) == [chain]


def test_an_actor_of_another_program(redis_url: str, client: redis.Redis, log: list[Any]) -> None:
    """The registry says that it is Python's."""
    worker, producer = make(redis_url), make(redis_url)
    declare(worker, log)
    registry.publish(worker)
    Workflow(Chain(Job("step", 1), Job("step", 2, BIG)), producer).run()
    assert remaining(members(client, "python")[0]) == ["reference"]
    client.flushdb()
    unknown = make(redis_url)
    Workflow(Chain(Job("step", 1, queue="python"), Job("step", 2, BIG, queue="python")), unknown).run()
    assert remaining(members(client, "python")[0]) == ["chain"]
    for broker in (worker, producer, unknown):
        broker.close()


def test_where_ruby_takes_from_the_queue(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    info = codec.encode({"hostname": "host", "pid": 1, "queues": ["python"]})
    client.sadd("processes", "host:1:ruby")
    client.hset("host:1:ruby", "info", info)
    Workflow(Chain(step.message(1), step.message(2, BIG))).run()
    assert remaining(members(client, "python")[0]) == ["chain"]


def test_a_storage_that_was_chosen_is_used(redis_url: str, client: redis.Redis, log: list[Any]) -> None:
    broker = make(redis_url, callback_storage=InlineCallbackStorage())
    step = declare(broker, log)
    Workflow(Chain(step.message(1), step.message(2, BIG)), broker).run()
    assert remaining(members(client, "python")[0]) == ["chain"]
    broker.close()


def test_the_job_of_a_delayed_empty_node(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    """It goes to a queue of Python's, and is taken by a fetch like any other."""
    Workflow(Chain(WithDelay(Group(), 5000), step.message(1, BIG))).run()
    (job,) = members(client, "schedule")
    assert job["queue"] == "python"
    assert remaining(job) == ["reference"]


def test_it_outlives_the_delays_that_lead_to_it(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    delayed = WithDelay(step.message(2), 90 * DAY * 1000)
    Workflow(Chain(Chain(step.message(1), delayed), step.message(3, BIG))).run()
    assert {about(client.ttl(chain), RETRY_HORIZON + 91 * DAY) for chain in chains(client)} == {True}


def test_a_large_step_is_not_read_by_a_script(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    Workflow(Chain(step.message(1), step.message(2, BIG), step.message(3))).run()
    (chain,) = chains(client)

    def read(first: int, large: int) -> Any:
        return broker.connection.call(*scripts.READ_CALLBACKS.command((chain,), (100, first, 2, 1 << 40, large)))

    large, small = client.hget(chain, "0"), client.hget(chain, "1")
    assert read(0, LARGE_STEP) == [None]
    assert read(0, 1 << 40) == [large, small]
    assert read(1, LARGE_STEP) == [small]
    assert read(1, len(as_bytes(small))) == [None]
    # Of a chain that version 0.1 stored, the length of each value is read first.
    client.hdel(chain, "largest")
    assert read(0, LARGE_STEP) == [None]
    assert read(0, 1 << 40) == [large, small]
    assert read(1, LARGE_STEP) == [small]


@pytest.mark.parametrize("known", [True, False], ids=["largest-known", "of-version-0.1"])
def test_as_many_steps_are_read_as_fit(client: redis.Redis, broker: SidekiqBroker, known: bool) -> None:
    values = {str(n): bytes([65 + n % 26]) * (10 if n else 40) for n in range(1500)}
    for index, value in values.items():
        client.hset("chain", index, value)
    if known:
        client.hset("chain", "largest", 40)

    def read(first: int, most: int, size: int, large: int = 1000) -> int:
        found = broker.connection.call(*scripts.READ_CALLBACKS.command(("chain",), (100, first, most, size, large)))
        assert found == [values[str(n)] for n in range(first, first + len(found))]
        return len(found)

    assert read(0, 1_000_000_000, 1 << 40) == 1500
    assert read(1499, 32, 1000) == 1
    assert read(1500, 32, 1000) == 0
    assert read(5, 0, 1000) == 0
    assert read(5, 32, 1000) == 32
    # With the size of the largest known, one less than that may fit is left out.
    assert 7 <= read(5, 32, 100) <= 10
    assert read(5, 32, 5) == read(0, 32, 5) == 1


def test_steps_are_read_with_one_command(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    Workflow(Chain(*map(step.message, range(100)))).run()
    (chain,) = chains(client)
    client.config_resetstat()
    found = broker.connection.call(*scripts.READ_CALLBACKS.command((chain,), (100, 0, 32, 8192, LARGE_STEP)))
    calls = {name: counts["calls"] for name, counts in client.info("commandstats").items()}
    assert len(found) == 32
    assert calls["cmdstat_hmget"] == calls["cmdstat_hget"] == 1
    assert "cmdstat_hstrlen" not in calls


def test_a_large_step_that_is_gone(broker: SidekiqBroker, client: redis.Redis, step: Any, log: list[Any]) -> None:
    Workflow(Chain(step.message(1), step.message(2, BIG))).run()
    client.delete(*chains(client))
    with working(broker):
        (dead,) = eventually(lambda: members(client, "dead"))
    assert dead["error_class"] == "CallbacksMissing"
    assert log == [1]


def test_what_goes_by_reference_is_not_warned_of(
    broker: SidekiqBroker, step: Any, caplog: pytest.LogCaptureFixture
) -> None:
    payload_size._warned.clear()
    with caplog.at_level(logging.WARNING, "dramatiq_sidekiq_flow"):
        Workflow(Chain(step.message(0), Group(*map(step.message, range(20_000)))))
        Workflow(Chain(*map(step.message, range(20_000))))
        assert not caplog.records
        Workflow(Chain(*(ruby()(n) for n in range(110)), Group(*map(step.message, range(1000)))))
    assert "RedisCallbackStorage" in caplog.text
    payload_size._warned.clear()


def test_with_barriers_of_the_applications_own(redis_url: str, client: redis.Redis, log: list[Any]) -> None:
    broker = make(redis_url, barriers=SetBarrier())
    step = declare(broker, log)
    Workflow(Chain(step.message(1), step.message(2, BIG)), broker).run()
    (chain,) = chains(client)
    with working(broker):
        eventually(lambda: log == [1, 2])
        broker.join("python", timeout=10_000)
    assert about(client.ttl(chain), RELEASED_TTL)
    broker.close()


def test_on_another_broker(redis_url: str, client: redis.Redis, log: list[Any]) -> None:
    broker = StubBroker()
    broker.add_middleware(WorkflowMiddleware(url=redis_url, memory=RedisHashMemory()))
    step = declare(broker, log)
    worker = dramatiq.Worker(broker, worker_timeout=50)
    worker.start()
    Workflow(Chain(step.message(1), step.message(2, BIG)), broker).run()
    (chain,) = eventually(lambda: chains(client))
    eventually(lambda: log == [1, 2])
    eventually(lambda: about(client.ttl(chain), RELEASED_TTL))
    worker.stop()
    broker.close()
