"""The contenders, behind one face; this module has those in Python.

Each is set up as its own documentation says, with Dramatiq's default
middleware, and has one actor, ``step``, on one queue, ``bench``.
"""

from __future__ import annotations

import gc
import importlib.util
import inspect
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import attrs
import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware.asyncio import AsyncIO

from .pipes import Command

Message = dramatiq.Message[Any]
Step = Callable[..., Awaitable[None] | None]


class NotOffered(Exception):
    """A contender does not have what is measured."""


@attrs.frozen
class Timed:
    """When something began and ended, in seconds of the clock that all processes share."""

    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Peer(ABC):
    """A contender: what its producer does, and how its worker process is started.

    All jobs run the same no-op, numbered.  The producer makes its messages first
    and only then begins to count the time.

    Parameters:
      url: The Redis to use.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    #: The Redis list that waiting jobs are in.
    queue: ClassVar[str]
    #: What a reader must know to read its figures.
    note: ClassVar[str | None] = None
    #: Whether actors may be coroutines.
    asynchronous: ClassVar[bool] = False
    #: Python that makes ``broker`` of ``url``, for what has to be imported.
    boot: ClassVar[str] = ""

    @abstractmethod
    def __init__(self, url: str) -> None: ...

    @classmethod
    @abstractmethod
    def worker(cls, url: str, threads: int, awaiting: bool) -> Command:
        """The command of a worker process."""

    @classmethod
    @abstractmethod
    def version(cls) -> str: ...

    @abstractmethod
    def send(self, jobs: int, *, first: int = 0, size: int = 0) -> Timed:
        """Send jobs one by one, numbered from ``first``, with ``size`` bytes of arguments."""

    @abstractmethod
    def bulk(self, jobs: int, *, messages: bool = False) -> Timed:
        """Send jobs with one call; ``messages``: made before, else from their arguments."""

    @abstractmethod
    def chain(self, steps: int, *, first: int = 0, size: int = 0) -> Timed:
        """Make a chain and start it; its steps are numbered from ``first``."""

    @abstractmethod
    def group(self, steps: int) -> Timed:
        """Make a group and start it."""

    @abstractmethod
    def fan_out(self, steps: int) -> Timed:
        """Make a workflow of one step and a group of the others behind it, and start it."""

    @abstractmethod
    def join(self, steps: int) -> Timed:
        """Make a workflow of a group and one step behind it, the last one, and start it."""

    @abstractmethod
    def close(self) -> None:
        """Drop the connections."""


def _never(index: int, padding: str = "") -> None:
    raise AssertionError("Steps run in the worker process.")


class PythonPeer(Peer):
    """A Dramatiq broker with one actor.

    Parameters:
      step: What the actor does; only a worker process has something to do.
    """

    #: The distribution that it comes in, and the module that it needs.
    package: ClassVar[str]
    module: ClassVar[str]
    asynchronous = True

    def __init__(self, url: str, step: Step = _never) -> None:
        self.broker = self.build(url)
        if inspect.iscoroutinefunction(step):
            self.broker.add_middleware(AsyncIO())
        declare = dramatiq.actor(broker=self.broker, actor_name="step", queue_name="bench")
        self.step: dramatiq.Actor[Any, Any] = declare(step)

    @classmethod
    def installed(cls) -> bool:
        return importlib.util.find_spec(cls.module) is not None

    @classmethod
    def version(cls) -> str:
        try:
            return version(cls.package)
        except PackageNotFoundError:
            # Run from a checkout that is not installed.
            from dramatiq_sidekiq_flow import __version__

            return __version__

    @classmethod
    def worker(cls, url: str, threads: int, awaiting: bool) -> Command:
        line = [sys.executable, "-m", "benchmarks.worker", cls.name, "--url", url, "--threads", str(threads)]
        return Command((*line, "--awaiting") if awaiting else tuple(line))

    def send(self, jobs: int, *, first: int = 0, size: int = 0) -> Timed:
        step, padding = self.step, ["x" * size] if size else []
        gc.collect()
        began = time.monotonic()
        for index in range(first, first + jobs):
            step.send(index, *padding)
        return Timed(began, time.monotonic())

    def bulk(self, jobs: int, *, messages: bool = False) -> Timed:
        raise NotOffered("it has no call for many jobs")

    def chain(self, steps: int, *, first: int = 0, size: int = 0) -> Timed:
        return self._run(self.start_chain, self.messages(steps, first, size))

    def group(self, steps: int) -> Timed:
        return self._run(self.start_group, self.messages(steps))

    def fan_out(self, steps: int) -> Timed:
        messages = self.messages(steps)
        return self._run(self.start_tree, [messages[0]], messages[1:], [])

    def join(self, steps: int) -> Timed:
        messages = self.messages(steps)
        return self._run(self.start_tree, [], messages[:-1], [messages[-1]])

    def messages(self, count: int, first: int = 0, size: int = 0) -> list[Message]:
        """The steps of a workflow, numbered."""
        padding = ["x" * size] if size else []
        return [self.step.message(index, *padding) for index in range(first, first + count)]

    def _run(self, start: Callable[..., Any], *steps: Sequence[Any]) -> Timed:
        gc.collect()
        began = time.monotonic()
        start(*steps)
        return Timed(began, time.monotonic())

    @abstractmethod
    def build(self, url: str) -> dramatiq.Broker: ...

    @abstractmethod
    def start_chain(self, messages: Sequence[Message]) -> None: ...

    @abstractmethod
    def start_group(self, messages: Sequence[Message]) -> None: ...

    @abstractmethod
    def start_tree(self, before: Sequence[Message], members: Sequence[Message], after: Sequence[Message]) -> None:
        """Start a chain of steps, a group, and more steps."""


class SidekiqFlow(PythonPeer):
    name = "sidekiq-flow"
    title = "dramatiq-sidekiq-flow"
    package = "dramatiq-sidekiq-flow"
    module = "dramatiq_sidekiq_flow"
    queue = "queue:bench"
    boot = """
from dramatiq_sidekiq_flow import RedisHashMemory, SidekiqBroker, WorkflowMiddleware
broker = SidekiqBroker(url=url)
broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
"""

    def build(self, url: str) -> dramatiq.Broker:
        from dramatiq_sidekiq_flow import RedisHashMemory, SidekiqBroker, WorkflowMiddleware

        broker = SidekiqBroker(url=url)
        broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
        return broker

    def bulk(self, jobs: int, *, messages: bool = False) -> Timed:
        owner: Any = self.broker if messages else self.step
        call = getattr(owner, "enqueue_many" if messages else "send_many", None)
        if call is None:
            raise NotOffered("this version has no call for many jobs")
        made: list[Any] = self.messages(jobs) if messages else [(index,) for index in range(jobs)]
        return self._run(call, made)

    def mixed(self, steps: int, every: int, queue: str) -> Timed:
        """Start a chain in which each step of some number is Ruby's."""
        from dramatiq_sidekiq_flow import Job

        made: list[Any] = list(self.messages(steps))
        made[every - 1 :: every] = [Job("Bench::Step", index, queue=queue) for index in range(every - 1, steps, every)]
        return self._run(self.start_chain, made)

    def start_chain(self, messages: Sequence[Message]) -> None:
        from dramatiq_sidekiq_flow import Chain, Workflow

        Workflow(Chain(*messages), broker=self.broker).run()

    def start_group(self, messages: Sequence[Message]) -> None:
        from dramatiq_sidekiq_flow import Group, Workflow

        Workflow(Group(*messages), broker=self.broker).run()

    def start_tree(self, before: Sequence[Message], members: Sequence[Message], after: Sequence[Message]) -> None:
        from dramatiq_sidekiq_flow import Chain, Group, Workflow

        Workflow(Chain(*before, Group(*members), *after), broker=self.broker).run()

    def close(self) -> None:
        self.broker.close()


class _OnRedisBroker(PythonPeer):
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
    boot = """
from dramatiq.brokers.redis import RedisBroker
broker = RedisBroker(url=url)
"""

    def build(self, url: str) -> dramatiq.Broker:
        return RedisBroker(url=url)

    def messages(self, count: int, first: int = 0, size: int = 0) -> list[Message]:
        padding = ["x" * size] if size else []
        arguments = [(index, *padding) for index in range(first, first + count)]
        # Without pipe_ignore each step would be handed the result of the one before.
        return [self.step.message_with_options(args=each, pipe_ignore=True) for each in arguments]

    def start_chain(self, messages: Sequence[Message]) -> None:
        dramatiq.pipeline(messages, broker=self.broker).run()

    def start_group(self, messages: Sequence[Message]) -> None:
        dramatiq.group(messages, broker=self.broker).run()

    def start_tree(self, before: Sequence[Message], members: Sequence[Message], after: Sequence[Message]) -> None:
        raise NotOffered("dramatiq.pipeline takes no group")


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

    def start_chain(self, messages: Sequence[Message]) -> None:
        from dramatiq_workflow import Chain, Workflow

        Workflow(Chain(*messages), broker=self.broker).run()

    def start_group(self, messages: Sequence[Message]) -> None:
        from dramatiq_workflow import Group, Workflow

        Workflow(Group(*messages), broker=self.broker).run()

    def start_tree(self, before: Sequence[Message], members: Sequence[Message], after: Sequence[Message]) -> None:
        from dramatiq_workflow import Chain, Group, Workflow

        Workflow(Chain(*before, Group(*members), *after), broker=self.broker).run()


#: Ours first: the others are what it is divided by.
PEERS: tuple[type[PythonPeer], ...] = (SidekiqFlow, DramatiqRedis, DramatiqWorkflow)


def peer_named(name: str) -> type[PythonPeer]:
    return next(peer for peer in PEERS if peer.name == name)
