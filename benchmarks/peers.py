"""The three that are compared, behind one face.

Each is set up as its own documentation says, with Dramatiq's default
middleware, and has one actor, ``step``, on one queue, ``bench``.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import dramatiq
from dramatiq.brokers.redis import RedisBroker

Message = dramatiq.Message[Any]


def _never(index: int) -> None:
    raise AssertionError("Steps run in the worker process.")


class Peer(ABC):
    """A broker with one actor, and its way to start a chain and a group.

    Parameters:
      url: The Redis to use.
      step: What the actor does; only a worker process has something to do.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    #: The distribution that it comes in, and the module that it needs.
    package: ClassVar[str]
    module: ClassVar[str]
    #: The Redis list that waiting jobs are in.
    queue: ClassVar[str]
    #: What a reader must know to read its figures.
    note: ClassVar[str | None] = None

    def __init__(self, url: str, step: Callable[[int], None] = _never) -> None:
        self.broker = self.build(url)
        declare = dramatiq.actor(broker=self.broker, actor_name="step", queue_name="bench")
        self.step: dramatiq.Actor[Any, Any] = declare(step)

    @classmethod
    def installed(cls) -> bool:
        return importlib.util.find_spec(cls.module) is not None

    def messages(self, count: int) -> list[Message]:
        """The steps of a workflow, numbered."""
        return [self.step.message(index) for index in range(count)]

    @abstractmethod
    def build(self, url: str) -> dramatiq.Broker: ...

    @abstractmethod
    def chain(self, messages: Sequence[Message]) -> None:
        """Make a chain of these and start it."""

    @abstractmethod
    def group(self, messages: Sequence[Message]) -> None:
        """Make a group of these and start it."""

    @abstractmethod
    def fan_out(self, first: Message, messages: Sequence[Message]) -> None:
        """Make a workflow of one step, and a group of these behind it, and start it."""

    @abstractmethod
    def close(self) -> None:
        """Drop the connections."""


class SidekiqFlow(Peer):
    name = "sidekiq-flow"
    title = "dramatiq-sidekiq-flow"
    package = "dramatiq-sidekiq-flow"
    module = "dramatiq_sidekiq_flow"
    queue = "queue:bench"

    def build(self, url: str) -> dramatiq.Broker:
        from dramatiq_sidekiq_flow import RedisHashMemory, SidekiqBroker, WorkflowMiddleware

        broker = SidekiqBroker(url=url)
        broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
        return broker

    def chain(self, messages: Sequence[Message]) -> None:
        from dramatiq_sidekiq_flow import Chain, Workflow

        Workflow(Chain(*messages), broker=self.broker).run()

    def group(self, messages: Sequence[Message]) -> None:
        from dramatiq_sidekiq_flow import Group, Workflow

        Workflow(Group(*messages), broker=self.broker).run()

    def fan_out(self, first: Message, messages: Sequence[Message]) -> None:
        from dramatiq_sidekiq_flow import Chain, Group, Workflow

        Workflow(Chain(first, Group(*messages)), broker=self.broker).run()

    def close(self) -> None:
        self.broker.close()


class _OnRedisBroker(Peer):
    broker: RedisBroker
    queue = "dramatiq:bench"

    def close(self) -> None:
        # RedisBroker.close() does nothing; its connections would stay open.
        self.broker.client.connection_pool.disconnect()


class DramatiqRedis(_OnRedisBroker):
    name = "redis-broker"
    title = "Dramatiq's RedisBroker"
    package = "dramatiq"
    module = "dramatiq"
    note = (
        "its chain is dramatiq.pipeline, its group is dramatiq.group; neither waits for a group inside a chain, "
        "and this group has nothing to run when it is complete"
    )

    def build(self, url: str) -> dramatiq.Broker:
        return RedisBroker(url=url)

    def messages(self, count: int) -> list[Message]:
        # Without pipe_ignore each step would be handed the result of the one before.
        return [self.step.message_with_options(args=(index,), pipe_ignore=True) for index in range(count)]

    def chain(self, messages: Sequence[Message]) -> None:
        dramatiq.pipeline(messages, broker=self.broker).run()

    def group(self, messages: Sequence[Message]) -> None:
        dramatiq.group(messages, broker=self.broker).run()

    def fan_out(self, first: Message, messages: Sequence[Message]) -> None:
        raise NotImplementedError("dramatiq.pipeline takes no group")


class DramatiqWorkflow(_OnRedisBroker):
    name = "dramatiq-workflow"
    title = "dramatiq-workflow"
    package = "dramatiq-workflow"
    module = "dramatiq_workflow"

    def build(self, url: str) -> dramatiq.Broker:
        from dramatiq.rate_limits.backends import RedisBackend
        from dramatiq_workflow import WorkflowMiddleware

        broker = RedisBroker(url=url)
        broker.add_middleware(WorkflowMiddleware(RedisBackend(client=broker.client)))
        return broker

    def chain(self, messages: Sequence[Message]) -> None:
        from dramatiq_workflow import Chain, Workflow

        Workflow(Chain(*messages), broker=self.broker).run()

    def group(self, messages: Sequence[Message]) -> None:
        from dramatiq_workflow import Group, Workflow

        Workflow(Group(*messages), broker=self.broker).run()

    def fan_out(self, first: Message, messages: Sequence[Message]) -> None:
        from dramatiq_workflow import Chain, Group, Workflow

        Workflow(Chain(first, Group(*messages)), broker=self.broker).run()


#: Ours first: the others are what it is divided by.
PEERS: tuple[type[Peer], ...] = (SidekiqFlow, DramatiqRedis, DramatiqWorkflow)


def peer_named(name: str) -> type[Peer]:
    return next(peer for peer in PEERS if peer.name == name)
