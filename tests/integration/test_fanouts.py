"""Fan-outs too large for one script: staged, committed in one step, poured a part at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Group, Job, SidekiqBroker, WithDelay, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.store import fanouts, keys, runs, scripts, workers
from dramatiq_sidekiq_flow.store.connection import Connection
from dramatiq_sidekiq_flow.store.outcomes import Done
from dramatiq_sidekiq_flow.wire.barrier import NewBarrier

from ..redis_values import scored
from ..running import eventually, members, working

SIZE = 3_500


@pytest.fixture
def step(broker: SidekiqBroker) -> Any:
    @dramatiq.actor(queue_name="python")
    def step(name: Any = None) -> None: ...

    return step


def finish_first(broker: SidekiqBroker) -> None:
    """Run the next job of the queue, and advance its run."""
    consumer = broker.consume("python", prefetch=1, timeout=1000)
    message = next(consumer)
    assert message is not None
    consumer.ack(message)


def children(count: int = SIZE) -> Group:
    return Group(*(Job("R", n, queue="ruby") for n in range(count)))


def arguments(client: redis.Redis, queue: str = "ruby") -> list[Any]:
    """The first argument of each job, the next one to be taken first."""
    return [job["args"][0] for job in reversed(members(client, queue))]


def pour_one(client: redis.Redis, broker: SidekiqBroker, fanout_id: str, most: int) -> bytes:
    """One call of ``pour.lua``."""
    command = scripts.POUR.command(
        (keys.FANOUTS, keys.fanout(fanout_id), "queues", "schedule"), (fanout_id, most, 10**6)
    )
    outcome: bytes = broker.connection.call(*command)[0]
    return outcome


@pytest.fixture
def committed(broker: SidekiqBroker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], str]:
    """Starts a workflow whose process dies right after the commit; the ID of the fan-out."""

    def start(tree: Any) -> str:
        with monkeypatch.context() as patched:
            patched.setattr("dramatiq_sidekiq_flow.workflow.start.pour", lambda connection, writes: None)
            Workflow(tree).run()
        ((fanout_id, _),) = scored(client.zrange("swf:fanouts", 0, -1, withscores=True))
        return str(fanout_id.decode())

    return start


def test_the_commit_itself_pushes_nothing(client: redis.Redis, step: Any, committed: Callable[[Any], str]) -> None:
    """Its time does not depend on the size: it writes a run's marker, one zset member and no TTL."""
    fanout_id = committed(children())
    assert not client.exists("queue:ruby")
    assert client.llen(f"swf:fanout:{fanout_id}") == SIZE + 3  # two barriers, the queue
    assert client.ttl(f"swf:fanout:{fanout_id}") == -1


def test_each_script_moves_a_part(broker: SidekiqBroker, client: redis.Redis, committed: Callable[[Any], str]) -> None:
    fanout_id = committed(children())
    for poured in (998, 1997, 2996):
        assert pour_one(client, broker, fanout_id, 1000) == b"MORE"
        assert client.llen("queue:ruby") == poured
    assert pour_one(client, broker, fanout_id, 1000) == b"DONE"
    assert arguments(client) == list(range(SIZE))
    assert client.keys("swf:fanout*") == []
    # Again, late: nothing.
    assert pour_one(client, broker, fanout_id, 1000) == b"DONE"
    assert client.llen("queue:ruby") == SIZE


@pytest.mark.parametrize("most", [2, 3, 7])
def test_any_size_of_a_part_moves_all_in_order(
    broker: SidekiqBroker, client: redis.Redis, committed: Callable[[Any], str], monkeypatch: Any, most: int
) -> None:
    monkeypatch.setattr(runs, "MAX_INLINE", 3)
    late = [WithDelay(Job("R", n, queue="late"), 60_000 + n) for n in range(4)]
    other = [Job("R", n, queue="other") for n in range(5)]
    first, second = Chain(Job("R", 0, queue="ruby"), Job("R", 1)), [Job("R", n, queue="ruby") for n in (1, 2)]
    fanout_id = committed(Group(first, *other, *second, *late))
    for _ in range(40):
        if pour_one(client, broker, fanout_id, most) == b"DONE":
            break
    else:
        raise AssertionError("it does not end")
    assert arguments(client) == [0, 1, 2]
    assert arguments(client, "other") == [0, 1, 2, 3, 4]
    assert [job["args"] for job in members(client, "schedule")] == [[0], [1], [2], [3]]
    assert client.smembers("queues") == {b"ruby", b"other"}
    for barrier, value in ((0, b"12"), (1, b"1")):
        name = members(client, "ruby")[-1]["workflow_completion_callbacks"][barrier][0]
        assert client.mget(name, f"{name}_ran") == [value, b"-1"]
        assert min(client.ttl(name), client.ttl(f"{name}_ran")) > 86_400


@pytest.mark.parametrize("place", ["start", "advance"])
def test_a_dead_processes_fan_out_is_poured_by_any_other(
    redis_url: str, broker: SidekiqBroker, client: redis.Redis, step: Any, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """It dies after the second part."""
    original = fanouts.pour

    def dying(connection: Any, fanout_id: str) -> None:
        assert pour_one(client, broker, fanout_id, 1000) == b"MORE"
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(fanouts, "pour", dying)
    if place == "start":
        with pytest.raises(redis.ConnectionError):
            Workflow(children()).run()
    else:
        Workflow(Chain(step.message("a"), children())).run()
        finish_first(broker)
    assert 900 < client.llen("queue:ruby") < SIZE
    monkeypatch.setattr(fanouts, "pour", original)
    other = SidekiqBroker(url=redis_url)
    other.add_middleware(WorkflowMiddleware())
    other.process.heartbeat.register("elsewhere")
    other.process.heartbeat.beat()
    assert arguments(client) == list(range(SIZE))
    assert client.keys("swf:fanout*") == []
    other.process.heartbeat.stop()
    other.close()


def test_run_again_after_an_error_pours_what_the_first_call_committed(
    client: redis.Redis, step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(connection: Any, fanout_id: str) -> None:
        raise redis.ConnectionError("gone")

    workflow = Workflow(children())
    with monkeypatch.context() as patched:
        patched.setattr(fanouts, "pour", dying)
        with pytest.raises(redis.ConnectionError):
            workflow.run("mine")
    assert not client.exists("queue:ruby")
    workflow.run("mine")
    assert arguments(client) == list(range(SIZE))
    assert not client.exists("swf:fanouts")


def test_run_again_without_an_id_is_the_run_that_the_call_that_raised_has_started(
    client: redis.Redis, step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply of the start was lost, twice."""
    workflow = Workflow(Chain(step.message("a"), step.message("b")))
    original = Connection.write

    def deaf(self: Connection, *command: Any) -> Any:
        original(self, *command)
        raise redis.ConnectionError("the reply is lost")

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "write", deaf)
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                workflow.run()
    (job,) = members(client, "python")
    assert workflow.run() == job["workflow_run_id"]
    assert client.llen("queue:python") == 1
    # It has returned: the next one is another run.
    assert workflow.run() != job["workflow_run_id"]
    assert client.llen("queue:python") == 2


def test_what_is_not_committed_expires_and_is_never_poured(broker: SidekiqBroker, client: redis.Redis) -> None:
    jobs = [json.dumps({"n": n}).encode() for n in range(1500)]
    staged = runs.writes(broker.connection, (), {"ruby": jobs}, ())
    assert 0 < client.ttl(f"swf:fanout:{staged.fanout}") <= fanouts.STAGE_TTL
    fanouts.pour(broker.connection, staged.fanout)
    assert fanouts.pending(broker.connection) == []
    assert client.llen(f"swf:fanout:{staged.fanout}") == 1501
    assert not client.exists("queue:ruby")


class Disturbed(Connection):
    """Loses its connection ``lose`` times, when the server has run the first ``ran`` commands of four or more."""

    lose, ran = 0, 0

    def _send(self, commands: Any) -> list[Any]:
        if len(commands) < 4 or not self.lose:
            return super()._send(commands)
        self.lose -= 1
        connection = self.open()
        self._exchange(connection, commands[: self.ran])
        connection.disconnect()
        raise redis.ConnectionError("the connection is lost")


@pytest.fixture
def disturbed(redis_url: str) -> Disturbed:
    return Disturbed(redis.Redis.from_url(redis_url))


@pytest.mark.parametrize("ran", [1, 2, 3, 4, 6, 8])
def test_elements_that_were_sent_twice_are_poured_once(disturbed: Disturbed, client: redis.Redis, ran: int) -> None:
    """A list that may have some twice is left to expire."""
    jobs = [json.dumps({"n": n}).encode() for n in range(1500)]
    disturbed.lose, disturbed.ran = 1, ran
    staged = runs.writes(disturbed, (), {"ruby": jobs}, ())
    assert not disturbed.lose
    assert client.lrange(f"swf:fanout:{staged.fanout}", 0, -1) == [b"qruby", *jobs]
    lists = client.keys("swf:fanout:*")
    assert len(lists) == 2
    assert all(0 < client.ttl(key) <= fanouts.STAGE_TTL for key in lists)
    assert runs.start("r", staged, ttl=60).run(disturbed) == Done()
    fanouts.pour(disturbed, staged.fanout)
    assert members(client, "ruby")[::-1] == [{"n": n} for n in range(1500)]
    assert client.exists(*lists) == len(lists) - 1


@pytest.mark.parametrize("ran", [2, 3, 4, 6])
def test_a_list_never_lacks_its_ttl(disturbed: Disturbed, client: redis.Redis, ran: int) -> None:
    disturbed.lose, disturbed.ran = 2, ran
    with pytest.raises(redis.ConnectionError):
        runs.writes(disturbed, (), {"ruby": [b"{}"] * 1500}, ())
    assert [0 < client.ttl(key) <= fanouts.STAGE_TTL for key in client.keys()] == [True] * (ran >= 4)


def test_many_chains_side_by_side_have_their_barriers(broker: SidekiqBroker, client: redis.Redis, step: Any) -> None:
    """As many barriers as jobs; they are there before the first job is."""
    seen: list[int] = []
    original = fanouts._send

    def looking(connection: Any, commands: Any) -> Any:
        for command in commands:
            original(connection, [command])
            if client.exists("queue:python"):
                wanted = {job["workflow_completion_callbacks"][-1][0] for job in members(client, "python")}
                seen.append(client.exists(*wanted) - len(wanted))
        return original(connection, commands)

    fanouts._send = looking
    try:
        Workflow(Group(*(Chain(step.message(n), step.message()) for n in range(1200)))).run()
    finally:
        fanouts._send = original
    assert seen
    assert set(seen) == {0}
    assert client.llen("queue:python") == 1200


def test_a_queue_that_became_another_type_keeps_the_rest(
    broker: SidekiqBroker, client: redis.Redis, committed: Callable[[Any], str], caplog: pytest.LogCaptureFixture
) -> None:
    fanout_id = committed(children(1500))
    client.set("queue:ruby", "text")
    broker.process.heartbeat.register("python")
    for _ in range(3):
        broker.process.heartbeat.beat()
    assert [r.getMessage() for r in caplog.records if "fan-out" in r.getMessage()] == [
        "The Redis key 'queue:ruby' holds another type, so a fan-out waits. Remove it."
    ]
    assert client.llen(f"swf:fanout:{fanout_id}") == 1502
    client.delete("queue:ruby")
    broker.process.heartbeat.beat()
    assert arguments(client) == list(range(1500))


def test_fan_outs_that_wait_keep_no_other_back(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(20):
        client.rpush(f"swf:fanout:{number}", "qstuck", "{}")
        client.zadd("swf:fanouts", {str(number): number})
    client.rpush("swf:fanout:good", "qruby", "{}")
    client.zadd("swf:fanouts", {"good": 100})
    client.set("queue:stuck", "text")
    broker.process.heartbeat.register("python")
    for _ in range(2):
        broker.process.heartbeat.beat()
    assert client.llen("queue:ruby") == 1
    assert client.zcard("swf:fanouts") == 20
    assert sum("fan-out waits" in record.getMessage() for record in caplog.records) == 20


def test_a_beat_goes_on_where_the_key_of_fan_outs_is_of_another_type(
    broker: SidekiqBroker, client: redis.Redis
) -> None:
    client.set("swf:fanouts", "text")
    broker.process.heartbeat.register("python")
    broker.process.heartbeat.beat()
    assert client.get("swf:fanouts") == b"text"


@pytest.mark.parametrize("key", ["queues", "schedule", "swf:fanouts", "swf:fanout:x", "queue:ruby"])
def test_nothing_is_written_where_a_key_is_of_another_type(
    broker: SidekiqBroker, client: redis.Redis, key: str
) -> None:
    client.rpush("swf:fanout:x", "b60 1 -1 barrier", "qruby", "{}", "s17.5 {}")
    client.zadd("swf:fanouts", {"x": 1})
    client.set(key, "text")
    before = {name: client.dump(name) for name in client.keys()}
    assert pour_one(client, broker, "x", 100) == b"TYPE"
    assert {name: client.dump(name) for name in client.keys()} == before


def test_a_beat_says_whether_fan_outs_wait(broker: SidekiqBroker, client: redis.Redis) -> None:
    assert not workers.beat(broker.connection, {}, 60.0).fanouts
    client.zadd("swf:fanouts", {"x": 1})
    assert workers.beat(broker.connection, {}, 60.0).fanouts


def test_join_waits_for_what_is_still_to_be_poured(
    broker: SidekiqBroker, client: redis.Redis, step: Any, committed: Callable[[Any], str]
) -> None:
    committed(Group(*(step.message(n) for n in range(1100))))
    with pytest.raises(dramatiq.errors.QueueJoinTimeout):
        broker.join("python", timeout=50)
    with working(broker):
        broker.process.heartbeat.beat()
        broker.join("python", timeout=20_000)
    assert eventually(lambda: not client.exists("queue:python"))


def test_a_full_redis_still_pours(broker: SidekiqBroker, client: redis.Redis, committed: Callable[[Any], str]) -> None:
    """It moves what is there already."""
    fanout_id = committed(children(1100))
    used = client.info("memory")["used_memory"]
    client.config_set("maxmemory", used // 2)
    try:
        while pour_one(client, broker, fanout_id, 300) == b"MORE":
            pass
    finally:
        client.config_set("maxmemory", 0)
    assert client.llen("queue:ruby") == 1100


def test_barriers_of_a_plan_are_staged_as_they_are(broker: SidekiqBroker, client: redis.Redis) -> None:
    made = [NewBarrier(f"b{n}", n, 100 + n) for n in range(1001)]
    staged = runs.writes(broker.connection, made, {}, ())
    assert runs.start("r", staged, ttl=60).run(broker.connection) == Done()
    fanouts.pour(broker.connection, staged.fanout)
    assert client.mget("b0", "b0_ran", "b1000", "b1000_ran") == [b"0", b"0", b"1000", b"-1"]
    assert client.ttl("b1000") in (1099, 1100)
    assert client.keys("swf:fanout*") == []
