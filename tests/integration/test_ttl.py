"""How long what a run needs lives: barriers, and its memory."""

from __future__ import annotations

import contextvars
import json
import threading
import time
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.middleware import AsyncIO

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    Job,
    RedisHashMemory,
    SidekiqBroker,
    WithDelay,
    Workflow,
    WorkflowMiddleware,
    current_run,
    extend_ttl,
)
from dramatiq_sidekiq_flow.broker import SidekiqMessage
from dramatiq_sidekiq_flow.broker.begin import begin
from dramatiq_sidekiq_flow.errors import InvalidOptions
from dramatiq_sidekiq_flow.process import upkeep

from ..redis_values import as_bytes, raws, scored
from ..running import eventually, members, working

DAY = 86_400
HORIZON = 21 * DAY
#: A slow machine may need that long between a write and a look, in seconds;
#: and a barrier that has less than an hour to lose is not written again.
SLACK = 3600 + 120


@pytest.fixture
def step(broker: SidekiqBroker) -> Any:
    @dramatiq.actor(queue_name="python", max_retries=2)
    def step(name: str) -> None: ...

    return step


def take(broker: SidekiqBroker) -> SidekiqMessage:
    message = next(broker.consume("python", prefetch=1, timeout=1000))
    assert message is not None
    return message


def finish(broker: SidekiqBroker, output: Any = None) -> SidekiqMessage:
    message = take(broker)
    message.output = output
    broker.consume(message.queue_name, prefetch=1).ack(message)
    return message


def promote(client: redis.Redis) -> None:
    """Whatever is scheduled is due."""
    for member in raws(client.zrange("schedule", 0, -1)):
        client.zrem("schedule", member)
        client.lpush("queue:python", member)


def about(seconds: int, expected: int) -> bool:
    return expected - SLACK <= seconds <= expected + 2


def barriers_of(job: dict[str, Any]) -> list[str]:
    return [key for id, _, _ in job["workflow_completion_callbacks"] for key in (id, f"{id}_ran", f"{id}:u")]


def test_the_memory_outlives_a_long_delay(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    run_id = Workflow(Chain(step.message("a"), WithDelay(step.message("b"), timedelta(days=100)))).run()
    finish(broker, {"text": "kept"})
    assert about(client.ttl(f"swf:mem:{run_id}"), HORIZON + 100 * DAY)


def test_what_is_seeded_outlives_a_long_delay(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    run_id = Workflow(WithDelay(step.message("a"), timedelta(days=100))).start(seed={"n": 1})
    assert about(client.ttl(f"swf:mem:{run_id}"), HORIZON + 100 * DAY)


def test_a_step_that_writes_nothing_keeps_the_memory_alive(
    broker: SidekiqBroker, client: redis.Redis, step: Any
) -> None:
    run_id = Workflow(Chain(*map(step.message, "abc"))).start(seed={"n": 1})
    key = f"swf:mem:{run_id}"
    client.expire(key, 100)  # what a Ruby step leaves behind
    finish(broker)
    assert about(client.ttl(key), HORIZON)


def test_a_sibling_with_a_long_delay_keeps_the_memory_alive(
    broker: SidekiqBroker, client: redis.Redis, step: Any
) -> None:
    """What the fast one writes first is there for the slow one; and so is whom it has counted."""
    slow = WithDelay(step.message("slow"), timedelta(days=100))
    run_id = Workflow(Chain(Group(step.message("fast"), slow), step.message("end"))).run()
    (fast,) = members(client, "python")
    finish(broker, {"text": "kept"})
    assert about(client.ttl(f"swf:mem:{run_id}"), HORIZON + 100 * DAY)
    alive = [client.ttl(key) for key in barriers_of(fast)]
    # The chain's set of units is not there yet: nothing was counted.
    assert [about(ttl, HORIZON + 100 * DAY) for ttl in alive if ttl != -2] == [True] * 5


def test_after_the_end_the_memory_lives_for_its_own_ttl(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    run_id = Workflow(Chain(Group(step.message("a"), step.message("b")), step.message("c"))).start(seed={"n": 1})
    key = f"swf:mem:{run_id}"
    for _ in range(2):
        finish(broker)
        assert about(client.ttl(key), HORIZON)
    finish(broker)
    assert DAY - SLACK < client.ttl(key) <= DAY


def test_a_run_that_is_over_at_once_has_its_own_ttl(broker: SidekiqBroker, client: redis.Redis) -> None:
    run_id = Workflow(Chain(Group())).start(seed={"n": 1})
    assert DAY - SLACK < client.ttl(f"swf:mem:{run_id}") <= DAY


def test_a_longer_ttl_is_what_the_memory_has_at_least(redis_url: str, client: redis.Redis) -> None:
    year = timedelta(days=365)
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(ttl=year)))

    @dramatiq.actor(queue_name="python", broker=broker)
    def step(name: str) -> None: ...

    run_id = Workflow(Chain(step.message("a"), step.message("b")), broker=broker).start(seed={"n": 1})
    key = f"swf:mem:{run_id}"
    for _ in range(2):
        assert about(client.ttl(key), 365 * DAY)
        client.expire(key, 100)
        finish(broker)
    assert about(client.ttl(key), 365 * DAY)
    broker.close()


def test_a_failed_step_keeps_the_memory_until_it_is_tried_again(broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(queue_name="python", max_retries=1, min_backoff=30 * DAY * 1000, max_backoff=30 * DAY * 1000)
    def fails() -> None:
        raise ValueError

    run_id = Workflow(Chain(fails.message(), fails.message())).start(seed={"n": 1})
    key = f"swf:mem:{run_id}"
    with working(broker):
        (job,) = eventually(lambda: members(client, "retry"))
        wait = scored(client.zrange("retry", 0, 0, withscores=True))[0][1] - time.time()
        assert wait > DAY
        assert about(client.ttl(key), HORIZON + int(wait))
        # The second failure is the last.
        (raw,) = raws(client.zrange("retry", 0, 0))
        client.zrem("retry", raw)
        client.lpush("queue:python", raw)
        eventually(lambda: members(client, "dead"))
    assert about(client.ttl(key), HORIZON + 180 * DAY)
    assert about(client.ttl(barriers_of(job)[0]), HORIZON + 180 * DAY)


def test_a_failed_step_keeps_all_for_the_delays_that_follow_it(broker: SidekiqBroker, client: redis.Redis) -> None:
    """Who goes on after it may be Ruby, which makes nothing longer."""

    @dramatiq.actor(queue_name="python")
    def fails() -> None:
        raise ValueError

    run_id = Workflow(Chain(fails.message(), WithDelay(Job("After", queue="ruby"), 50 * DAY * 1000))).start(
        seed={"n": 1}
    )
    (job,) = members(client, "python")
    kept = [*barriers_of(job)[:2], f"swf:mem:{run_id}"]
    for key in kept:
        client.expire(key, 5000)
    with working(broker):
        eventually(lambda: members(client, "retry"))
    assert [about(client.ttl(key), HORIZON + 50 * DAY + 60) for key in kept] == [True] * 3


@pytest.mark.parametrize("options", [{"retry": False}, {"max_retries": 0, "dead": False}], ids=str)
def test_a_step_that_a_plain_job_would_not_survive_is_dead_and_keeps_all(
    broker: SidekiqBroker, client: redis.Redis, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Its run waits for it, and goes on when it is retried."""
    failed: list[Any] = []
    ran: list[Any] = []

    @dramatiq.actor(queue_name="python", **options)
    def fails() -> None:
        if not failed:
            failed.append(1)
            raise ValueError

    @dramatiq.actor(queue_name="python")
    def after() -> None:
        ran.append("after")

    run_id = Workflow(Chain(fails.message(), after.message())).start(seed={"n": 1})
    (job,) = members(client, "python")
    with working(broker):
        (dead,) = eventually(lambda: members(client, "dead"))
        assert (dead["class"], dead["error_class"], dead["retry_count"]) == ("fails", "ValueError", 0)
        assert about(client.ttl(barriers_of(job)[0]), HORIZON + 180 * DAY)
        assert about(client.ttl(f"swf:mem:{run_id}"), HORIZON + 180 * DAY)
        (line,) = [text for text in caplog.messages if "its run waits" in text]
        assert job["jid"] in line
        assert run_id in line
        (raw,) = raws(client.zrange("dead", 0, 0))
        client.zrem("dead", raw)
        client.lpush("queue:python", raw)
        eventually(lambda: ran)
        broker.join("python", timeout=20_000)
    assert ran == ["after"]
    assert not client.exists("dead", "retry")


def test_a_rejected_step_is_dead_though_its_dead_option_is_false(broker: SidekiqBroker, client: redis.Redis) -> None:
    class Reject(dramatiq.Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            message.fail()

    broker.add_middleware(Reject())

    @dramatiq.actor(queue_name="python", dead=False)
    def step() -> None: ...

    Workflow(Chain(step.message(), step.message())).run()
    step.send()
    with working(broker):
        broker.join("python", timeout=20_000)
    (dead,) = members(client, "dead")
    assert dead["workflow_run_id"]


def test_a_poison_pill_may_be_retried_for_as_long_as_it_is_dead(
    broker: SidekiqBroker, client: redis.Redis, step: Any
) -> None:
    run_id = Workflow(Chain(step.message("a"), step.message("b"))).start(seed={"n": 1})
    (job,) = members(client, "python")
    client.set(f"swf:recovered:{job['jid']}", 2)
    message = take(broker)
    member = message.member
    begin(broker.process.in_flight, broker.connection, message)
    client.zadd("swf:workers", {member: time.time() - 3600})
    broker.process.heartbeat.recover(member)
    assert [dead["error_class"] for dead in members(client, "dead")] == ["PoisonPill"]
    assert about(client.ttl(barriers_of(job)[0]), HORIZON + 180 * DAY)
    assert about(client.ttl(f"swf:mem:{run_id}"), HORIZON + 180 * DAY)


def test_a_job_that_was_killed_by_hand_may_be_retried_for_as_long_as_it_is_dead(
    broker: SidekiqBroker, client: redis.Redis, step: Any
) -> None:
    """*Kill* in the Web UI moves the job, and knows nothing of barriers; neither does plain Ruby."""
    run_id = Workflow(Chain(step.message("a"), step.message("b"))).start(seed={"n": 1})
    job = as_bytes(client.rpop("queue:python"))
    client.zadd("dead", {b"not JSON": 1.0, job: time.time(), b'{"swf_completion_callbacks": 1}': time.time() + 9999})
    broker.process.heartbeat.upkeep.work()
    keys = (barriers_of(json.loads(job))[0], f"swf:mem:{run_id}")
    assert all(about(client.ttl(key), HORIZON + 180 * DAY) for key in keys)
    assert float(as_bytes(client.get("swf:keeper:dead"))) == pytest.approx(time.time() - 60, abs=30)


def test_one_process_looks_at_dead_jobs_and_goes_on_where_another_was(
    broker: SidekiqBroker, client: redis.Redis
) -> None:
    seen: list[str] = []

    def keeper() -> upkeep.Upkeep:
        """That of another process."""
        other = upkeep.Upkeep(broker.connection)
        other.handlers.append(lambda job: seen.append(job.jid))
        return other

    begun = time.time() - 10_000
    payload = '{"class": "a", "args": [], "jid": "%d", "workflow_completion_callbacks": []}'
    client.zadd("dead", {payload % n: begun + n // 10 for n in range(2500)})
    for looks in range(3):
        first = keeper()
        first.work()
        # Another one meanwhile.
        keeper().work()
        assert len(seen) <= 1000 * (looks + 1)
        assert client.get("swf:keeper") == first.identity.name.encode()
        assert 0 < client.ttl("swf:keeper") <= upkeep.CLAIM
        client.delete("swf:keeper")
    assert {int(jid) for jid in seen} == set(range(2500))
    seen.clear()
    last = keeper()
    last.work()
    assert 0 < len(seen) <= 610
    # What is read again was handled.
    last.work()
    assert len(seen) <= 610


def test_the_keeper_gives_its_claim_back(broker: SidekiqBroker, client: redis.Redis) -> None:
    first, second = upkeep.Upkeep(broker.connection), upkeep.Upkeep(broker.connection)
    worked = threading.Event()
    for each in (first, second):
        each.duties.append(worked.set)
        # The first time, they wait for a minute.
        each._duties_due = 0.0
        each.look()
    assert worked.wait(20)
    assert client.get("swf:keeper") == first.identity.name.encode()
    first.stop()
    assert not client.exists("swf:keeper")
    # It asks once a minute.
    worked.clear()
    second.look()
    assert not client.exists("swf:keeper")
    second._next = 0.0
    second.look()
    assert worked.wait(20)
    # A third one has taken it over, since it was not renewed in time.
    client.set("swf:keeper", "another", ex=30)
    second.work()
    second.stop()
    assert client.get("swf:keeper") == b"another"


def test_a_step_that_met_no_middleware_keeps_its_barriers(
    redis_url: str, broker: SidekiqBroker, client: redis.Redis, step: Any
) -> None:
    """It may be retried for as long as it is dead."""
    Workflow(Chain(step.message("a"), step.message("b"))).run()
    (job,) = members(client, "python")
    bare = SidekiqBroker(url=redis_url)
    bare.declare_queue("python")
    with working(bare):
        eventually(lambda: members(client, "dead"))
    bare.close()
    assert about(client.ttl(barriers_of(job)[0]), HORIZON + 180 * DAY)


def test_what_a_step_writes_while_it_works_lives_longer_than_the_step(redis_url: str, client: redis.Redis) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(ttl=1000)))
    seen: list[int] = []

    @dramatiq.actor(queue_name="python", broker=broker)
    def writes() -> None:
        run = current_run()
        run.memory.write({"a": 1})
        seen.append(client.ttl(f"swf:mem:{run.run_id}"))

    Workflow(writes.message(), broker=broker).run()
    with working(broker):
        broker.join("python", timeout=20_000)
    assert about(seen[0], HORIZON)


def test_a_write_from_outside_never_makes_it_shorter(broker: SidekiqBroker, client: redis.Redis) -> None:
    memory = RedisHashMemory(ttl=timedelta(hours=1))
    memory.bind(broker.connection)
    memory.write("one", {"a": 1})
    assert 3600 - SLACK < client.ttl("swf:mem:one") <= 3600
    client.expire("swf:mem:one", DAY)
    memory.write("one", {"b": [1.0, None]})
    assert client.ttl("swf:mem:one") > 3600
    assert memory.read("one") == {"a": 1, "b": [1.0, None]}


@pytest.mark.parametrize("delay", [10**15, 10**15 + 1, 10**19, 10**400, 1e300])
def test_delays_that_no_redis_can_count_do_not_stop_a_worker(
    broker: SidekiqBroker, client: redis.Redis, step: Any, delay: Any
) -> None:
    """Redis refuses a ttl past the end of its clock, and a script that is half done has no way back."""
    Workflow(Chain(step.message("a"), WithDelay(step.message("b"), 1), step.message("c"))).run()
    (raw,) = raws(client.lrange("queue:python", 0, -1))
    client.delete("queue:python")
    client.lpush("queue:python", raw.replace(b'"delay":1,', f'"delay":{delay},'.encode()))
    with working(broker):
        if delay <= 10**15:
            eventually(lambda: client.zcard("schedule"))
        else:
            (dead,) = eventually(lambda: members(client, "dead"))
            assert dead["error_class"] == "InvalidNode"


def test_a_negative_delay_takes_nothing_from_the_others(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    """Ruby refuses none."""
    Workflow(Chain(step.message("a"), WithDelay(step.message("b"), 1), step.message("c"))).run()
    (raw,) = client.lrange("queue:python", 0, -1)
    job = json.loads(raw)
    job["workflow_completion_callbacks"][0][1]["children"][0]["delay"] = -(10**13)
    client.delete("queue:python")
    client.lpush("queue:python", json.dumps(job))
    finish(broker)
    promote(client)
    finish(broker)
    assert [job["args"] for job in members(client, "python")] == [["c"]]


# -- extend_ttl ------------------------------------------------------------------


def extending(broker: SidekiqBroker, ttl: Any, seen: list[Any]) -> Any:
    @dramatiq.actor(queue_name="python", max_retries=0)
    def extends(*names: str) -> None:
        try:
            seen.append(extend_ttl(ttl))
        except Exception as e:
            seen.append(e)

    return extends


@pytest.mark.parametrize(
    ("ttl", "expected"),
    [(None, HORIZON), (60 * DAY * 1000, 60 * DAY), (timedelta(days=60), 60 * DAY)],
    ids=["by the rule", "milliseconds", "timedelta"],
)
def test_extend_ttl_extends_barriers_and_memory(
    broker: SidekiqBroker, client: redis.Redis, ttl: Any, expected: int
) -> None:
    looked: list[list[int]] = []

    @dramatiq.actor(queue_name="python")
    def extends(name: str) -> None:
        run = current_run()
        keys = [*barriers, f"swf:mem:{run.run_id}"]
        for key in keys:
            client.expire(key, 5000)
        extend_ttl(ttl)
        looked.append([client.ttl(key) for key in keys])

    @dramatiq.actor(queue_name="python")
    def first() -> None: ...

    tree = Chain(Group(first.message(), Chain(extends.message("a"), first.message())), first.message())
    run_id = Workflow(tree).start(seed={"n": 1})
    finish(broker)  # so that one set of units is there
    (job,) = members(client, "python")
    barriers = [key for key in barriers_of(job) if client.exists(key)]
    assert len(barriers) == 7
    with working(broker):
        eventually(lambda: looked)
    assert [about(ttl, expected) for ttl in looked[0]] == [True] * 8, looked
    assert run_id


def test_extend_ttl_never_shortens(broker: SidekiqBroker, client: redis.Redis) -> None:
    left: list[int] = []

    @dramatiq.actor(queue_name="python")
    def extends() -> None:
        run = current_run()
        client.expire(f"{barrier}_ran", 3000)
        client.persist(f"swf:mem:{run.run_id}")
        extend_ttl(timedelta(days=60))
        extend_ttl(5000)
        extend_ttl()
        keys = (barrier, f"{barrier}_ran", f"swf:mem:{run.run_id}", f"swf:keep:swf:mem:{run.run_id}")
        left.extend(map(client.ttl, keys))

    Workflow(Chain(extends.message(), Job("After", queue="ruby"))).start(seed={"n": 1})
    barrier = members(client, "python")[0]["workflow_completion_callbacks"][0][0]
    with working(broker):
        eventually(lambda: client.llen("queue:ruby"))
    assert [about(ttl, 60 * DAY) for ttl in left] == [True, True, False, True], left
    assert left[2] == -1  # what somebody lets live for ever, lives


def test_by_the_rule_the_memory_does_not_outlive_its_run(broker: SidekiqBroker, client: redis.Redis) -> None:
    seen: list[Any] = []
    run_id = Workflow(extending(broker, None, seen).message()).start(seed={"n": 1})
    with working(broker):
        broker.join("python", timeout=20_000)
    assert seen == [True]
    assert not client.keys("swf:keep:*")
    assert DAY - SLACK < client.ttl(f"swf:mem:{run_id}") <= DAY


def test_what_was_asked_for_holds_after_the_end(broker: SidekiqBroker, client: redis.Redis) -> None:
    seen: list[Any] = []
    extends = extending(broker, timedelta(days=60), seen)

    @dramatiq.actor(queue_name="python")
    def last() -> dict[str, int]:
        return {"m": 2}

    run_id = Workflow(Chain(extends.message(), last.message())).start(seed={"n": 1})
    # And where there is no memory yet, and no barrier.
    alone = Workflow(extends.message()).run()
    with working(broker):
        broker.join("python", timeout=20_000)
    assert about(client.ttl(f"swf:mem:{run_id}"), 60 * DAY)
    assert seen == [True, True]
    memory = RedisHashMemory()
    memory.bind(broker.connection)
    memory.clear(run_id)
    assert client.exists(f"swf:keep:swf:mem:{run_id}") == 0
    assert client.exists(f"swf:keep:swf:mem:{alone}") == 1


def test_extend_ttl_is_one_round_trip(broker: SidekiqBroker, client: redis.Redis) -> None:
    counts: list[int] = []

    @dramatiq.actor(queue_name="python")
    def extends() -> None:
        extend_ttl(timedelta(days=1))  # the script is loaded
        broker.process.poller.stop()
        commands: list[Any] = []
        connection: Any = broker.connection
        original = connection.send

        def send(sent: Any) -> Any:
            if threading.current_thread() is me:
                commands.append(sent)
            return original(sent)

        me = threading.current_thread()
        connection.send = send
        try:
            extend_ttl(timedelta(days=2))
        finally:
            del connection.send
        counts.append(len(commands))

    Workflow(Chain(extends.message(), extends.message())).start(seed={"n": 1})
    with working(broker, threads=1):
        broker.join("python", timeout=20_000)
    assert counts == [1, 1]


@pytest.mark.parametrize("ttl", [0, -5000, 999, timedelta(0), 1.5, "1 day", True])
def test_a_ttl_that_is_none_is_refused(ttl: Any) -> None:
    with pytest.raises(InvalidOptions, match="milliseconds"):
        extend_ttl(ttl)


def test_outside_of_a_run_there_is_nothing_to_extend(broker: SidekiqBroker, client: redis.Redis) -> None:
    """As in the gem, which answers false: an actor may run with a workflow and without."""
    assert extend_ttl() is False
    seen: list[Any] = []
    extending(broker, None, seen).send()
    with working(broker):
        eventually(lambda: seen)
    assert seen == [False]
    assert not client.exists("retry", "dead")


def test_without_a_memory_the_barriers_are_extended(redis_url: str, client: redis.Redis) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware())
    dramatiq.set_broker(broker)
    seen: list[Any] = []
    extends = extending(broker, timedelta(days=60), seen)
    Workflow(Chain(extends.message(), WithDelay(extends.message(), 10**9), extends.message())).run()
    (job,) = members(client, "python")
    with working(broker):
        eventually(lambda: client.zcard("schedule"))
    assert seen == [True]
    assert not client.keys("swf:keep:*")
    assert job["workflow_completion_callbacks"]


def test_async_actors_and_threads_have_the_run(redis_url: str, client: redis.Redis) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(AsyncIO())
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
    seen: dict[str, Any] = {}

    def look(how: str) -> None:
        run = current_run()
        extend_ttl(timedelta(days=60))
        run.memory.write({how: run.depth})
        seen[how] = (run.run_id, client.ttl(f"swf:mem:{run.run_id}"))

    @dramatiq.actor(queue_name="python", broker=broker)
    async def in_a_task() -> None:
        look("async")

    @dramatiq.actor(queue_name="python", broker=broker)
    def in_a_thread() -> None:
        thread = threading.Thread(target=contextvars.copy_context().run, args=(look, "thread"))
        thread.start()
        thread.join()

    run_id = Workflow(Chain(in_a_task.message(), in_a_thread.message()), broker=broker).start(seed={"n": 1})
    with working(broker):
        broker.join("python", timeout=20_000)
    assert {how: run for how, (run, _) in seen.items()} == {"async": run_id, "thread": run_id}
    assert all(about(ttl, 60 * DAY) for _, ttl in seen.values())
    assert client.hgetall(f"swf:mem:{run_id}") == {b"n": b"1", b"async": b"1", b"thread": b"0"}
