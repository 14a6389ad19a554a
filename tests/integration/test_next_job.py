"""The next step of a chain, which the thread that finished the step before runs at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.middleware import Middleware

from dramatiq_sidekiq_flow import Chain, Group, Job, SidekiqBroker, WithDelay, Workflow
from dramatiq_sidekiq_flow.broker import next_job
from dramatiq_sidekiq_flow.broker.in_flight import InFlight
from dramatiq_sidekiq_flow.store import runs
from dramatiq_sidekiq_flow.store.connection import Connection
from dramatiq_sidekiq_flow.store.outcomes import DONE, GONE, KEPT, Kept, Outcome
from dramatiq_sidekiq_flow.store.runs import Walk

from .. import operations
from ..operations import CHAIN, INNER, ME, MINE, TTL
from ..running import eventually, in_flight, members, working

NEXT = {"python": [b"next"]}


Advance = Callable[..., Outcome]


@pytest.fixture(params=["chain", "group"])
def advanced(request: pytest.FixtureRequest, connection: Connection, client: redis.Redis) -> Advance:
    """Ends a step with a plan of one job: a step of a chain, or the last member of a group in a chain."""
    walk = [Walk(CHAIN, "f")] if request.param == "chain" else [Walk(INNER, "n"), Walk(CHAIN, "f")]
    client.hset(MINE, "a:1", "job")
    operations.barriers(client, *(entry.barrier for entry in walk))

    def advanced(keep: str = "b:1", receipt: str = "a:1") -> Outcome:
        plan = runs.writes(connection, [], NEXT, [])
        return runs.advance(ME, receipt, "jid", walk, ttl=TTL, planned=len(walk), plan=plan, keep=keep).run(connection)

    return advanced


# -- the script ------------------------------------------------------------------


def test_the_next_job_is_in_flight(advanced: Advance, client: redis.Redis) -> None:
    assert advanced() == KEPT
    assert client.hgetall(MINE) == {b"b:1": b"next"}
    assert client.get(f"{CHAIN}_ran") == b"0"
    # The queue was not touched: no other worker is woken.
    assert not client.exists("queue:python", "queues")


def test_sent_again_it_gives_the_job_that_was_kept(advanced: Advance, client: redis.Redis) -> None:
    advanced()
    client.hset(MINE, "b:1", "kept by the first call")
    assert advanced() == Kept(b"kept by the first call")
    client.hdel(MINE, "b:1")
    assert advanced() == GONE
    assert not client.exists(MINE, "queue:python")


def test_a_job_that_was_recovered_is_not_advanced(advanced: Advance, client: redis.Redis) -> None:
    client.delete(MINE)
    assert advanced() == GONE
    assert not client.exists(MINE, "queue:python")
    assert client.get(CHAIN) == b"1"


def test_a_job_of_the_queue_goes_first(advanced: Advance, client: redis.Redis) -> None:
    client.lpush("queue:python", "earlier")
    assert advanced() == DONE
    assert client.lrange("queue:python", 0, -1) == [b"next", b"earlier"]
    assert client.smembers("queues") == {b"python"}
    assert not client.exists(MINE)


def test_a_paused_queue_keeps_nothing(advanced: Advance, client: redis.Redis) -> None:
    client.sadd("paused", "python")
    assert advanced() == DONE
    assert client.lrange("queue:python", 0, -1) == [b"next"]


def test_another_paused_queue_does_not_matter(advanced: Advance, client: redis.Redis) -> None:
    client.sadd("paused", "another")
    assert advanced() == KEPT


def test_a_key_of_another_type_pauses_nothing(advanced: Advance, client: redis.Redis) -> None:
    client.set("paused", "python")
    assert advanced() == KEPT


def test_without_an_offer_it_is_pushed(advanced: Advance, client: redis.Redis) -> None:
    assert advanced(keep="") == DONE
    assert client.lrange("queue:python", 0, -1) == [b"next"]


# -- a worker ----------------------------------------------------------------------


@pytest.fixture
def note(broker: SidekiqBroker) -> Any:
    ran: list[tuple[int, int]] = []

    @dramatiq.actor(queue_name="python")
    def note(number: int) -> None:
        ran.append((number, threading.get_ident()))

    note.ran = ran  # type: ignore[attr-defined]
    return note


def test_one_thread_runs_a_chain(broker: SidekiqBroker, client: redis.Redis, note: Any) -> None:
    with working(broker):
        Workflow(Chain(*(note.message(number) for number in range(30)))).run()
        eventually(lambda: len(note.ran) == 30)
        broker.join("python", timeout=10_000)
    assert [number for number, _ in note.ran] == list(range(30))
    assert len({thread for _, thread in note.ran}) == 1
    assert not in_flight(client)
    assert not members(client, "dead")


def test_a_step_costs_one_round_trip(broker: SidekiqBroker, client: redis.Redis, note: Any) -> None:
    with working(broker):
        note.send(-1)
        eventually(lambda: note.ran)
        broker.join("python", timeout=10_000)
        client.config_resetstat()
        began = time.monotonic()
        Workflow(Chain(*(note.message(number) for number in range(100)))).run()
        eventually(lambda: len(note.ran) == 101)
        stats = client.info("commandstats")
        # Of the poller: 20 in a second.
        looks = 40 * (time.monotonic() - began)
    # Besides the steps: the start, the fetch of the first one, and beats.
    assert stats["cmdstat_evalsha"]["calls"] < 110 + looks
    assert stats["cmdstat_rpop"]["calls"] < 10


def test_each_run_has_a_thread(broker: SidekiqBroker, client: redis.Redis, note: Any) -> None:
    with working(broker):
        for first in range(0, 400, 100):
            Workflow(Chain(*(note.message(first + number) for number in range(20)))).run()
        eventually(lambda: len(note.ran) == 80)
        broker.join("python", timeout=10_000)
    for first in range(0, 400, 100):
        assert [number for number, _ in note.ran if first <= number < first + 100] == [first + n for n in range(20)]
    assert not in_flight(client)


def test_other_jobs_of_the_queue_have_their_turn(broker: SidekiqBroker, client: redis.Redis, note: Any) -> None:
    """One thread, a long chain, and a job that is sent while it runs."""
    ran: list[int] = []

    @dramatiq.actor(queue_name="python")
    def sends(number: int) -> None:
        ran.append(number)
        if number == 10:
            note.send(0)

    with working(broker, threads=1):
        Workflow(Chain(*(sends.message(number) for number in range(60)))).run()
        eventually(lambda: note.ran)
        at_its_turn = len(ran)
        eventually(lambda: len(ran) == 60)
    assert at_its_turn < 60


def test_jobs_of_another_queue_have_their_turn(broker: SidekiqBroker, client: redis.Redis, note: Any) -> None:
    ran: list[int] = []
    sent = threading.Event()

    @dramatiq.actor(queue_name="other")
    def other(number: int) -> None:
        ran.append(len(note.ran))

    class Send(Middleware):
        def after_process_message(self, broker: Any, message: Any, **rest: Any) -> None:
            if len(note.ran) == 10 and not sent.is_set():
                sent.set()
                other.send(0)

    broker.add_middleware(Send())
    with working(broker, threads=1):
        Workflow(Chain(*(note.message(number) for number in range(2_000)))).run()
        eventually(lambda: ran)
        eventually(lambda: len(note.ran) == 2_000, seconds=60)
    assert ran[0] < 2_000


@pytest.mark.parametrize("quiet", [False, True])
def test_a_quiet_process_keeps_nothing(broker: SidekiqBroker, client: redis.Redis, note: Any, quiet: bool) -> None:
    class Quiet(Middleware):
        def after_process_message(self, broker: Any, message: Any, **rest: Any) -> None:
            broker.process.quiet = quiet

    broker.add_middleware(Quiet())
    with working(broker):
        Workflow(Chain(note.message(1), note.message(2))).run()
        eventually(lambda: (note.ran and members(client, "python")) if quiet else len(note.ran) == 2)
        broker.process.quiet = False
    assert [number for number, _ in note.ran][: 1 if quiet else 2] == ([1] if quiet else [1, 2])


def test_a_paused_worker_keeps_nothing(broker: SidekiqBroker, client: redis.Redis, note: Any) -> None:
    """`Worker.pause`: its threads run no job until it is resumed."""
    worker: list[dramatiq.Worker] = []

    class Pause(Middleware):
        def after_process_message(self, broker: Any, message: Any, **rest: Any) -> None:
            for thread in worker[0].workers:
                thread.paused = True

    broker.add_middleware(Pause())
    with working(broker, threads=1) as running:
        worker.append(running)
        Workflow(Chain(note.message(1), note.message(2))).run()
        # In the worker's queue, from which a shutdown gives jobs back.
        eventually(lambda: note.ran and running.work_queue.qsize() == 1)
        assert len(note.ran) == 1
        running.resume()
        eventually(lambda: len(note.ran) == 2)


def test_a_step_of_an_unknown_actor_is_retried(broker: SidekiqBroker, client: redis.Redis, note: Any) -> None:
    Workflow(Chain(note.message(1), Job("Unknown", queue="python", retry=5))).run()
    with working(broker):
        eventually(lambda: members(client, "retry"))
    (job,) = members(client, "retry")
    assert (job["class"], job["error_class"]) == ("Unknown", "ActorNotFound")
    assert not in_flight(client)


@pytest.mark.parametrize(
    "follows",
    [
        lambda note: Group(note.message(2), note.message(3)),
        lambda note: WithDelay(note.message(2), 100),
        lambda note: Chain(Group(note.message(2)), note.message(3)),
        lambda note: Job("note", 2, queue="elsewhere"),
    ],
)
def test_only_one_job_for_this_queue_is_kept(
    broker: SidekiqBroker, client: redis.Redis, note: Any, monkeypatch: pytest.MonkeyPatch, follows: Any
) -> None:
    offers: list[int] = []

    def offer(process: Any, message: Any) -> str:
        offers.append(len(note.ran))
        return next_job.offer(process, message)

    monkeypatch.setattr("dramatiq_sidekiq_flow.workflow.transport.offer", offer)
    broker.declare_queue("elsewhere")
    tree = follows(note)
    with working(broker):
        Workflow(Chain(note.message(1), tree)).run()
        eventually(lambda: len(note.ran) == {"Group": 3, "Chain": 3}.get(type(tree).__name__, 2))
        broker.join("python", timeout=10_000)
    # The group of one job, and the step behind it.
    assert len(offers) == {"Chain": 2}.get(type(tree).__name__, 0)
    assert not in_flight(client)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_interrupt_loses_no_job(
    broker: SidekiqBroker, client: redis.Redis, note: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the reply and the run, by a time limit that fires late: the next beats put the job back."""
    interrupts: list[str] = []

    def interrupted(self: InFlight, receipt: str) -> None:
        interrupts.append(receipt)
        raise dramatiq.middleware.TimeLimitExceeded

    with monkeypatch.context() as patch:
        patch.setattr(InFlight, "take_offered", interrupted)
        with working(broker):
            Workflow(Chain(note.message(1), note.message(2))).run()
            eventually(lambda: interrupts)
            (held,) = broker.process.in_flight.values()
            eventually(lambda: not held.offered)
            reconciliation = broker.process.heartbeat.reconciliation
            assert reconciliation is not None
            patch.undo()
            for _ in range(2):
                reconciliation.reconcile([held.member])
            eventually(lambda: len(note.ran) == 2)
            broker.join("python", timeout=10_000)
    assert [number for number, _ in note.ran] == [1, 2]


def test_an_offer_that_is_open_is_not_taken_for_lost(broker: SidekiqBroker, client: redis.Redis, note: Any) -> None:
    """The reply is on its way: the heartbeat must not requeue the job."""
    consumer = broker.consume("python", prefetch=1)
    held = consumer.in_flight
    receipt = held.offer()
    client.hset(f"swf:inflight:{held.member}", receipt, "kept")
    reconciliation = broker.process.heartbeat.reconciliation
    assert reconciliation is not None
    for _ in range(3):
        reconciliation.reconcile([held.member])
    assert client.hexists(f"swf:inflight:{held.member}", receipt)
    held.end_offer(receipt)
    for _ in range(2):
        reconciliation.reconcile([held.member])
    assert client.lrange("queue:python", 0, -1) == [b"kept"]


def test_a_lost_reply_runs_the_job_that_was_kept(
    broker: SidekiqBroker, client: redis.Redis, note: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advance is repeated with the same receipt and another plan: the first one counts."""
    send = broker.connection._exchange
    lost: list[bytes] = []

    def lose(connection: Any, commands: Any) -> Any:
        replies = send(connection, commands)
        # Twice, since the connection repeats a command once by itself.
        if len(lost) < 2 and type(replies[0]) is list and replies[0][:1] == [b"KEPT"]:
            lost.append(in_flight(client)[0])
            raise redis.ConnectionError("lost")
        return replies

    monkeypatch.setattr(Connection, "_exchange", staticmethod(lose))
    with working(broker):
        # The barrier of the third step is that of the first plan.
        Workflow(Chain(note.message(1), note.message(2), note.message(3))).run()
        eventually(lambda: len(note.ran) == 3 or members(client, "dead"))
        broker.join("python", timeout=10_000)
    assert [number for number, _ in note.ran] == [1, 2, 3]
    assert lost[0].startswith(b"{")
    assert not in_flight(client)
