"""``send_many`` and ``enqueue_many``: the same jobs as sent one by one, in few commands, and what an error leaves."""

from __future__ import annotations

import json
import multiprocessing
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import attrs
import dramatiq
import pytest
import redis
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import ConnectionClosed
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend

from dramatiq_sidekiq_flow import Replication, SentMessages, SidekiqBroker, TypedActor, Workflow, actor, send_many
from dramatiq_sidekiq_flow.broker import enqueue_hooks
from dramatiq_sidekiq_flow.broker.encoder import EncoderIgnored
from dramatiq_sidekiq_flow.context import set_current_job
from dramatiq_sidekiq_flow.errors import (
    ConfigurationError,
    FlowError,
    InvalidArguments,
    InvalidInput,
    InvalidWorkflow,
    NotReplicated,
    StepEnqueuedItself,
)
from dramatiq_sidekiq_flow.store.connection import Connection
from dramatiq_sidekiq_flow.wire import codec
from dramatiq_sidekiq_flow.wire.payload import Payload

from ..redirection import redirect
from ..redis_values import raws
from ..running import members, working

FORK = multiprocessing.get_context("fork")


@attrs.frozen
class Extract:
    doc_id: str
    pages: int = 1


@pytest.fixture
def add(broker: SidekiqBroker) -> Any:
    @dramatiq.actor(queue_name="python", max_retries=3, broker=broker)
    def add(x: Any, y: Any = 0) -> None: ...

    return add


@pytest.fixture
def extract(broker: SidekiqBroker) -> TypedActor[Any]:
    @actor(queue_name="python", broker=broker)
    def extract(input: Extract) -> None: ...

    return extract


def jobs(client: redis.Redis, name: str = "python") -> list[dict[str, Any]]:
    """The jobs of a queue, the first one to be fetched first."""
    return members(client, name)[::-1]


def arguments(client: redis.Redis) -> list[Any]:
    return [job["args"] for job in jobs(client)]


def due(client: Any) -> dict[str, float]:
    """The jobs in ``schedule``: jid -> when they are due."""
    return {json.loads(raw)["jid"]: at for raw, at in client.zrange("schedule", 0, -1, withscores=True)}


def pushes(client: redis.Redis) -> int:
    """How many scripts ran since the statistics were reset."""
    calls: int = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
    return calls


# -- what is sent ----------------------------------------------------------------


def test_each_item_is_a_job(add: Any, client: redis.Redis) -> None:
    before = time.time()
    sent = add.send_many([(1,), [2, "ü"]], tags=["bulk"], time_limit=5_000)
    assert [(message.args, message.message_id) for message in sent] == [
        (tuple(job["args"]), job["jid"]) for job in jobs(client)
    ]
    for job in jobs(client):
        assert before <= job.pop("created_at") == job.pop("enqueued_at") <= time.time()
        del job["jid"], job["args"]
        common = {"class": "add", "queue": "python", "retry": 3, "tags": ["bulk"]}
        assert job == {**common, "dramatiq": {"time_limit": 5_000}}
    assert client.smembers("queues") == {b"python"}


def test_the_messages_are_those_that_were_sent(add: Any, client: redis.Redis) -> None:
    sent = send_many(add, [(number,) for number in range(2_500)], time_limit=5_000)
    ids = [job["jid"] for job in jobs(client)]
    assert len(sent) == len(set(ids)) == 2_500
    assert list(sent.message_ids) == ids
    assert [message.message_id for message in sent] == ids
    assert sent.message_ids[-1] == sent[-1].message_id == ids[-1]
    assert list(sent.message_ids[998:1002]) == [message.message_id for message in sent[998:1002]] == ids[998:1002]
    assert sent[1_500].args == (1_500,)
    assert sent[1_500].options == {"time_limit": 5_000}
    assert sent[1_500].message_timestamp == int(jobs(client)[1_500]["created_at"] * 1000)
    with pytest.raises(IndexError):
        sent[2_500]
    with pytest.raises(InvalidWorkflow, match="was sent already"):
        Workflow(sent[0]).run()


def test_results_are_found_by_the_messages(broker: SidekiqBroker, client: redis.Redis) -> None:
    broker.add_middleware(Results(backend=StubBackend(), store_results=True))

    @dramatiq.actor(queue_name="python", broker=broker)
    def double(x: int) -> int:
        return 2 * x

    sent = send_many(double, ((number,) for number in range(3)))
    with working(broker):
        assert [message.get_result(block=True, timeout=20_000) for message in sent] == [0, 2, 4]


def test_jobs_with_a_delay_are_scheduled(add: Any, client: redis.Redis) -> None:
    before = time.time()
    sent = add.send_many([(1,), (2,)], delay=timedelta(minutes=1))
    assert due(client).keys() == set(sent.message_ids)
    assert all(before + 60 <= at <= time.time() + 60 for at in due(client).values())
    assert not any("enqueued_at" in job for job in members(client, "schedule"))
    assert client.llen("queue:python") == 0


def test_a_typed_actor_takes_its_input(extract: TypedActor[Any], client: redis.Redis) -> None:
    sent = extract.send_many([Extract("a"), {"doc_id": "b"}, {"doc_id": "c", "pages": 2}])
    expected = [[{"doc_id": "a", "pages": 1}], [{"doc_id": "b"}], [{"doc_id": "c", "pages": 2}]]
    assert arguments(client) == expected
    assert [list(message.args) for message in sent] == expected


def test_a_typed_actor_without_input(broker: SidekiqBroker, client: redis.Redis) -> None:
    @actor(queue_name="python", broker=broker)
    def tick() -> None: ...

    tick.send_many([None, None])
    assert arguments(client) == [[], []]


def test_an_actor_that_makes_its_own_messages(broker: SidekiqBroker, client: redis.Redis) -> None:
    class Doubling(dramatiq.Actor[Any, Any]):
        def message_with_options(self, *, args: Any = (), kwargs: Any = None, **options: Any) -> Any:
            return super().message_with_options(args=(*args, *args), kwargs=kwargs, **options)

    @dramatiq.actor(actor_class=Doubling, queue_name="python", broker=broker)
    def doubling(*args: int) -> None: ...

    sent = send_many(doubling, [(1,), (2,)])
    assert arguments(client) == [[1, 1], [2, 2]]
    assert [message.message_id for message in sent] == [job["jid"] for job in jobs(client)]


def test_a_typed_actor_that_makes_its_own_messages(broker: SidekiqBroker, client: redis.Redis) -> None:
    class Tagging(TypedActor[Any]):
        def message_with_options(self, **options: Any) -> Any:
            return super().message_with_options(**options, tags=["mine"])

    @dramatiq.actor(actor_class=Tagging, queue_name="python", broker=broker)
    def tagging(input: Extract) -> None: ...

    sent = send_many(tagging, [Extract("a"), {"doc_id": "b"}])
    assert [job["tags"] for job in jobs(client)] == [["mine"]] * 2
    assert [message.message_id for message in sent] == [job["jid"] for job in jobs(client)]
    assert [message.options for message in sent] == [{"tags": ["mine"]}] * 2


def test_nothing_to_send(add: Any, broker: SidekiqBroker, client: redis.Redis) -> None:
    client.config_resetstat()
    assert len(add.send_many([])) == len(add.send_many(iter([]))) == len(broker.enqueue_many([])) == 0
    assert pushes(client) == 0


@pytest.mark.parametrize("count", [1, 1_000, 1_001, 4_001])
def test_a_script_pushes_a_thousand_jobs(add: Any, client: redis.Redis, count: int) -> None:
    add.send(0)
    client.delete("queue:python")
    client.config_resetstat()
    add.send_many([(number,) for number in range(count)])
    assert pushes(client) == (count + 999) // 1_000
    assert arguments(client) == [[number] for number in range(count)]


def test_a_script_pushes_a_mebibyte(add: Any, broker: SidekiqBroker, client: redis.Redis) -> None:
    items = [("x" * 600_000, number) for number in range(9)]
    for send in (add.send_many, lambda items: broker.enqueue_many(add.message(*item) for item in items)):
        client.flushall()
        add.send(0)
        client.delete("queue:python")
        client.config_resetstat()
        send(items)
        assert pushes(client) == 5
        assert [args[1] for args in arguments(client)] == list(range(9))


def test_a_long_generator_takes_no_memory(add: Any, client: redis.Redis) -> None:
    add.send_many([(0,)])
    client.delete("queue:python")
    tracemalloc.start()
    sent = add.send_many((number,) for number in range(100_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 1024 * 1024
    assert len(sent) == client.llen("queue:python") == 100_000
    (newest,) = map(json.loads, raws(client.lrange("queue:python", 0, 0)))
    assert (newest["args"], newest["jid"]) == ([99_999], sent.message_ids[-1])
    assert sent[-1].args == ()


def test_children_send_what_they_send(add: Any, client: redis.Redis) -> None:
    sent = add.send_many([(-1,)])
    assert len(sent) == 1

    def serve() -> None:
        for number in range(3):
            add.send_many([(number,)] * 1_500)

    children = [FORK.Process(target=serve) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0] * 3
    assert len({job["jid"] for job in jobs(client)}) == 1 + 3 * 3 * 1_500


# -- hooks, stamps and context -----------------------------------------------------


class Hooks(dramatiq.Middleware):
    """Adds an option, and notes what it sees."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.seen: list[Any] = []

    def before_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
        message.options["seen"] = len(self.seen)
        self.seen.append(("before", message.message_id, self.client.llen("queue:python"), delay))

    def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
        self.seen.append(("after", message.message_id, self.client.llen("queue:python"), delay))


@pytest.mark.parametrize("kind", ["list", "generator", "messages"])
def test_hooks_are_called_for_each_message(add: Any, broker: SidekiqBroker, client: redis.Redis, kind: str) -> None:
    hooks = Hooks(client)
    broker.add_middleware(hooks)
    items = [(1,), (2,)]
    sent: Sequence[Any]
    if kind == "messages":
        sent = broker.enqueue_many([add.message(*item) for item in items])
    else:
        sent = add.send_many(items if kind == "list" else iter(items))
    ids = [message.message_id for message in sent]
    assert [job["jid"] for job in jobs(client)] == ids
    assert hooks.seen == [
        *(("before", jid, 0, None) for jid in ids),
        *(("after", jid, 2, None) for jid in ids),
    ]
    assert [job["dramatiq"] for job in jobs(client)] == [{"seen": 0}, {"seen": 1}]
    assert arguments(client) == [[1], [2]]


def test_a_hook_of_one_instance_is_called(add: Any, broker: SidekiqBroker) -> None:
    seen: list[Any] = []
    middleware: Any = dramatiq.Middleware()
    middleware.after_enqueue = lambda broker, message, delay: seen.append(message.args)
    broker.add_middleware(middleware)
    add.send_many([(1,), (2,)])
    assert seen == [(1,), (2,)]


def test_a_hook_that_is_set_later_is_called(
    add: Any, broker: SidekiqBroker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(dramatiq.Middleware): ...

    broker.add_middleware(Late())
    hooks = Hooks(client)
    senders: list[Callable[[], Any]] = [
        lambda: add.send(1),
        lambda: add.send_many([(1,)]),
        lambda: broker.enqueue_many([add.message(1)]),
    ]
    for send in senders:
        send()
    broker.middleware.append(hooks)
    for send in senders:
        send()
    assert len(hooks.seen) == 2 * len(senders)
    broker.middleware.remove(hooks)
    # A hook of a class counts at the next look, within a second.
    monkeypatch.setattr(enqueue_hooks, "RENEW", -1.0)
    add.send(1)
    monkeypatch.setattr(Late, "after_enqueue", lambda self, *call: hooks.seen.append("late"), raising=False)
    for send in senders:
        send()
    assert hooks.seen.count("late") == len(senders)


def test_stamps_are_called_for_each_job(add: Any, broker: SidekiqBroker, client: redis.Redis) -> None:
    broker.stamps.append(lambda fields, why: fields.update(trace=f"{why} {fields['args'][0]}"))
    add.send_many([(1,), (2,)])
    assert [job["trace"] for job in jobs(client)] == ["send 1", "send 2"]


def test_the_context_of_the_current_job_is_passed_on(add: Any, broker: SidekiqBroker, client: redis.Redis) -> None:
    fields = {"class": "step", "args": [], "jid": "me", "locale": "de", "workflow_run_id": "r", "other": 1}
    set_current_job(Payload.decode(codec.encode(fields)))
    try:
        add.send_many([(1,)])
        broker.enqueue_many([add.message(2)])
        itself = add.message(3).copy(message_id="me")
        with pytest.raises(StepEnqueuedItself):
            broker.enqueue_many(iter([itself]))
    finally:
        set_current_job(None)
    assert [(job["locale"], "other" in job) for job in jobs(client)] == [("de", False)] * 2


# -- what is refused ----------------------------------------------------------------

BAD = [(object(),), (float("nan"),), ("\ud800",), (float("inf"),), ({1: 2},), "text", {"x": 1}, 7, ((1, {2}),)]


@pytest.mark.parametrize("bad", BAD, ids=map(str, range(len(BAD))))
@pytest.mark.parametrize("hooked", [False, True], ids=["plain", "hooked"])
def test_of_a_list_with_a_bad_item_nothing_is_sent(
    add: Any, broker: SidekiqBroker, client: redis.Redis, bad: Any, hooked: bool
) -> None:
    hooks = Hooks(client)
    if hooked:
        broker.add_middleware(hooks)
    with pytest.raises(InvalidArguments, match="^Item 5000: ") as caught:
        add.send_many([(1.5,)] * 5_000 + [bad])
    assert len(caught.value.sent) == 0  # type: ignore[attr-defined]
    assert not client.exists("queue:python")
    assert hooks.seen == []


@pytest.mark.parametrize("hooked", [False, True], ids=["plain", "hooked"])
def test_of_an_iterable_with_a_bad_item_the_earlier_ones_are_sent(
    add: Any, broker: SidekiqBroker, client: redis.Redis, hooked: bool
) -> None:
    if hooked:
        broker.add_middleware(Hooks(client))
    with pytest.raises(InvalidArguments, match="^Item 4500: ") as caught:
        add.send_many(iter([(number,) for number in range(4_500)] + [(object(),)]))
    sent: SentMessages[Any] = caught.value.sent  # type: ignore[attr-defined]
    assert len(sent) == client.llen("queue:python") == 4_000
    assert list(sent.message_ids) == [job["jid"] for job in jobs(client)]


def test_an_error_of_the_iterable_itself_says_what_was_sent(add: Any, client: redis.Redis) -> None:
    def items() -> Iterator[tuple[int]]:
        yield from ((number,) for number in range(8_001))
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError) as caught:
        add.send_many(items())
    assert len(caught.value.sent) == client.llen("queue:python") == 8_000  # type: ignore[attr-defined]


def test_the_input_of_a_typed_actor_is_checked(extract: TypedActor[Any], client: redis.Redis) -> None:
    for bad in ({"doc_id": 7}, {}, {"doc_id": "a", "other": 1}, "text", None):
        with pytest.raises(InvalidInput, match="^Item 1: extract"):
            extract.send_many([Extract("a"), bad])
    assert not client.exists("queue:python")


def test_options_are_checked(add: Any, client: redis.Redis) -> None:
    with pytest.raises(TypeError, match="on_failure") as caught:
        add.send_many([(1,)], on_failure=7)
    assert len(caught.value.sent) == 0  # type: ignore[attr-defined]
    with pytest.raises(InvalidArguments, match="options"):
        add.send_many([(1,)], other=object())
    assert not client.exists("queue:python")


def test_a_job_that_is_too_large_is_refused(add: Any, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_SIZE", 1_000)
    with pytest.raises(InvalidArguments, match="^Item 2: The job of 'add' has .* bytes"):
        add.send_many([(1,), ("x" * 500,), ("x" * 1_000,)])
    assert not client.exists("queue:python")


def test_an_actor_of_another_broker(redis_url: str) -> None:
    broker = StubBroker()

    @actor(broker=broker)
    def elsewhere(input: Extract) -> None: ...

    with pytest.raises(ConfigurationError, match="elsewhere is on a StubBroker"):
        elsewhere.send_many([Extract("a")])


def test_an_encoder_of_the_application_is_refused(add: Any, broker: SidekiqBroker) -> None:
    class Secret(dramatiq.JSONEncoder):
        pass

    before = dramatiq.get_encoder()
    dramatiq.set_encoder(Secret())
    try:
        for send in (add.send_many, broker.enqueue_many):
            with pytest.raises(EncoderIgnored):
                send([])
    finally:
        dramatiq.set_encoder(before)


# -- errors of Redis ------------------------------------------------------------------


def test_a_queue_of_another_type(add: Any, client: redis.Redis) -> None:
    client.set("queue:python", "text")
    with pytest.raises(redis.ResponseError, match="queue:python") as caught:
        add.send_many([(1,)] * 5_000)
    assert len(caught.value.sent) == 0  # type: ignore[attr-defined]
    assert client.get("queue:python") == b"text"


def spoilt(client: redis.Redis, spoil: Any) -> Iterator[tuple[int]]:
    """Ten thousand items; before the second write ``spoil`` is called."""
    for number in range(10_000):
        if number == 4_500:
            spoil(client)
        yield (number,)


def test_after_an_error_no_more_is_sent(add: Any, client: redis.Redis) -> None:
    def spoil(client: redis.Redis) -> None:
        client.rename("queue:python", "queue:aside")
        client.set("queue:python", "text")

    with pytest.raises(redis.ResponseError) as caught:
        add.send_many(spoilt(client, spoil))
    assert len(caught.value.sent) == client.llen("queue:aside") == 4_000  # type: ignore[attr-defined]


def test_a_full_redis_takes_no_more(add: Any, client: redis.Redis) -> None:
    try:
        with pytest.raises(ConnectionClosed, match="OOM") as caught:
            add.send_many(spoilt(client, lambda client: client.config_set("maxmemory", "1mb")))
    finally:
        client.config_set("maxmemory", "0")
    sent: SentMessages[Any] = caught.value.sent  # type: ignore[attr-defined]
    assert list(sent.message_ids) == [job["jid"] for job in jobs(client)]
    assert len(sent) == 4_000
    # What was not sent may be sent again.
    add.send_many((number,) for number in range(len(sent), 10_000))
    assert arguments(client) == [[number] for number in range(10_000)]


class Disturbed(Connection):
    """Loses its replies: ``lose`` times, after the server has run so many of the commands."""

    lose = 0
    ran = 100

    def _send(self, commands: Any) -> list[Any]:
        if not self.lose:
            return super()._send(commands)
        self.lose -= 1
        super()._send(commands[: self.ran])
        raise redis.ConnectionError("the replies are lost")


@pytest.fixture
def disturbed(redis_url: str) -> Iterator[tuple[Any, Disturbed]]:
    """An actor, and the connection of its broker."""
    broker = SidekiqBroker(url=redis_url)
    connection = Disturbed(redis.Redis.from_url(redis_url))
    redirect(broker, connection)

    @dramatiq.actor(queue_name="python", broker=broker)
    def note(number: int) -> None: ...

    yield note, connection
    connection.lose = 0
    broker.close()


@pytest.mark.parametrize("ran", [1, 2, 100])
def test_lost_replies_push_nothing_twice(disturbed: tuple[Any, Disturbed], client: redis.Redis, ran: int) -> None:
    note, connection = disturbed
    connection.lose, connection.ran = 1, ran
    sent = note.send_many([(number,) for number in range(6_000)])
    assert len(sent) == 6_000
    assert [job["args"] for job in jobs(client)] == [[number] for number in range(6_000)]


def test_if_redis_cannot_be_reached_the_earlier_ones_are_named(
    disturbed: tuple[Any, Disturbed], client: redis.Redis
) -> None:
    note, connection = disturbed

    def spoil(client: redis.Redis) -> None:
        connection.lose, connection.ran = 2, 1

    with pytest.raises(ConnectionClosed) as caught:
        note.send_many(spoilt(client, spoil))
    sent: SentMessages[Any] = caught.value.sent  # type: ignore[attr-defined]
    assert len(sent) == 4_000
    # The first batch of the write is there, though its reply was lost; pushed once.
    assert [job["args"] for job in jobs(client)] == [[number] for number in range(5_000)]
    assert list(sent.message_ids) == [job["jid"] for job in jobs(client)[:4_000]]


def test_a_producer_that_was_forgotten_pushes_under_a_new_name(add: Any, client: redis.Redis) -> None:
    for number in range(3):
        add.send_many([(number,)] * 2_000)
        client.delete(*client.keys("swf:push:*"))
    assert arguments(client) == [[number] for number in range(3) for _ in range(2_000)]


def test_jobs_that_no_replica_has(redis_url: str, client: redis.Redis) -> None:
    broker = SidekiqBroker(url=redis_url, replication=Replication(timeout=20))

    @dramatiq.actor(queue_name="python", broker=broker)
    def note(number: int) -> None: ...

    with pytest.raises(NotReplicated, match="are in Redis, but confirmed by 0 of 1 replicas") as caught:
        send_many(note, ((number,) for number in range(9_000)))
    assert len(caught.value.sent) == client.llen("queue:python") == 4_000  # type: ignore[attr-defined]
    with pytest.raises(NotReplicated, match="the last 2 sent, are in Redis") as caught:
        broker.enqueue_many([note.message(1), note.message(2)])
    assert len(caught.value.sent) == 2  # type: ignore[attr-defined]
    broker.close()


# -- messages of any actors --------------------------------------------------------


def test_messages_of_several_actors(add: Any, broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(queue_name="other", broker=broker)
    def other(x: int) -> None: ...

    messages = []
    for number in range(1_500):
        messages += [add.message(number), other.message_with_options(args=(number,), tags=["t"])]
    assert broker.enqueue_many(iter(messages)) == messages
    for name, mine in (("python", messages[::2]), ("other", messages[1::2])):
        assert [job["jid"] for job in jobs(client, name)] == [message.message_id for message in mine]
    assert jobs(client, "other")[0]["tags"] == ["t"]
    with pytest.raises(InvalidWorkflow, match="was sent already"):
        Workflow(messages[0]).run()


def test_messages_with_a_delay(add: Any, broker: SidekiqBroker, client: redis.Redis) -> None:
    before = time.time()
    messages = broker.enqueue_many([add.message(1), add.message(2)], delay=60_000)
    assert due(client).keys() == {message.message_id for message in messages}
    assert all(before + 60 <= at <= time.time() + 60 for at in due(client).values())


def test_of_messages_with_a_bad_one_none_is_pushed(add: Any, broker: SidekiqBroker, client: redis.Redis) -> None:
    hooks = Hooks(client)
    broker.add_middleware(hooks)
    for bad in (add.message(object()), add.message(1, y=2), add.message_with_options(args=(1,), retry="text")):
        with pytest.raises(FlowError, match="^Item 1: ") as caught:
            broker.enqueue_many([add.message(0), bad])
        assert caught.value.sent == []  # type: ignore[attr-defined]
    assert hooks.seen == []
    assert not client.exists("queue:python")


def test_messages_whose_options_are_equal_to_python_only(add: Any, broker: SidekiqBroker, client: redis.Redis) -> None:
    options: list[dict[str, Any]] = [{"retry": True}, {"retry": 1}, {}, {"retry": 1}, {"other": 1}, {"other": 1.0}]
    broker.enqueue_many([add.message_with_options(args=(0,), **one) for one in options])
    assert [repr(job["retry"]) for job in jobs(client)] == ["True", "1", "3", "1", "3", "3"]
    assert [repr(job.get("dramatiq")) for job in jobs(client)[-2:]] == ["{'other': 1}", "{'other': 1.0}"]


def test_messages_with_ids_of_their_own(add: Any, broker: SidekiqBroker, client: redis.Redis) -> None:
    ids = ['"', '"\n"', "\n", "\\", "", "ü\u2028", "x" * 500]
    broker.enqueue_many([add.message(number).copy(message_id=jid) for number, jid in enumerate(ids)])
    assert [(job["args"], job["jid"]) for job in jobs(client)] == [([n], jid) for n, jid in enumerate(ids)]


def test_messages_of_a_class_of_the_application(add: Any, broker: SidekiqBroker, client: redis.Redis) -> None:
    class Own(dramatiq.Message[Any]): ...

    messages = [Own("python", "add", (0,), {}, {}), add.message(1)]
    assert broker.enqueue_many(messages) == messages
    assert arguments(client) == [[0], [1]]
    bad = Own("python", "add", (object(),), {}, {})
    with pytest.raises(InvalidArguments, match="^Item 1: "):
        broker.enqueue_many([add.message(2), bad])
    assert len(jobs(client)) == 2


def test_a_message_that_is_too_large_is_refused(
    add: Any, broker: SidekiqBroker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "MAX_SIZE", 1_000)
    with pytest.raises(InvalidArguments, match="^Item 2: The job of 'add' has .* bytes"):
        broker.enqueue_many([add.message(1), add.message("x" * 500), add.message("x" * 1_000)])
    assert not client.exists("queue:python")
    broker.enqueue_many([add.message("x" * 500)] * 3)
    assert len(jobs(client)) == 3


def test_a_step_that_enqueues_its_own_message_among_others(
    add: Any, broker: SidekiqBroker, client: redis.Redis
) -> None:
    fields = {"class": "step", "args": [], "jid": "me", "workflow_run_id": "r"}
    set_current_job(Payload.decode(codec.encode(fields)))
    try:
        with pytest.raises(StepEnqueuedItself, match="^Item 1: "):
            broker.enqueue_many([add.message(1), add.message(2).copy(message_id="me")])
    finally:
        set_current_job(None)
    assert not client.exists("queue:python")


def test_of_many_messages_with_a_bad_one_none_is_pushed(add: Any, broker: SidekiqBroker, client: redis.Redis) -> None:
    for bad in (
        add.message(1j),
        add.message(0, b""),
        add.message(1, y=2),
        add.message_with_options(args=(1,), retry=""),
    ):
        with pytest.raises(FlowError, match="^Item 1500: ") as caught:
            broker.enqueue_many([add.message(0)] * 1_500 + [bad])
        assert caught.value.sent == []  # type: ignore[attr-defined]
        assert not client.exists("queue:python")
        with pytest.raises(FlowError, match="^Item 1500: ") as caught:
            broker.enqueue_many(iter([add.message(0)] * 1_500 + [bad]))
        assert len(caught.value.sent) == client.llen("queue:python") == 1_000  # type: ignore[attr-defined]
        client.delete("queue:python")


def test_an_option_that_json_does_not_have_is_refused_in_each_message(
    add: Any, broker: SidekiqBroker, client: redis.Redis
) -> None:
    at = datetime(2030, 1, 2)
    messages = [add.message_with_options(args=(1,), at_most=when) for when in (at.isoformat(), at)]
    with pytest.raises(InvalidArguments, match="^Item 1: options.at_most"):
        broker.enqueue_many(messages)
    assert not client.exists("queue:python")
