"""``Replication``: what returned is on a replica, seen on a real primary with a real replica."""

from __future__ import annotations

import json
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.errors import ConnectionClosed

from dramatiq_sidekiq_flow import Chain, Group, Job, Replication, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.errors import InvalidWorkflow, NotReplicated
from dramatiq_sidekiq_flow.process.events import Event, Unreplicated
from dramatiq_sidekiq_flow.workflow.engine_lookup import engine_of

from ..redis_values import raws
from ..running import eventually, in_flight, members, working
from .replicas import Pair, pair

#: Seconds that the primary's words are on their way. A command is answered much sooner.
SLOW = 0.1

BOTH = Replication(push=1, acknowledge=1, timeout=2_000)
IMPATIENT = Replication(push=1, acknowledge=1, timeout=50)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair with a slow line between them."""
    with pair(tmp_path_factory.mktemp("replication"), SLOW) as shared:
        yield shared


@pytest.fixture
def servers(shared: Pair) -> Iterator[Pair]:
    """The pair, empty."""
    shared.primary.client.flushall()
    shared.in_step()
    shared.primary.client.config_resetstat()
    yield shared
    assert shared.replica.process is not None
    shared.replica.signal(signal.SIGCONT)
    shared.line.mend()
    shared.in_step()


@pytest.fixture
def stopped(servers: Pair) -> Pair:
    """The pair, whose replica is there and does not answer."""
    servers.replica.signal(signal.SIGSTOP)
    return servers


def broker_of(servers: Pair, replication: Replication | None, **options: Any) -> SidekiqBroker:
    broker = SidekiqBroker(url=servers.primary.url(), replication=replication, **options)
    broker.add_middleware(WorkflowMiddleware())
    return broker


def actor_of(broker: SidekiqBroker) -> dramatiq.Actor[Any, Any]:
    @dramatiq.actor(queue_name="python", broker=broker, max_retries=0)
    def note(value: Any) -> None:
        pass

    return note


def calls(client: redis.Redis, command: str) -> int:
    stats: dict[str, Any] = client.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


# -- what returned is on the replica ------------------------------------------------


def test_a_job_is_on_the_replica_when_send_returns(servers: Pair) -> None:
    broker = broker_of(servers, BOTH)
    note = actor_of(broker)
    replica = servers.replica.client
    for number in range(3):
        note.send(number)
        assert replica.llen("queue:python") == number + 1
    note.send_with_options(args=("later",), delay=60_000)
    assert replica.zcard("schedule") == 1
    broker.close()


def test_without_the_option_it_comes_later(servers: Pair) -> None:
    """What the others measure: the line is slower than an answer."""
    broker = broker_of(servers, None)
    actor_of(broker).send(1)
    assert servers.replica.client.llen("queue:python") == 0
    eventually(lambda: servers.replica.client.llen("queue:python") == 1)
    # Nothing of it is sent.
    broker.close()
    assert calls(servers.primary.client, "wait") == 0
    assert not servers.primary.client.exists("swf:replicated")


def test_each_side_is_an_option_of_its_own(servers: Pair) -> None:
    primary = servers.primary.client
    broker = broker_of(servers, Replication(push=0, acknowledge=1))
    actor_of(broker).send(1)
    assert calls(primary, "wait") == 0
    broker.close()
    broker = broker_of(servers, Replication(push=1, acknowledge=0))
    actor_of(broker).send(2)
    assert calls(primary, "wait") == 1
    broker.process.commit.ack("member", "1:1")
    broker.process.commit.flush()
    assert calls(primary, "wait") == 1
    broker.close()


def test_a_run_is_on_the_replica_when_it_is_started(servers: Pair) -> None:
    broker = broker_of(servers, BOTH)
    note = actor_of(broker)
    run_id = Workflow(Chain(note.message(1), Group(note.message(2), note.message(3))), broker).run()
    replica = servers.replica.client
    assert replica.exists(f"swf:run:{run_id}") == 1
    (first,) = members(replica, "python")
    assert first["workflow_run_id"] == run_id
    broker.close()


def test_a_large_fan_out_is_on_the_replica_when_it_is_started(servers: Pair) -> None:
    broker = broker_of(servers, BOTH)
    note = actor_of(broker)
    run_id = Workflow(Group(*(note.message(number) for number in range(1_500))), broker).run()
    replica = servers.replica.client
    assert replica.exists(f"swf:run:{run_id}") == 1
    # Queued, or still to be poured by any worker.  Read at once: the replica goes on.
    with replica.pipeline(transaction=True) as pipe:
        pipe.llen("queue:python")
        pipe.zcard("swf:fanouts")
        for key in replica.keys("swf:fanout:*"):
            pipe.lrange(key, 0, -1)
        queued, fanouts, *lists = pipe.execute()
    staged = raws(element for elements in lists for element in elements)
    waiting = sum(element.startswith(b"{") for element in staged)
    assert waiting == 0 or fanouts == 1
    assert waiting + queued == 1_500
    broker.close()


def test_a_server_that_has_forgotten_the_scripts(servers: Pair) -> None:
    """The script is sent again with its source, and the replicas are asked again behind it."""
    broker = broker_of(servers, BOTH)
    note = actor_of(broker)
    for number in range(2):
        servers.primary.client.script_flush()
        note.send(number)
        assert servers.replica.client.llen("queue:python") == number + 1
    broker.close()


def test_what_an_actor_sends_is_on_the_replica(servers: Pair) -> None:
    seen: list[int] = []
    broker = broker_of(servers, BOTH)
    note = actor_of(broker)
    broker.declare_queue("other")

    @dramatiq.actor(queue_name="steps", broker=broker, max_retries=0)
    def sender() -> None:
        note.send_with_options(args=(1,), queue_name="other")
        seen.append(servers.replica.client.llen("queue:python") + servers.replica.client.llen("queue:other"))

    Workflow(Chain(sender.message(), Job("Ruby::Step")), broker).run()
    with working(broker, queues={"steps"}):
        eventually(lambda: seen)
        broker.join("steps", timeout=20_000)
    assert seen == [1]
    broker.close()


# -- what does not reach a replica ---------------------------------------------------


def test_a_job_that_no_replica_has_in_time(stopped: Pair) -> None:
    enqueued: list[str] = []

    class Seen(dramatiq.Middleware):
        def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
            enqueued.append(message.message_id)

    broker = broker_of(stopped, IMPATIENT)
    broker.add_middleware(Seen())
    note = actor_of(broker)
    message = note.message(1)
    with pytest.raises(NotReplicated, match=f"The job {message.message_id} is in Redis, but confirmed by 0 of 1") as e:
        broker.enqueue(message)
    assert (e.value.value, e.value.wanted, e.value.got) == (message.message_id, 1, 0)
    # It was pushed, once, and counts as sent.
    assert [job["jid"] for job in members(stopped.primary.client, "python")] == [message.message_id]
    assert enqueued == [message.message_id]
    with pytest.raises(InvalidWorkflow, match="was sent already"):
        Workflow(message, broker)
    # The next one is pushed, too: its producer was given back.
    with pytest.raises(NotReplicated):
        note.send(2)
    with pytest.raises(NotReplicated):
        note.send_with_options(args=(3,), delay=60_000)
    assert len(members(stopped.primary.client, "python")) == 2
    assert len(members(stopped.primary.client, "schedule")) == 1
    assert len(stopped.primary.client.keys("swf:push:*")) == 1
    broker.close()


def test_more_replicas_are_wanted_than_there_are(servers: Pair) -> None:
    broker = broker_of(servers, Replication(push=2, timeout=500))
    with pytest.raises(NotReplicated, match="1 of 2 replicas within 500 ms") as e:
        actor_of(broker).send(1)
    assert (e.value.wanted, e.value.got) == (2, 1)
    broker.close()


def test_a_run_that_no_replica_has_in_time_goes_on_and_may_be_started_again(stopped: Pair) -> None:
    broker = broker_of(stopped, IMPATIENT)
    workflow = Workflow(Chain(actor_of(broker).message(1), Job("Ruby::Step")), broker)
    for _ in range(2):
        with pytest.raises(NotReplicated, match="The run mine is in Redis") as e:
            workflow.run("mine")
        assert e.value.value == "mine"
    stopped.replica.signal(signal.SIGCONT)
    broker.close()
    broker = broker_of(stopped, BOTH)
    actor_of(broker)
    workflow.engine = engine_of(broker)
    assert workflow.run("mine") == "mine"
    assert len(members(stopped.replica.client, "python")) == 1
    broker.close()


def test_a_user_who_may_not_wait_is_told_so(servers: Pair, caplog: pytest.LogCaptureFixture) -> None:
    servers.primary.client.acl_setuser(
        "hasty", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-wait"]
    )
    url = servers.primary.url().replace("redis://", "redis://hasty:secret@")
    broker = SidekiqBroker(url=url, replication=BOTH)
    broker.add_middleware(WorkflowMiddleware())
    note = actor_of(broker)
    with pytest.raises(NotReplicated, match=r"0 of 1 replicas within 2000 ms \(NOPERM"):
        note.send(1)
    with caplog.at_level(logging.WARNING), working(broker):
        broker.join("python", timeout=20_000)
    lines = [record.getMessage() for record in caplog.records]
    assert sum(line.startswith("A write at start was confirmed by 0 of 1") for line in lines) == 1
    assert not broker.process.availability.lasts
    broker.close()
    servers.primary.client.acl_deluser("hasty")


# -- connections that are lost, servers that change ------------------------------------


def in_background(call: Any) -> tuple[threading.Thread, list[Any]]:
    """A call in a thread, and what comes of it."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as e:
            outcome.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def waiting(client: redis.Redis) -> Any:
    """The connection that waits for replicas, as soon as one does."""

    def found() -> Any:
        return next((c for c in client.client_list() if c["cmd"] == "wait" and "b" in c["flags"]), None)

    return eventually(found, what="a client in WAIT")


def test_a_connection_lost_in_the_wait_is_waited_for_again(stopped: Pair) -> None:
    """The repetition pushes nothing; it waits for the first push all the same."""
    broker = broker_of(stopped, BOTH)
    thread, outcome = in_background(lambda: actor_of(broker).send(1))
    first = waiting(stopped.primary.client)
    stopped.primary.client.client_kill_filter(_id=first["id"])
    eventually(lambda: waiting(stopped.primary.client)["id"] != first["id"])
    assert not outcome
    stopped.replica.signal(signal.SIGCONT)
    thread.join(20)
    assert isinstance(outcome[0], dramatiq.Message)
    assert stopped.replica.client.llen("queue:python") == 1
    broker.close()


def test_a_server_that_becomes_a_replica_in_the_wait(servers: Pair) -> None:
    """UNBLOCKED: the push may be undone, so it is made again, at whatever server is found then."""
    broker = broker_of(servers, BOTH)
    note = actor_of(broker)
    # It knows the script, which its repetition then passes without a write.
    note.send(1)
    servers.replica.signal(signal.SIGSTOP)
    thread, outcome = in_background(lambda: note.send(2))
    waiting(servers.primary.client)
    servers.primary.client.replicaof("127.0.0.1", 1)
    try:
        thread.join(20)
        # The address is fixed here: it is the same server, which now refuses.
        assert isinstance(outcome[0], ConnectionClosed)
        assert "READONLY" in str(outcome[0])
    finally:
        servers.primary.client.replicaof("no", "one")
    broker.close()


# -- acknowledgements --------------------------------------------------------------------


def test_one_wait_for_each_round_trip(servers: Pair) -> None:
    broker = broker_of(servers, Replication(push=0, acknowledge=1))
    primary, replica = servers.primary.client, servers.replica.client
    primary.hset("swf:inflight:me", mapping={f"1:{number}": "a job" for number in range(20)})
    eventually(lambda: replica.hlen("swf:inflight:me") == 20)
    for number in range(20):
        broker.process.commit.ack("me", f"1:{number}", may_wait=True)
    broker.process.commit.flush()
    assert replica.hlen("swf:inflight:me") == 0
    # The time may have cut them in two.
    assert 1 <= calls(primary, "wait") == calls(primary, "hdel") <= 3
    broker.close()


def test_what_follows_a_step_is_on_the_replica_when_it_is_acknowledged(servers: Pair) -> None:
    seen: list[tuple[int, int]] = []
    replica = servers.replica.client

    class Look(dramatiq.Middleware):
        def after_ack(self, broker: Any, message: Any) -> None:
            seen.append((len(in_flight(replica)), replica.llen("queue:ruby")))

    broker = broker_of(servers, BOTH)
    broker.add_middleware(Look())
    Workflow(Chain(actor_of(broker).message(1), Job("Ruby::Step", queue="ruby")), broker).run()
    with working(broker):
        eventually(lambda: seen)
    assert seen == [(0, 1)]
    broker.close()


def test_a_worker_goes_on_without_its_replica(servers: Pair, caplog: pytest.LogCaptureFixture) -> None:
    events: list[Event] = []
    broker = broker_of(servers, Replication(push=0, acknowledge=1, timeout=200))
    broker.events.listeners.append(events.append)
    note = actor_of(broker)
    with caplog.at_level(logging.INFO), working(broker, threads=1):
        servers.replica.signal(signal.SIGSTOP)
        run_id = Workflow(Chain(*(note.message(number) for number in range(20))), broker).run()
        assert run_id
        broker.join("python", timeout=20_000)
        assert len(events) >= 20
        assert {type(event) for event in events} == {Unreplicated}
        servers.replica.signal(signal.SIGCONT)
        servers.in_step()
        eventually(lambda: note.send(0) and "enough replicas again" in caplog.text)
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("ReplicaConfirmation")]
    assert lines == [
        "Acknowledgements are confirmed by 0 of 1 replicas within 200 ms. The worker continues; if Redis fails over "
        "now, finished jobs run again. Check the replicas.",
        "Acknowledgements are confirmed by enough replicas again.",
    ]
    broker.close()


def test_a_replica_that_is_away_costs_its_time_once(stopped: Pair) -> None:
    events: list[Event] = []
    # The next ones do not wait for twenty seconds.
    broker = broker_of(stopped, Replication(push=0, acknowledge=1, timeout=2_000))
    broker.events.listeners.append(events.append)
    for number in range(5):
        broker.process.commit.ack("me", f"1:{number}")
    broker.close()
    assert calls(stopped.primary.client, "wait") == 1
    assert calls(stopped.primary.client, "hdel") == len(events) == 5


def test_a_worker_warns_at_start(servers: Pair, caplog: pytest.LogCaptureFixture) -> None:
    for wanted in (1, 2):
        broker = broker_of(servers, Replication(push=0, acknowledge=wanted, timeout=500))
        with caplog.at_level(logging.WARNING), working(broker):
            pass
        broker.close()
    lines = [record.getMessage() for record in caplog.records if "A write at start" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("A write at start was confirmed by 1 of 2 replicas within 500 ms")


# -- a real failover -----------------------------------------------------------------------


def test_what_returned_survives_a_failover(tmp_path: Path) -> None:
    """Fifty primaries are killed right after `send()` or `run()` has returned."""
    lost: list[int] = []
    with pair(tmp_path, 0.01) as servers:
        for number in range(50):
            broker = broker_of(servers, BOTH)
            note = actor_of(broker)
            if number % 5 == 4:
                sent = Workflow(Chain(note.message(number), Job("Ruby::Step")), broker).run()
            else:
                sent = note.send(number).message_id
            servers.fail_over()
            found = servers.primary.client.lrange("queue:python", 0, -1)
            if not any(sent in (json.loads(raw)["jid"], json.loads(raw).get("workflow_run_id")) for raw in found):
                lost.append(number)
            broker.close()
            servers.mend()
    assert lost == []


def test_without_the_option_a_failover_may_lose_it(tmp_path: Path) -> None:
    """The same, where the replica is cut off: only the option says so."""
    with pair(tmp_path) as servers:
        servers.line.cut()
        broker = broker_of(servers, IMPATIENT)
        with pytest.raises(NotReplicated):
            actor_of(broker).send("told")
        broker.close()
        broker = broker_of(servers, None)
        actor_of(broker).send("not told")
        broker.close()
        servers.fail_over()
        assert members(servers.primary.client, "python") == []
