"""For any attrs class: its values arrive as they were, and nothing else reaches the actor."""

from __future__ import annotations

import itertools
import json
from typing import Any

import attrs
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow import Chain, Job, RedisHashMemory, SidekiqBroker, TypedActor, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.broker import SidekiqMessage
from dramatiq_sidekiq_flow.errors import InvalidInput
from dramatiq_sidekiq_flow.typed.actor import actor

from ..classes import Kind, classes
from ..example_counts import examples
from ..redis_values import raws

QUEUE = "python"
LIMITS = settings(
    deadline=None, max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


class Site:
    """A broker whose jobs are done one by one, and an actor of each class."""

    def __init__(self, url: str) -> None:
        self.broker = SidekiqBroker(url=url)
        self.broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
        self.broker.declare_queue(QUEUE)
        self.ran: list[Any] = []
        self._numbers = itertools.count()

    def echo(self, kind: Kind) -> TypedActor[Any]:
        """An actor that takes and gives back a class."""
        self.ran.clear()

        def echo(input):  # type: ignore[no-untyped-def]
            self.ran.append(input)
            return input

        echo.__annotations__ = {"input": kind.annotation, "return": kind.annotation}
        return actor(actor_name=f"echo{next(self._numbers)}", queue_name=QUEUE, broker=self.broker)(echo)

    def work(self) -> SidekiqMessage:
        """Do one job as a worker thread does; raises what the actor raises."""
        consumer = self.broker.consume(QUEUE, prefetch=1, timeout=10_000)
        message = next(consumer)
        assert message is not None
        self.broker.emit_before("process_message", message)
        try:
            result = self.broker.get_actor(message.actor_name)(*message.args, **message.kwargs)
        except BaseException as e:
            message.stuff_exception(e)
            self.broker.emit_after("process_message", message, exception=e)
            raise
        else:
            self.broker.emit_after("process_message", message, result=result)
            return message
        finally:
            consumer.ack(message)


@pytest.fixture
def site(redis_url: str) -> Any:
    site = Site(redis_url)
    yield site
    site.broker.close()


def test_values_arrive_as_they_were(site: Site, client: redis.Redis) -> None:
    """As arguments to the first step, and to the second through memory, where the first put them."""

    @LIMITS
    @given(kind=classes, data=st.data())
    def holds(kind: Kind, data: st.DataObject) -> None:
        echo, value = site.echo(kind), data.draw(kind.good)
        Workflow(Chain(echo.message(value), echo.message()), broker=site.broker).run()
        first, second = site.work(), site.work()
        assert site.ran == [value, value]
        assert (len(first.args), second.args) == (1, ())
        assert first.output == second.output == first.args[0]
        assert client.zcard("dead") == 0

    holds()


def test_memory_then_arguments_then_defaults(site: Site, client: redis.Redis) -> None:
    """Each field in memory, in the arguments, in both or, where it has a default, in neither."""

    @LIMITS
    @given(kind=classes, data=st.data())
    def holds(kind: Kind, data: st.DataObject) -> None:
        echo = site.echo(kind)
        remembered, given_ = data.draw(kind.good), data.draw(kind.good)
        in_memory, in_args = kind.form(remembered), kind.form(given_)
        expected: dict[str, Any] = {}
        for field in attrs.fields(kind.annotation):
            places = ["memory", "args", "both", *([] if field.default is attrs.NOTHING else ["neither"])]
            place = data.draw(st.sampled_from(places), field.alias)
            if place in ("args", "neither"):
                del in_memory[field.alias]
            if place in ("memory", "neither"):
                del in_args[field.alias]
            if place != "neither":
                expected[field.alias] = getattr(remembered if place == "memory" else given_, field.name)
        in_memory["something else"] = 1
        Workflow(Chain(echo.message(in_args)), broker=site.broker).start(seed=in_memory)
        site.work()
        assert site.ran == [kind.annotation(**expected)]

    holds()


def test_what_does_not_fit_is_dead_with_its_path(site: Site, client: redis.Redis) -> None:
    @LIMITS
    @given(kind=classes, data=st.data())
    def holds(kind: Kind, data: st.DataObject) -> None:
        # A None is no argument, as in the gem.
        echo, (bad, path) = site.echo(kind), data.draw(kind.bad.filter(lambda bad: bad[0] is not None))
        client.delete("dead")
        with pytest.raises(InvalidInput) as error:
            echo.send(bad)
        assert f": input{path}: " in error.value.message or not isinstance(bad, dict)
        assert client.llen(f"queue:{QUEUE}") == 0

        Workflow(Chain(Job(echo.actor_name, bad), echo.message()), broker=site.broker).run()
        with pytest.raises(InvalidInput):
            site.work()
        assert_dead(client, path)
        assert site.ran == []

    holds()


def test_what_does_not_fit_in_memory_is_dead_with_its_path(site: Site, client: redis.Redis) -> None:
    @LIMITS
    @given(kind=classes, data=st.data())
    def holds(kind: Kind, data: st.DataObject) -> None:
        echo = site.echo(kind)
        bad, path = data.draw(kind.bad.filter(lambda bad: type(bad[0]) is dict and "unknown" not in bad[0]))
        client.delete("dead")
        Workflow(Chain(echo.message()), broker=site.broker).start(seed=bad)
        with pytest.raises(InvalidInput):
            site.work()
        assert_dead(client, path)
        assert site.ran == []

    holds()


def assert_dead(client: redis.Redis, path: str) -> None:
    (member,) = raws(client.zrange("dead", 0, -1))
    job = json.loads(member)
    assert job["error_class"] == "InvalidInput"
    assert f": input{path}: " in job["error_message"]
    assert client.zcard("retry") == client.llen(f"queue:{QUEUE}") == 0
