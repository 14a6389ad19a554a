"""Sending, running, failing, retrying: a Dramatiq broker that is a Sidekiq."""

from __future__ import annotations

import json
import time
import uuid
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.errors import ConnectionClosed, QueueJoinTimeout, QueueNotFound
from dramatiq.middleware import Retries as DramatiqRetries

from dramatiq_sidekiq_flow import SidekiqBroker
from dramatiq_sidekiq_flow.broker import Retries
from dramatiq_sidekiq_flow.errors import ConfigurationError, InvalidArguments, InvalidOptions
from dramatiq_sidekiq_flow.store import queues
from dramatiq_sidekiq_flow.wire import codec

from ..recordings import expand_backtrace, live
from ..redis_values import raws, scored
from ..running import eventually, in_flight, members, working


def test_what_is_sent_is_what_sidekiq_would_push(broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(actor_name="Docs::Extract", queue_name="python", max_retries=5, tags=["etl"])
    def extract(doc_id: str, pages: list[int]) -> None: ...

    before = time.time()
    message = extract.send("42", [1, 2])
    (raw,) = client.lrange("queue:python", 0, -1)
    job = json.loads(raw)
    assert before <= job.pop("created_at") <= job.pop("enqueued_at") <= time.time()
    assert job == {
        "class": "Docs::Extract",
        "args": ["42", [1, 2]],
        "jid": message.message_id,
        "queue": "python",
        "retry": 5,
        "tags": ["etl"],
    }
    assert uuid.UUID(message.message_id)
    assert client.smembers("queues") == {b"python"}


def test_each_message_is_checked_and_has_its_own_values(broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(queue_name="python")
    def step(*args: Any) -> None: ...

    sent = [step.send(1), step.send("ü", [1.5, None]), step.send()]
    sent.append(broker.enqueue(step.message(2).copy(message_id='"', queue_name="other")))
    for bad in (b"bytes", {1: 2}, float("nan")):
        with pytest.raises(InvalidArguments, match=r"^args\[0\]"):
            step.send(bad)
    jobs = [*members(client, "python")[::-1], *members(client, "other")]
    assert [(job["args"], job["jid"]) for job in jobs] == [(list(one.args), one.message_id) for one in sent]
    assert [job["queue"] for job in jobs] == ["python"] * 3 + ["other"]


def test_a_job_that_is_too_large_is_refused(
    broker: SidekiqBroker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dramatiq.actor(queue_name="python")
    def step(text: str) -> None: ...

    monkeypatch.setattr(codec, "MAX_SIZE", 1_000)
    step.send("")
    with pytest.raises(InvalidArguments, match="^The job of 'step' has .* bytes"):
        step.send("x" * 1_000)
    assert client.llen("queue:python") == 1


def test_an_actor_that_is_declared_again_has_its_new_options(broker: SidekiqBroker, client: redis.Redis) -> None:
    for retries in (3, 5):
        broker.actors.pop("step", None)

        @dramatiq.actor(queue_name="python", max_retries=retries, actor_name="step")
        def step() -> None: ...

        step.send()
        step.send()
    assert [job["retry"] for job in members(client, "python")] == [5, 5, 3, 3]


def test_the_first_sent_is_the_first_taken(broker: SidekiqBroker) -> None:
    @dramatiq.actor(queue_name="python")
    def step(n: int) -> None: ...

    for n in range(50):
        step.send(n)
    consumer = broker.consume("python", prefetch=20, timeout=100)
    seen = []
    for _ in range(50):
        message = next(consumer)
        assert message is not None
        seen.append(message.args[0])
        consumer.ack(message)
    assert seen == list(range(50))


@pytest.mark.parametrize("version", ["7.3.2", "8.1.7"])
def test_a_delayed_message_goes_to_schedule(broker: SidekiqBroker, client: redis.Redis, version: str) -> None:
    @dramatiq.actor(queue_name="default")
    def later(word: str) -> None: ...

    later.send_with_options(args=("later",), delay=timedelta(hours=1))
    ((raw, score),) = scored(client.zrange("schedule", 0, -1, withscores=True))
    ((recorded, _),) = live(version)["schedule"]["value"]
    assert json.loads(raw).keys() == json.loads(recorded).keys()
    assert 3590 < score - time.time() < 3601
    assert not client.exists("queue:default")


def test_keyword_arguments_are_refused_at_the_caller(broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor
    def step(x: int) -> None: ...

    with pytest.raises(InvalidArguments, match="keyword arguments"):
        step.send(x=1)
    with pytest.raises(InvalidArguments, match=r"args\[0\]"):
        step.send(object())  # type: ignore[arg-type]
    with pytest.raises(InvalidOptions, match="retry"):
        step.send_with_options(args=(1,), max_retries="often")
    assert not client.exists("queue:default")


def test_options_of_a_message_come_before_those_of_its_actor(broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(max_retries=5, retry_queue="low", dead=False, backtrace=3, retry_for=60)
    def step() -> None: ...

    step.send_with_options(max_retries=1, time_limit=1000)
    (job,) = members(client, "default")
    assert {k: job[k] for k in ("retry", "retry_queue", "dead", "backtrace", "retry_for")} == {
        "retry": 1,
        "retry_queue": "low",
        "dead": False,
        "backtrace": 3,
        "retry_for": 60,
    }
    # What only Dramatiq knows travels in one place.
    assert job["dramatiq"] == {"time_limit": 1000}


def test_an_option_that_sidekiq_does_not_understand_is_refused_when_declared(broker: SidekiqBroker) -> None:
    with pytest.raises(InvalidOptions, match="tags"):

        @dramatiq.actor(tags="etl")
        def step() -> None: ...


def failing(
    broker: SidekiqBroker, client: redis.Redis, name: str, job: dict[str, Any], **options: Any
) -> dict[str, Any]:
    """Run a job that raises; its member of a set afterwards."""

    @dramatiq.actor(actor_name="Boom", **options)
    def boom(*args: Any) -> None:
        raise ValueError("bad ✓ 1")

    client.lpush(
        "queue:default", json.dumps({"class": "Boom", "args": [1], "jid": "a" * 24, "queue": "default", **job})
    )
    with working(broker):
        member: dict[str, Any]
        (member,) = eventually(lambda: members(client, name))
        assert not in_flight(client)
    return member


def test_a_failure_goes_to_retry_as_sidekiq_writes_it(broker: SidekiqBroker, client: redis.Redis) -> None:
    before = time.time()
    job = failing(broker, client, "retry", {"retry": 3, "backtrace": 5, "cattr": {"tenant": 1}})
    assert job["retry_count"] == 0
    assert before < job["failed_at"] < time.time()
    assert (job["error_class"], job["error_message"], job["cattr"]) == ("ValueError", "bad ✓ 1", {"tenant": 1})
    assert "in 'boom'" in expand_backtrace(job["error_backtrace"])[0]
    score = client.zscore("retry", raws(client.zrange("retry", 0, 0))[0])
    # count ** 4 + 15 seconds, and up to 10 of jitter
    assert 15 <= score - job["failed_at"] <= 25.1


def test_retries_count_up_and_end_in_dead(broker: SidekiqBroker, client: redis.Redis) -> None:
    job = failing(broker, client, "dead", {"retry": 3, "retry_count": 2, "failed_at": 1.0})
    assert job["retry_count"] == 3
    assert job["failed_at"] == 1.0
    assert job["retried_at"] > 1.0


def test_retry_0_is_dead_at_once(broker: SidekiqBroker, client: redis.Redis) -> None:
    assert failing(broker, client, "dead", {"retry": 0})["retry_count"] == 0


def test_without_retry_a_job_is_tried_again(broker: SidekiqBroker, client: redis.Redis) -> None:
    assert failing(broker, client, "retry", {})["retry_count"] == 0


def test_retry_queue_is_where_it_is_retried(broker: SidekiqBroker, client: redis.Redis) -> None:
    assert failing(broker, client, "retry", {"retry": True, "retry_queue": "low"})["queue"] == "low"


def test_retry_for_ends_retrying(broker: SidekiqBroker, client: redis.Redis) -> None:
    # Integer milliseconds, as 8.x writes them: failed an hour ago.
    failed_at = int((time.time() - 3600) * 1000)
    job = {"retry": True, "retry_for": 600, "retry_count": 1, "failed_at": failed_at}
    assert failing(broker, client, "dead", job)["failed_at"] == failed_at


def test_retry_when_decides(broker: SidekiqBroker, client: redis.Redis) -> None:
    failing(broker, client, "dead", {"retry": True}, retry_when=lambda retries, e: False)


def raising(retries: int, exception: BaseException) -> bool:
    raise RuntimeError("of the application's own")


@pytest.mark.parametrize(
    "options",
    [{"retry_when": raising}, {"min_backoff": "often"}, {"max_backoff": [1]}],
    ids=["retry_when", "text", "list"],
)
def test_options_that_fail_leave_the_job_to_sidekiqs_rules(
    broker: SidekiqBroker, client: redis.Redis, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    job = failing(broker, client, "retry", {"retry": 3}, **options)
    assert (job["error_class"], job["retry_count"]) == ("ValueError", 0)
    score = client.zrange("retry", 0, 0, withscores=True)[0][1]
    assert 15 <= score - job["failed_at"] <= 25.1
    assert "Unexpected failure" not in caplog.text
    assert any("Sidekiq's" in line for line in caplog.messages)


@pytest.mark.parametrize("delay", ["soon", float("nan"), 1e400, 10**400, -5], ids=["text", "nan", "inf", "huge", "-5"])
def test_a_retry_after_a_delay_that_is_none_is_still_one(
    broker: SidekiqBroker, client: redis.Redis, delay: Any
) -> None:
    @dramatiq.actor
    def again() -> None:
        raise dramatiq.errors.Retry(delay=delay)

    again.send()
    with working(broker):
        broker.process.poller.stop()
        (job,) = eventually(lambda: members(client, "retry"))
    assert job["error_class"] == "Retry"
    assert in_flight(client) == []


def test_throws_is_not_retried(broker: SidekiqBroker, client: redis.Redis) -> None:
    failing(broker, client, "dead", {"retry": True}, throws=ValueError)


def test_throws_is_no_warning(broker: SidekiqBroker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    @dramatiq.actor(throws=(ValueError,))
    def expected() -> None:
        raise ValueError

    expected.send()
    with working(broker):
        broker.join("default", timeout=10_000)
    lines = [(record.levelname, record.getMessage()) for record in caplog.records if "essage" in record.getMessage()]
    assert [level for level, _ in lines] == ["INFO", "INFO"], lines


@pytest.mark.parametrize("job", [{"retry": False}, {"retry": 0, "dead": False}])
def test_some_failures_leave_nothing(broker: SidekiqBroker, client: redis.Redis, job: dict[str, Any]) -> None:
    @dramatiq.actor
    def boom() -> None:
        raise ValueError

    client.lpush("queue:default", json.dumps({"class": "boom", "args": [], "jid": "a" * 24, **job}))
    with working(broker):
        broker.join("default", timeout=10_000)
    assert not client.exists("retry", "dead")


def test_dead_is_trimmed_as_sidekiq_trims_it(broker: SidekiqBroker, client: redis.Redis) -> None:
    old, now = time.time() - 181 * 86_400, time.time()
    client.zadd("dead", {f"old{i}": old for i in range(5)} | {f"new{i}": now - 20_000 + i for i in range(10_005)})
    failing_actor_sends_one(broker, client)
    # zremrangebyrank 0 -10000 leaves 9,999: Sidekiq's own arithmetic
    assert client.zcard("dead") == 9_999
    assert client.zscore("dead", "old0") is None
    assert client.zscore("dead", "new0") is None


def failing_actor_sends_one(broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(max_retries=0)
    def boom() -> None:
        raise ValueError

    boom.send()
    with working(broker):
        eventually(lambda: raws(client.zrange("dead", -1, -1))[0].startswith(b"{"))


def test_dramatiqs_retry_exception_sets_the_wait(broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor
    def again() -> None:
        raise dramatiq.errors.Retry(delay=120_000)

    again.send()
    with working(broker):
        eventually(lambda: members(client, "retry"))
    assert 119 < scored(client.zrange("retry", 0, 0, withscores=True))[0][1] - time.time() < 121


def waits_of(broker: SidekiqBroker, client: redis.Redis, actor: Any, **options: Any) -> float:
    """Seconds for which the first retry of an actor that always fails is put off."""
    before = time.time()
    actor.send_with_options(**options)
    with working(broker):
        broker.process.poller.stop()
        ((_, score),) = scored(eventually(lambda: client.zrange("retry", 0, -1, withscores=True)))
    return score - before


@pytest.mark.parametrize(
    ("of_actor", "of_message", "at_most"),
    [
        ({"min_backoff": 0}, {}, 5),
        ({"max_backoff": 0}, {}, 5),
        ({"min_backoff": 0, "max_backoff": 0}, {}, 5),
        ({"min_backoff": 600_000}, {"min_backoff": 0}, 5),
        ({"max_backoff": 600_000}, {"max_backoff": 0}, 5),
        ({}, {"min_backoff": 10, "max_backoff": 20}, 5),
        ({"min_backoff": 60_000}, {}, 125),
    ],
    ids=str,
)
def test_a_backoff_of_0_does_not_wait(
    broker: SidekiqBroker, client: redis.Redis, of_actor: Any, of_message: Any, at_most: float
) -> None:
    def boom() -> None:
        raise ValueError

    wait = waits_of(broker, client, dramatiq.actor(**of_actor)(boom), **of_message)
    assert 0 <= wait < at_most
    if at_most > 5:
        assert wait >= 60


@pytest.mark.parametrize("backoff", [{"min_backoff": 0}, {"max_backoff": 0}], ids=str)
def test_a_backoff_of_0_for_all_actors(redis_url: str, client: redis.Redis, backoff: dict[str, int]) -> None:
    broker = SidekiqBroker(url=redis_url, middleware=[Retries(**backoff)])

    @dramatiq.actor(broker=broker)
    def boom() -> None:
        raise ValueError

    assert waits_of(broker, client, boom) < 5
    broker.close()


def test_a_short_retry_does_not_wait_for_the_next_poll(redis_url: str) -> None:
    broker = SidekiqBroker(url=redis_url, poll_interval=3_600_000)
    tries = []

    @dramatiq.actor(broker=broker)
    def again() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise dramatiq.errors.Retry(delay=100)

    with working(broker):
        again.send()
        eventually(lambda: len(tries) == 3)
    broker.close()


def test_a_failure_is_retried_and_then_done(broker: SidekiqBroker) -> None:
    tries = []

    @dramatiq.actor(min_backoff=10, max_backoff=20)
    def twice() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError

    twice.send()
    with working(broker):
        broker.join("default", timeout=10_000)
    assert len(tries) == 3


def test_an_unknown_class_is_retried_as_sidekiq_does(broker: SidekiqBroker, client: redis.Redis) -> None:
    broker.declare_queue("default")
    client.lpush("queue:default", '{"class":"NoSuch","args":[],"jid":"x","queue":"default","retry":true}')
    with working(broker):
        (job,) = eventually(lambda: members(client, "retry"))
    assert job["error_class"] == "ActorNotFound"


def test_dramatiqs_own_retries_are_taken_over(redis_url: str) -> None:
    broker = SidekiqBroker(url=redis_url, middleware=[DramatiqRetries(max_retries=2, min_backoff=5)])
    (retries,) = (m for m in broker.middleware if isinstance(m, DramatiqRetries))
    assert isinstance(retries, Retries)
    assert (retries.max_retries, retries.min_backoff, retries.own_backoff) == (2, 5, True)


def test_without_retries_a_failure_is_still_a_failure(redis_url: str, client: redis.Redis) -> None:
    broker = SidekiqBroker(url=redis_url, middleware=[])

    @dramatiq.actor(broker=broker)
    def boom() -> None:
        raise ValueError

    boom.send()
    with working(broker):
        assert eventually(lambda: members(client, "retry"))


def test_flush_and_join(broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor(queue_name="python")
    def step() -> None: ...

    step.send()
    step.send_with_options(delay=60_000)
    with pytest.raises(QueueJoinTimeout):
        broker.join("python", timeout=30)
    broker.flush_all()
    broker.join("python", timeout=1000)
    assert not client.exists("queue:python", "schedule")


def test_a_worker_that_comes_while_others_are_looked_at_is_not_overlooked(
    broker: SidekiqBroker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It registers, and takes the only job, between any two looks."""
    broker.declare_queue("python")
    client.lpush("queue:python", b'{"class":"A","args":[],"jid":"a","retry":true}')
    original = broker.connection.send
    looked: list[Any] = []

    def send(commands: Any) -> Any:
        replies = original(commands)
        if not looked:
            looked.append(commands)
            assert next(broker.consume("python", prefetch=1, timeout=1000)) is not None
        return replies

    monkeypatch.setattr(broker.connection, "send", send)
    for _ in range(2):
        count, later = queues.unfinished(broker.connection, "python")
        assert (count, later) == (1, [])


def test_only_declared_queues_are_consumed(broker: SidekiqBroker) -> None:
    with pytest.raises(QueueNotFound):
        broker.consume("nowhere")


def test_a_lost_server_is_a_connection_error() -> None:
    broker = SidekiqBroker(url="redis://127.0.0.1:1/0")

    @dramatiq.actor(broker=broker)
    def step() -> None: ...

    with pytest.raises(ConnectionClosed):
        step.send()


def test_a_client_that_decodes_is_refused(redis_url: str) -> None:
    with pytest.raises(ConfigurationError, match="decode_responses"):
        SidekiqBroker(client=redis.Redis.from_url(redis_url, decode_responses=True))


def test_a_server_that_may_throw_jobs_away_is_warned_of(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with working(broker):
            pass
    finally:
        client.config_set("maxmemory-policy", "noeviction")
    assert "maxmemory-policy" in caplog.text


def test_scripts_are_loaded_again_when_the_server_forgets_them(broker: SidekiqBroker, client: redis.Redis) -> None:
    @dramatiq.actor
    def step() -> None: ...

    step.send()
    client.script_flush()
    step.send()
    assert client.llen("queue:default") == 2


def test_stopping_puts_back_what_was_not_run_in_order(broker: SidekiqBroker, client: redis.Redis) -> None:
    started: list[Any] = []
    release: list[Any] = []

    @dramatiq.actor
    def slow(n: int) -> None:
        started.append(n)
        eventually(lambda: release)

    for n in range(30):
        slow.send(n)
    with working(broker, threads=1):
        eventually(lambda: started)
        release.append(1)
    left = [json.loads(raw)["args"][0] for raw in reversed(client.lrange("queue:default", 0, -1))]
    assert left == [n for n in range(30) if n not in started]
    assert not in_flight(client)
    assert client.zcard("swf:workers") == 0
