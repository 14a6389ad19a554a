"""For any arguments and options, ``send_many`` and ``enqueue_many`` write the jobs that ``send`` writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import dramatiq
import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow import SidekiqBroker
from dramatiq_sidekiq_flow.errors import FlowError

from ..example_counts import examples
from ..redis_values import raws

LIMITS = settings(
    deadline=None,
    max_examples=examples(150),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

#: What an actor may be sent, and what it may not.
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**400])
    | st.floats()
    | st.text()
    | st.sampled_from(["\ud800", "\r\n\u2028", "\x00", b"bytes"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)
ITEMS = st.lists(st.lists(VALUES, max_size=3).map(tuple) | st.lists(st.integers(), max_size=2), max_size=4)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "tags": st.lists(st.text(max_size=3), max_size=2),
        "retry": st.sampled_from([True, False, 0, 5, "text", -1]),
        "max_retries": st.none() | st.integers(0, 9),
        "memory_namespace": st.sampled_from(["left", "outer.inner", ""]),
        "on_success": st.sampled_from(["note", None]),
        "locale": st.sampled_from(["de", None]),
        "other": VALUES,
        "delay": st.sampled_from([None, 0, -5, 60_000]),
    },
)


class Site:
    """An actor, and what it has sent."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)
        self.broker = SidekiqBroker(url=url)

        @dramatiq.actor(queue_name="python", backtrace=5, broker=self.broker)
        def note(*args: Any) -> None: ...

        self.note: Any = note

    def sent(self, send: Callable[[], Sequence[dramatiq.Message[Any]]]) -> Any:
        """The jobs that a call has written, without their ids and times; or that it was refused."""
        self.client.delete("queue:python", "schedule")
        try:
            messages = send()
        except (FlowError, TypeError):
            # Which error it is depends on whether arguments or options are looked at first.
            assert not self.client.exists("queue:python", "schedule")
            return "refused"
        queued = [json.loads(raw) for raw in raws(self.client.lrange("queue:python", 0, -1))]
        scheduled = {job["jid"]: job for job in map(json.loads, raws(self.client.zrange("schedule", 0, -1)))}
        found = queued[::-1] or [scheduled[message.message_id] for message in messages]
        assert [job["jid"] for job in found] == [message.message_id for message in messages]
        assert [tuple(message.args) for message in messages] == [message.args for message in messages]
        for job in found:
            assert job.pop("created_at") <= job.pop("enqueued_at", float("inf"))
            del job["jid"]
        return found, [(message.args, message.options) for message in messages]


class Hooks(dramatiq.Middleware):
    """Makes each message pass by itself."""

    def after_enqueue(self, broker: Any, message: Any, delay: Any) -> None: ...


@pytest.fixture(params=[False, True], ids=["plain", "hooked"])
def site(redis_url: str, request: pytest.FixtureRequest) -> Any:
    site = Site(redis_url)
    if request.param:
        site.broker.add_middleware(Hooks())
    yield site
    site.broker.close()
    site.client.close()


@LIMITS
@given(items=ITEMS, options=OPTIONS)
@example(items=[(1,), ("\ud800",)], options={})
@example(items=[(2**64,), ({"a": [1.5, None]},)], options={"tags": ["a"], "delay": 60_000})
def test_the_jobs_are_those_of_send(site: Site, items: list[Any], options: dict[str, Any]) -> None:
    delay = options.pop("delay", None)
    note, broker = site.note, site.broker

    def one_by_one() -> list[Any]:
        try:
            return [note.send_with_options(args=tuple(item), delay=delay, **options) for item in items]
        except (FlowError, TypeError):
            # All or none, as a list is sent.
            site.client.delete("queue:python", "schedule")
            raise

    def as_messages() -> list[Any]:
        messages = [note.message_with_options(args=tuple(item), **options) for item in items]
        return broker.enqueue_many(messages, delay=delay)

    expected = site.sent(one_by_one)
    assert site.sent(as_messages) == expected
    # The options of no job are checked, too.
    assert not items or site.sent(lambda: note.send_many(items, delay=delay, **options)) == expected
