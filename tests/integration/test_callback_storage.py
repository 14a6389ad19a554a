"""Callback stacks by reference: what a step costs, what is stored, and what is gone."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    InlineCallbackStorage,
    Job,
    RedisCallbackStorage,
    RedisHashMemory,
    SidekiqBroker,
    WithDelay,
    Workflow,
    WorkflowMiddleware,
)
from dramatiq_sidekiq_flow.errors import CallbacksMissing, ConfigurationError
from dramatiq_sidekiq_flow.store.chains import NewChain, StoredChains
from dramatiq_sidekiq_flow.wire.lifetimes import RETRY_HORIZON
from dramatiq_sidekiq_flow.wire.references import refer
from dramatiq_sidekiq_flow.workflow import payload_size

from ..redis_values import as_bytes, raws
from ..running import advance, chains, eventually, in_flight, members, working

DAY = 86_400


def make(url: str, storage: Any = None, **options: Any) -> SidekiqBroker:
    broker = SidekiqBroker(url=url, poll_interval=50)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(), callback_storage=storage, **options))
    return broker


@pytest.fixture
def storage() -> RedisCallbackStorage:
    return RedisCallbackStorage(min_bytes=0)


@pytest.fixture
def broker(redis_url: str, storage: RedisCallbackStorage) -> Iterator[SidekiqBroker]:
    broker = make(redis_url, storage)
    dramatiq.set_broker(broker)
    yield broker
    broker.close()


@pytest.fixture
def log() -> list[Any]:
    return []


def declare(broker: SidekiqBroker, log: list[Any], **options: Any) -> Any:
    def step(n: Any) -> dict[str, Any]:
        log.append(n)
        return {str(n): n}

    return dramatiq.actor(queue_name="python", broker=broker, **options)(step)


@pytest.fixture
def step(broker: SidekiqBroker, log: list[Any]) -> Any:
    return declare(broker, log)


def traffic(client: redis.Redis) -> int:
    stats = client.info("stats")
    return int(stats["total_net_input_bytes"]) + int(stats["total_net_output_bytes"])


def test_bytes_of_a_step_stay_flat_over_a_chain_of_1000(redis_url: str, client: redis.Redis, log: list[Any]) -> None:
    """From step 10 to step 1000, payloads and network, within 10 %."""
    broker = make(redis_url, RedisCallbackStorage())
    step = declare(broker, log)
    Workflow(Chain(*(step.message(n) for n in range(1000))), broker).run()
    advance(broker, 9)
    sizes, rates = [], []
    for _ in range(18):
        before = traffic(client)
        looking = traffic(client) - before
        before = traffic(client)
        for _ in range(55):
            (raw,) = client.lrange("queue:python", 0, -1)
            sizes.append(len(raw))
            advance(broker)
        rates.append(traffic(client) - before - looking)
    advance(broker)
    assert client.llen("queue:python") == client.zcard("dead") == 0
    assert max(sizes) <= 1.1 * min(sizes), (min(sizes), max(sizes))
    assert max(sizes) < 600
    assert max(rates) <= 1.1 * min(rates), rates
    # And it was stored once.
    (key,) = chains(client)
    # The steps, and the size of the largest.
    assert client.hlen(key) == 999 + 1
    broker.close()


def test_a_group_carries_what_follows_it_by_reference(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    Workflow(Chain(Group(*map(step.message, range(30))), *map(step.message, range(30, 60)))).run()
    jobs = members(client, "python")
    assert len(jobs) == 30
    (stored,) = chains(client)
    for job in jobs:
        (_, rest, _), (_, nothing, _) = job["workflow_completion_callbacks"]
        assert rest["__type__"] == "reference"
        assert f"swf:callbacks:{rest['chain']}".encode() == stored
        assert nothing is None
    advance(broker, 59)
    assert [job["args"] for job in members(client, "python")] == [[59]]
    assert chains(client) == [stored]


def test_the_size_of_the_largest_step_is_stored(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    """So that a script can read several steps with one command."""
    sizes = (10, 3_000, 20)
    Workflow(Chain(*(step.message(n, "x" * size) for n, size in enumerate((1, *sizes))))).run()
    (key,) = chains(client)
    stored: dict[Any, Any] = client.hgetall(key)
    largest = int(stored.pop(b"largest"))
    assert largest == max(map(len, stored.values())) == len(stored[b"1"])


def test_the_same_continuation_is_stored_once(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    # Steps of messages have an id each; equal jobs at one place in a tree, the same continuation.
    for _ in range(20):
        Workflow(Chain(step.message(1), Job("step", "x"), Job("step", "y"))).run()
    assert len(chains(client)) == 1
    advance(broker, 60)
    assert len(chains(client)) == 1
    assert client.llen("queue:python") == client.zcard("dead") == 0


def test_what_remains_after_an_empty_step_is_not_stored_for_it(
    broker: SidekiqBroker, client: redis.Redis, step: Any
) -> None:
    Workflow(Chain(*[Group()] * 50, step.message(1), step.message(2))).run()
    assert len(chains(client)) == 1


def test_what_is_stored_already_lives_no_shorter(broker: SidekiqBroker, client: redis.Redis) -> None:
    # Without ids of messages, which differ in each run: both runs refer to one chain.
    workflow = Workflow(Chain(*(Job("R", n, queue="ruby") for n in range(5))))
    workflow.run()
    (chain,) = chains(client)
    client.expire(chain, 300 * DAY)
    workflow.run()
    assert chains(client) == [chain]
    assert client.ttl(chain) > 299 * DAY


def test_one_read_serves_the_next_steps_too_but_not_many(
    redis_url: str, client: redis.Redis, broker: SidekiqBroker, step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[list[bytes]] = []
    values = StoredChains._values

    def counted(*args: Any) -> list[bytes]:
        reads.append(values(*args))
        return reads[-1]

    monkeypatch.setattr(StoredChains, "_values", counted)
    Workflow(Chain(*map(step.message, range(65)))).run()
    advance(broker, 65)
    assert [len(found) for found in reads] == [32, 32]
    # Large steps are read by themselves: another process may take the next one.
    reads.clear()
    Workflow(Chain(*(step.message("x" * 9000 + str(n)) for n in range(4)))).run()
    advance(broker, 4)
    assert [len(found) for found in reads] == [1] * 3


def test_short_chains_travel_in_the_payload(redis_url: str, client: redis.Redis, log: list[Any]) -> None:
    broker = make(redis_url, RedisCallbackStorage())
    step = declare(broker, log)
    Workflow(Chain(*(step.message(n) for n in range(5))), broker).run()
    (job,) = members(client, "python")
    assert job["workflow_completion_callbacks"][0][1]["__type__"] == "chain"
    assert chains(client) == []
    broker.close()


def test_empty_steps_and_delays_in_a_stored_chain(
    broker: SidekiqBroker, client: redis.Redis, step: Any, log: list[Any]
) -> None:
    empties = [Group(), Chain(), Chain(Group())] * 400
    tree = Chain(
        step.message(1),
        *empties,
        WithDelay(Group(), delay=20),
        WithDelay(Chain(step.message(2), *empties, step.message(3)), delay=20),
        *empties,
    )
    run_id = Workflow(Group(Chain(tree, step.message(4)), step.message(0))).run()
    assert len(chains(client)) == 2  # and not one for each empty step
    with working(broker):
        eventually(lambda: 4 in log)
        broker.join("python", timeout=20_000)
    assert [n for n in log if n] == [1, 2, 3, 4]
    assert sorted(client.hkeys(f"swf:mem:{run_id}")) == [b"0", b"1", b"2", b"3", b"4"]
    assert client.zcard("dead") == 0


def test_a_stored_chain_outlives_the_barriers_and_delays(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    forty = 40 * DAY * 1000
    Workflow(Chain(step.message(1), step.message(2), WithDelay(step.message(3), delay=forty))).run()
    for _ in range(2):
        (chain,) = chains(client)
        (job,) = members(client, "python")
        ((barrier, _, _),) = job["workflow_completion_callbacks"]
        assert client.ttl(barrier) >= RETRY_HORIZON + 40 * DAY - 60
        assert client.ttl(chain) > client.ttl(barrier)
        advance(broker)


def test_it_lives_on_while_the_run_moves(redis_url: str, broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    Workflow(Chain(Group(step.message(1), step.message(2)), step.message(3))).run()
    (chain,) = chains(client)
    client.expire(chain, 100)
    other = make(redis_url)  # another process, which has not prolonged it lately
    declare(other, [])
    advance(other)
    assert client.ttl(chain) >= RETRY_HORIZON
    other.close()


def test_it_lives_as_long_as_a_dead_job_can_be_retried(broker: SidekiqBroker, client: redis.Redis) -> None:
    log: list[int] = []

    @dramatiq.actor(queue_name="python", max_retries=0)
    def fragile(n: int) -> None:
        log.append(n)
        if len(log) == 1:
            raise ValueError

    Workflow(Chain(fragile.message(1), fragile.message(2))).run()
    (chain,) = chains(client)
    with working(broker):
        eventually(lambda: client.zcard("dead"))
        assert client.ttl(chain) > 180 * DAY
        (raw,) = raws(client.zrange("dead", 0, -1))
        client.zrem("dead", raw)
        client.lpush("queue:python", raw)
        eventually(lambda: log == [1, 1, 2])


@pytest.mark.parametrize("broken", ["gone", "cut", "changed"])
def test_a_reference_to_nothing_is_dead_by_name(
    broker: SidekiqBroker, client: redis.Redis, step: Any, log: list[Any], broken: str
) -> None:
    Workflow(Chain(*map(step.message, range(20)))).run()
    (chain,) = chains(client)
    if broken == "gone":
        client.delete(chain)
    elif broken == "cut":
        client.hdel(chain, "0")
    else:
        client.hset(chain, "0", as_bytes(client.hget(chain, "0")).replace(b"[1]", b"[7]"))
    (job,) = members(client, "python")
    with working(broker):
        (dead,) = eventually(lambda: members(client, "dead"))
    assert dead["error_class"] == "CallbacksMissing"
    assert dead["workflow_completion_callbacks"] == job["workflow_completion_callbacks"]
    assert log == [0]
    assert not in_flight(client)


def test_references_are_read_whatever_storage_is_used(
    redis_url: str, broker: SidekiqBroker, client: redis.Redis, step: Any, log: list[Any]
) -> None:
    """So that workers can be replaced one by one."""
    Workflow(Chain(*map(step.message, range(6)))).run()
    other = make(redis_url)
    declare(other, log)
    with working(other):
        eventually(lambda: log == list(range(6)))
        other.join("python", timeout=10_000)
    assert client.zcard("dead") == 0
    other.close()


def test_other_processes_read_what_this_one_has_in_its_cache(
    redis_url: str, broker: SidekiqBroker, client: redis.Redis, step: Any, storage: RedisCallbackStorage
) -> None:
    Workflow(Chain(*map(step.message, range(12)))).run()
    other = make(redis_url, storage=RedisCallbackStorage(min_bytes=0))
    declare(other, [])
    for _ in range(6):
        advance(broker)
        advance(other)
    assert client.llen("queue:python") == client.zcard("dead") == 0
    other.close()


def test_a_damaged_chain_does_not_make_a_sound_one_look_missing(broker: SidekiqBroker, client: redis.Redis) -> None:
    chains = StoredChains(broker.connection)
    steps = [{"__type__": "job", "class": "step", "args": [n]} for n in range(4)]
    damaged, values = refer([steps[0], *steps[2:]])
    sound, others = refer([steps[1], *steps[2:]])
    chains.write({damaged["chain"]: NewChain(values, 0), sound["chain"]: NewChain(others, 0)})
    client.hset(f"swf:callbacks:{damaged['chain']}", "1", b":not what was stored")
    _, lost = chains.read(damaged, 100)
    assert lost is not None
    with pytest.raises(CallbacksMissing):
        chains.read(lost, 100)
    node, following = chains.read(sound, 100)
    assert following is not None
    assert [node["args"], chains.read(following, 100)[0]["args"]] == [[1], [2]]
    # Mended, it is read again.
    client.hset(f"swf:callbacks:{damaged['chain']}", "1", values[1])
    assert StoredChains(broker.connection).read(lost, 100)[0]["args"] == [2]
    assert chains.read(lost, 100)[0]["args"] == [2]


def test_a_storage_without_a_broker_says_so() -> None:
    with pytest.raises(ConfigurationError, match="callback_storage="):
        RedisCallbackStorage().store([])
    with pytest.raises(ConfigurationError, match="min_bytes"):
        RedisCallbackStorage(min_bytes=-1)


def test_retrieved_a_stack_is_complete(broker: SidekiqBroker, storage: RedisCallbackStorage, client: Any) -> None:
    job = {"__type__": "job", "class": "A", "args": [1]}
    stack: list[list[Any]] = [["b", {"__type__": "chain", "children": [job] * 3}, False], ["c", None, True]]
    stored = storage.store(stack)
    assert json.loads(json.dumps(stored))[0][1]["__type__"] == "reference"
    assert storage.retrieve(stored) == stack
    client.flushall()
    with pytest.raises(CallbacksMissing):
        storage.retrieve(stored)


class Reversed:
    """A storage of the application's own: everything in one hash, under a number."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.problem: Exception | None = None

    def store(self, callbacks: Any) -> Any:
        number = self.client.incr("mine:n")
        self.client.hset("mine", number, json.dumps(callbacks[::-1]))
        return f"mine/{number}"

    def retrieve(self, stored: Any) -> Any:
        if self.problem is not None:
            raise self.problem
        return json.loads(as_bytes(self.client.hget("mine", stored.removeprefix("mine/"))))[::-1]


def test_a_storage_of_ones_own(redis_url: str, client: redis.Redis, log: list[Any]) -> None:
    broker = make(redis_url, Reversed(client))
    step = declare(broker, log)
    run_id = Workflow(
        Chain(step.message(1), Group(step.message(2), WithDelay(step.message(3), 10)), step.message(4)), broker
    ).run()
    (job,) = members(client, "python")
    assert job["workflow_completion_callbacks"] == "mine/1"
    with working(broker):
        eventually(lambda: 4 in log)
        broker.join("python", timeout=10_000)
    assert log == [1, 2, 3, 4]
    assert client.hlen(f"swf:mem:{run_id}") == 4
    assert client.zcard("dead") == 0
    broker.close()


def test_a_storage_that_cannot_be_reached_fails_the_job_and_not_the_worker(
    redis_url: str, client: redis.Redis, log: list[Any]
) -> None:
    storage = Reversed(client)
    broker = make(redis_url, storage)
    step = declare(broker, log)
    Workflow(Chain(step.message(1), step.message(2)), broker).run()
    storage.problem = OSError("no route to the storage")
    with working(broker):
        (job,) = eventually(lambda: members(client, "retry"))
        assert job["error_class"] == "OSError"
        assert job["workflow_completion_callbacks"] == "mine/1"
        assert not in_flight(client)
        storage.problem = CallbacksMissing("It is not there.")
        (raw,) = raws(client.zrange("retry", 0, -1))
        client.zadd("retry", {raw: 1})
        (dead,) = eventually(lambda: members(client, "dead"))
        assert dead["error_class"] == "CallbacksMissing"
        storage.problem = None
        (raw,) = raws(client.zrange("dead", 0, -1))
        client.zrem("dead", raw)
        client.lpush("queue:python", raw)
        eventually(lambda: log == [1, 2])
    broker.close()


def test_a_lost_connection_to_the_storage_leaves_the_job_where_it_was(
    redis_url: str, client: redis.Redis, log: list[Any]
) -> None:
    storage = Reversed(client)
    broker = make(redis_url, storage)
    step = declare(broker, log)
    Workflow(Chain(step.message(1), step.message(2)), broker).run()
    storage.problem = redis.ConnectionError("gone")
    consumer = broker.consume("python", prefetch=1, timeout=1000)
    assert next(consumer) is None
    storage.problem = None
    message = next(consumer)
    assert message is not None
    consumer.ack(message)
    assert [job["args"] for job in members(client, "python")] == [[2]]
    broker.close()


def test_a_long_chain_in_the_payloads_is_warned_of(
    redis_url: str, log: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    payload_size._warned.clear()
    broker = make(redis_url, InlineCallbackStorage())
    step = declare(broker, log)
    with caplog.at_level(logging.WARNING, "dramatiq_sidekiq_flow"):
        Workflow(Chain(*map(step.message, range(100))), broker)
        Workflow(Group(*map(step.message, range(1000))), broker)
        assert caplog.records == []
        for _ in range(2):
            Workflow(Chain(*map(step.message, range(500))), broker)
    (record,) = caplog.records
    assert "callback_storage=RedisCallbackStorage()" in record.getMessage()
    caplog.clear()
    payload_size._warned.clear()
    broker.close()
    other = make(redis_url, RedisCallbackStorage())
    other_step = declare(other, log)
    Workflow(Chain(*map(other_step.message, range(500))), other)
    assert caplog.records == []
    other.close()


def test_the_warning_says_what_the_payloads_really_carry(broker: SidekiqBroker, redis_url: str, log: list[Any]) -> None:
    plain = make(redis_url, InlineCallbackStorage())
    step = declare(plain, log)
    workflow = Workflow(
        Chain(*(Group(step.message(n), Chain(step.message(n), step.message(n))) for n in range(40))), plain
    )
    workflow.run()
    client = redis.Redis.from_url(redis_url)
    carried = 0
    while jobs := client.lrange("queue:python", -1, -1):
        stack = json.loads(jobs[0]).get("workflow_completion_callbacks", [])
        carried += sum(len(json.dumps(tree, separators=(",", ":"))) for _, tree, _ in stack if tree)
        advance(plain)
    assert 0.9 < payload_size.weight(workflow.wire) / carried < 1.1
    client.close()
    plain.close()
