"""The corpus of bad input, and a Python worker: twenty good jobs are done, and each member is where the corpus says."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest

from dramatiq_sidekiq_flow import RedisHashMemory, SidekiqBroker, WorkflowMiddleware

from ..corpus import judge, loader
from ..running import eventually, working
from .log_lines import Lines, logged

#: Lines in the log, in any one second; and characters in any one line.
MAX_LINES = 50
MAX_LENGTH = 2000

MEMBERS = loader.members()
KEYS = loader.wrong_keys("python")


class Failure(Exception):
    """What a job raises, under the name that Ruby's has."""


Failure.__name__ = "Corpus::Failure"


def is_kept(record: logging.LogRecord) -> bool:
    """Without Dramatiq's own line for each job that fails."""
    return not record.name.startswith("dramatiq.worker.")


def is_ours(record: logging.LogRecord) -> bool:
    return record.name.startswith("dramatiq_sidekiq_flow.")


@pytest.fixture
def lines() -> Iterator[Lines]:
    with logged(is_kept, is_ours) as lines:
        yield lines


def check(lines: Lines) -> None:
    """See that the log can be read."""
    assert lines.most < MAX_LINES, lines.texts[-100:]
    assert max(map(len, lines.texts), default=0) < MAX_LENGTH, max(lines.texts, key=len)[:4000]
    assert not any("found a bug" in text for text in lines.texts), lines.texts[-100:]


@pytest.fixture
def broker(redis_url: str, client: Any) -> Iterator[SidekiqBroker]:
    broker = SidekiqBroker(url=redis_url, poll_interval=100, heartbeat_timeout=1_000)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
    dramatiq.set_broker(broker)

    @dramatiq.actor(queue_name=loader.QUEUE, actor_name=loader.CLASS, max_retries=0)
    def job(*args: Any, **kwargs: Any) -> None:
        note(judge.RAN, args)
        if client.exists(judge.FAIL) and not str(args[:1]).startswith("('good "):
            raise Failure("as it was told")

    @dramatiq.actor(queue_name=loader.QUEUE, actor_name=loader.NEXT, max_retries=0)
    def following(*args: Any) -> None:
        note(judge.RAN_NEXT, args)

    def note(key: str, args: Any) -> None:
        client.rpush(key, args[0] if args and isinstance(args[0], str) else "")

    yield broker
    broker.process.heartbeat.stop()
    broker.close()


@pytest.mark.parametrize("place", loader.PLACES)
def test_each_member_is_where_the_corpus_says(broker: SidekiqBroker, client: Any, lines: Lines, place: str) -> None:
    if place == "fails":
        client.set(judge.FAIL, 1)
    judge.put(client, place, MEMBERS)
    with working(broker, threads=4):
        judge.settle(client, "python", place, MEMBERS, eventually)
    # Nothing has moved or come a second time while the worker stopped.
    assert judge.differences(client, "python", place, MEMBERS) == []
    check(lines)


def test_what_is_mended_goes_on(broker: SidekiqBroker, client: Any) -> None:
    """A job whose barrier was wrong is in ``dead``: mended and retried there, its run goes on."""
    members = [member for member in MEMBERS if member.cure]
    judge.put(client, "queue", members)
    with working(broker, threads=4):
        judge.settle(client, "python", "queue", members, eventually)
        judge.cure(client, members)
        eventually(lambda: judge.followed(client, members) == {member.name: 1 for member in members})
    assert not client.zcard("dead")


def test_what_is_wrapped_can_be_pressed_again(broker: SidekiqBroker, client: Any) -> None:
    """The pages show it; retried, it is in ``dead`` again, with the same bytes in it."""
    judge.put(client, "queue", MEMBERS)
    with working(broker, threads=4):
        judge.settle(client, "python", "queue", MEMBERS, eventually)
        assert judge.unreadable(client) == []
        for _ in range(2):
            pressed = judge.press_wrapped(client)
            assert len(pressed) > 5
            eventually(lambda: set(judge.wrapped(client)) == pressed, what="the wrapped jobs, in dead again")  # noqa: B023
        assert judge.unreadable(client) == []


def test_there_are_enough_wrong_keys() -> None:
    assert len(KEYS) >= 30


@pytest.mark.parametrize("wrong", KEYS, ids=lambda wrong: wrong.name)
def test_a_key_of_another_type(broker: SidekiqBroker, client: Any, lines: Lines, wrong: loader.WrongKey) -> None:
    own = broker.process.heartbeat.identity
    name = judge.make(client, wrong, own)
    judge.send_good(client, without=name)
    with working(broker, threads=4):
        eventually(lambda: judge.times_done(client) == judge.BESIDE[wrong.works], what=f"{wrong.works} beside it")
        eventually(lambda: judge.due_are_there(client, wrong), what=wrong.due)
        logs = wrong.logs.replace("OWN", own)
        eventually(lambda: not logs or any(logs in text for text in lines.texts), what=f"a line with {logs!r}")
        # It is met again and again: when a worker beats, and when it looks for what is due.
        time.sleep(2 * broker.process.heartbeat.interval)
        assert judge.times_done(client) == judge.BESIDE[wrong.works]
        assert judge.is_kept(client, wrong, name) == (wrong.effect == "kept")
        client.delete(name)
        judge.send_good(client, only=name)
        if wrong.due != "runs":
            judge.cure(client, ())
        eventually(lambda: judge.times_done(client) == [1] * judge.GOOD, what="all of them once it is removed")
        client.delete(judge.RAN)
        judge.send_good(client)
        eventually(lambda: judge.times_done(client) == [1] * judge.GOOD, what="twenty more")
    check(lines)
