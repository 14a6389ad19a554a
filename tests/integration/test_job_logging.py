"""One line where a job starts, one where it is acknowledged."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.middleware import SkipMessage

from dramatiq_sidekiq_flow import Chain, JobLogging, SidekiqBroker, Workflow

from ..running import eventually, in_flight, members, working

#: What a LogRecord has of itself: whatever else is there are our fields.
OWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    """The records of jobs so far, as (first word, fields, record)."""

    def found() -> list[tuple[str, dict[str, Any], logging.LogRecord]]:
        return [
            (
                record.getMessage().partition(":")[0],
                {name: value for name, value in vars(record).items() if name not in OWN},
                record,
            )
            for record in caplog.records
            if record.name == "dramatiq_sidekiq_flow.job"
        ]

    caplog.set_level(logging.INFO)
    return found


def test_start_and_done_with_their_fields(broker: SidekiqBroker, lines: Any) -> None:
    broker.add_middleware(JobLogging())

    @dramatiq.actor(queue_name="python", actor_name="Docs::Extract")
    def extract(secret: str) -> None: ...

    run_id = Workflow(Chain(extract.message("s3cret"), extract.message("s3cret"))).run()
    single = extract.send("s3cret")
    with working(broker):
        eventually(lambda: len(lines()) == 6)
    of_run: dict[str, list[str]] = {}
    for word, fields, _ in lines():
        if fields["run_id"] == run_id:
            of_run.setdefault(fields["jid"], []).append(word)
    # (Another thread may start the second before the first has said that it is done.)
    assert list(of_run.values()) == [["start", "done"]] * 2
    (start, done) = [(word, fields) for word, fields, _ in lines() if fields["run_id"] is None]
    expected = {"class": "Docs::Extract", "jid": single.message_id, "queue": "python", "run_id": None}
    assert start == ("start", expected)
    elapsed = done[1].pop("elapsed")
    assert done == ("done", {**expected, "outcome": "done"})
    assert 0 <= elapsed < 60
    for _, fields, record in lines():
        assert "s3cret" not in record.getMessage() + json.dumps(fields)
        assert record.levelno == logging.INFO
    first = lines()[0]
    text = first[2].getMessage()
    assert text.startswith(f"start: class=Docs::Extract jid={first[1]['jid']} queue=python")


def test_arguments_where_they_are_asked_for(broker: SidekiqBroker, lines: Any) -> None:
    broker.add_middleware(JobLogging(args=True))

    @dramatiq.actor(queue_name="python")
    def step(*args: Any) -> None: ...

    step.send(1, "two", [3])
    with working(broker):
        eventually(lambda: len(lines()) == 2)
    (_, fields, record), (_, after, _) = lines()
    assert fields["job_args"] == [1, "two", [3]]
    assert record.getMessage().endswith(" args=[1, 'two', [3]]")
    assert "job_args" not in after


def test_failed_and_retried_are_told_apart(broker: SidekiqBroker, client: redis.Redis, lines: Any) -> None:
    broker.add_middleware(JobLogging())

    @dramatiq.actor(queue_name="python")
    def fails(secret: str) -> None:
        raise ValueError("it broke")

    fails.send("s3cret")
    fails.send_with_options(args=("s3cret",), max_retries=0)
    fails.send_with_options(args=("s3cret",), retry=False)
    with working(broker):
        eventually(lambda: len(lines()) == 6)
    ends = {word: (fields, record) for word, fields, record in lines() if word != "start"}
    assert {word: record.levelno for word, (_, record) in ends.items()} == {
        "retry": logging.WARNING,
        "dead": logging.ERROR,
        "discard": logging.INFO,
    }
    for word, (fields, record) in ends.items():
        assert fields["outcome"] == word
        assert (fields["error_class"], fields["error_message"]) == ("ValueError", "it broke")
        assert record.getMessage().endswith(" error=ValueError")
    # And what is said is so.
    assert [job["jid"] for job in members(client, "retry")] == [ends["retry"][0]["jid"]]
    assert [job["jid"] for job in members(client, "dead")] == [ends["dead"][0]["jid"]]


def test_what_a_shutdown_interrupted_is_not_an_error(broker: SidekiqBroker, lines: Any) -> None:
    broker.add_middleware(JobLogging())
    begun = threading.Event()

    @dramatiq.actor(queue_name="python", notify_shutdown=True)
    def long() -> None:
        begun.set()
        while True:
            time.sleep(0.01)

    long.send()
    with working(broker):
        assert begun.wait(20)
    (_, (word, fields, record)) = lines()
    assert (word, fields["outcome"], record.levelno) == ("requeue", "requeue", logging.INFO)


def test_a_run_that_cannot_go_on_is_dead_and_says_why(broker: SidekiqBroker, client: redis.Redis, lines: Any) -> None:
    broker.add_middleware(JobLogging())

    @dramatiq.actor(queue_name="python")
    def step() -> None: ...

    Workflow(Chain(step.message(), step.message())).run()
    client.delete(*client.keys("*_ran"))
    with working(broker):
        eventually(lambda: len(lines()) == 2)
    word, fields, _ = lines()[-1]
    assert (word, fields["error_class"]) == ("dead", "BarrierExpired")


def test_a_job_without_an_actor_has_an_end_only(broker: SidekiqBroker, client: redis.Redis, lines: Any) -> None:
    broker.add_middleware(JobLogging())
    broker.declare_queue("python")
    client.lpush("queue:python", json.dumps({"class": "Nobody", "args": [], "jid": "a" * 24, "retry": 3}))
    with working(broker):
        eventually(lambda: lines())
    ((word, fields, record),) = lines()
    assert (word, fields["class"], fields["elapsed"]) == ("retry", "Nobody", None)
    assert "elapsed=" not in record.getMessage()


def test_skipped_is_no_failure(broker: SidekiqBroker, lines: Any) -> None:
    class Skip(dramatiq.Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            raise SkipMessage

    broker.add_middleware(Skip())
    broker.add_middleware(JobLogging())

    @dramatiq.actor(queue_name="python")
    def step() -> None: ...

    step.send()
    with working(broker):
        eventually(lambda: lines())
    ((word, fields, record),) = lines()
    assert (word, record.levelno, fields["elapsed"]) == ("skip", logging.INFO, None)


def test_off_there_is_no_line_and_dramatiqs_own_stay(
    broker: SidekiqBroker, client: redis.Redis, caplog: pytest.LogCaptureFixture, lines: Any
) -> None:
    broker.add_middleware(JobLogging(level=logging.DEBUG))
    caplog.set_level(logging.INFO, "dramatiq_sidekiq_flow.job")
    caplog.set_level(logging.DEBUG)

    @dramatiq.actor(queue_name="python")
    def step() -> None: ...

    step.send()
    with working(broker):
        broker.join("python", timeout=10_000)
        eventually(lambda: not in_flight(client))
    assert lines() == []
    own = [record.getMessage() for record in caplog.records if record.name == "dramatiq.worker.WorkerThread"]
    assert any(text.startswith("Received message step()") for text in own)
