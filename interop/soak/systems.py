"""What is compared, behind one face: ours with and without the companion, the gem alone, dramatiq-workflow."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import random
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar
from uuid import uuid4

import dramatiq
import redis

from tests.trees import Shape, build

from .run_judge import COMPLETE, FAILURE
from .settings import RATES, Settings

#: What the peers are given: none of them promises anything for a server that refuses.
OF_PEERS = ("kill", "term", "pause", "cut", "restart")

Step = Callable[..., dict[str, str]]

#: Names of the steps in either language, and their queues.
RUBY, PYTHON = "Soak::Step", "Soak::Python"


def _never(run: int, number: int, options: dict[str, Any], told: Any = None) -> dict[str, str]:
    raise AssertionError("steps run in worker processes")


class System(ABC):
    """One column.

    Attributes:
      name: On the command line.
      heading: Two lines of the table.
      kinds: The disturbances that it is given.
      must_hold: Whether a problem makes the soak fail.
    """

    name: ClassVar[str]
    heading: ClassVar[tuple[str, str]]
    kinds: ClassVar[tuple[str, ...]] = tuple(RATES)
    must_hold: ClassVar[bool] = False
    #: Whether Ruby workers load the companion.
    companion: ClassVar[bool] = False
    #: Whether its runs are steered, with steps of all kinds.
    steered: ClassVar[bool] = False

    @property
    def missing(self) -> str:
        """What must be installed before it can run; empty if nothing."""
        return ""

    def languages(self, settings: Settings) -> list[str]:
        """Of its workers, one each."""
        return ["ruby"] * settings.ruby + ["python"] * settings.python

    @abstractmethod
    def broker(self, url: str, heartbeat: float, references: int | None, step: Step = _never) -> dramatiq.Broker:
        """The broker of a Python process, and its actor."""

    @abstractmethod
    def origin(self) -> str:
        """In a step: what differs between two pushes of it."""

    @abstractmethod
    def workflow(self, broker: dramatiq.Broker, shape: Shape, run: int, rng: random.Random, settings: Settings) -> Any:
        """A workflow that is not started; ``run()`` starts it."""

    #: The names that steps are given, and their queues; Python's are the last.
    steps: ClassVar[tuple[tuple[str, str], ...]] = ((RUBY, "ruby"), (PYTHON, "python"))

    def steered_workflow(self, broker: dramatiq.Broker, tree: Any, run: int, rng: random.Random) -> Any:
        """A workflow of a planted tree, with callbacks."""
        raise NotImplementedError

    def pills(self, client: redis.Redis) -> frozenset[tuple[int, int]]:
        """Steps that may fail and have died with their workers: run, number."""
        return frozenset()

    #: Whether a start that raised may be repeated.
    repeatable: ClassVar[bool] = True
    #: Whether it can run empty chains and groups.
    empty_nodes: ClassVar[bool] = True

    @abstractmethod
    def left(self, client: redis.Redis) -> dict[str, int]:
        """What waits or is in flight; empty at rest."""

    def nurse(self, client: redis.Redis) -> Counter[str]:
        """Do what a person would do meanwhile; how often."""
        return Counter()

    def dead(self, client: redis.Redis) -> Counter[str]:
        """Dead jobs by their errors."""
        return Counter()


def _declare(broker: dramatiq.Broker, step: Step) -> None:
    """Declare the one actor, which knows its message."""
    broker.add_middleware(dramatiq.middleware.CurrentMessage())
    dramatiq.actor(actor_name=PYTHON, queue_name="python", min_backoff=500, max_backoff=1000, broker=broker)(step)


def _current_message() -> Any:
    message = dramatiq.middleware.CurrentMessage.get_current_message()
    assert message is not None
    return message


def options_of(rng: random.Random, settings: Settings) -> dict[str, Any]:
    """What a step is told."""
    return {"ms": rng.randrange(settings.longest + 1), "fail": settings.fail}


class _Sidekiq(System):
    """What the three on Sidekiq's format share."""

    def broker(self, url: str, heartbeat: float, references: int | None, step: Step = _never) -> dramatiq.Broker:
        from dramatiq_sidekiq_flow import RedisCallbackStorage, RedisHashMemory, SidekiqBroker, WorkflowMiddleware

        broker = SidekiqBroker(url=url, heartbeat_timeout=int(heartbeat * 1000), poll_interval=100)
        storage = None if references is None else RedisCallbackStorage(min_bytes=references)
        broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(), callback_storage=storage))
        _declare(broker, step)
        return broker

    def origin(self) -> str:
        message = _current_message()
        # A second push of a callback would be the same job, at another time.
        called = f" {message.payload.fields['enqueued_at']}" if len(message.args) > 3 else ""
        return f"{message.message_id}{called}"

    def steered_workflow(self, broker: dramatiq.Broker, tree: Any, run: int, rng: random.Random) -> Any:
        """A workflow of a planted tree, with callbacks."""
        from dramatiq_sidekiq_flow import Job, Workflow

        from .steps import node

        def call(number: int) -> Any:
            name, queue = rng.choice(self.steps)
            return Job(name, run, number, {"ms": 0, "fail": 0}, queue=queue)

        return Workflow(node(tree), broker, on_failure=call(FAILURE), on_complete=call(COMPLETE))

    def workflow(self, broker: dramatiq.Broker, shape: Shape, run: int, rng: random.Random, settings: Settings) -> Any:
        from dramatiq_sidekiq_flow import Job, Workflow

        def job(number: int) -> Job:
            name, queue = rng.choice(self.steps)
            return Job(name, run, number, options_of(rng, settings), queue=queue)

        return Workflow(build(shape, job)[0], broker)

    def left(self, client: redis.Redis) -> dict[str, int]:
        found = {f"queue {queue}": client.llen(f"queue:{queue}") for queue in ("ruby", "python", "default")}
        found |= {name: client.zcard(name) for name in ("schedule", "retry")}
        if self.steered:
            names = ("swf:resting", "swf:flows:failed", "swf:flows:paused")
            found |= {name: client.zcard(name) for name in names}
        found["arrived"] = sum(client.llen(key) for key in client.scan_iter("swf:arrived:*", count=1000))
        found["in flight"] = sum(client.hlen(key) for key in client.scan_iter("swf:inflight:*", count=1000))
        return {what: count for what, count in found.items() if count}

    def nurse(self, client: redis.Redis) -> Counter[str]:
        """Retries need not wait, and poison pills are tried again."""
        done: Counter[str] = Counter()
        soon = time.time() + 0.5
        for member in members(client, "retry", after=soon):
            client.zadd("retry", {member: soon}, xx=True)
        for member in members(client, "dead"):
            fields = json.loads(member)
            # One script: this, too, must not lose it when the server is killed.
            if fields.get("error_class") == "PoisonPill" and "swf_died_in" not in fields:
                queue = f"queue:{fields['queue']}"
                done["poison pills retried"] += int(client.eval(RETRY, 2, "dead", queue, member))
        return done

    def dead(self, client: redis.Redis) -> Counter[str]:
        return Counter(str(json.loads(member).get("error_class")) for member in members(client, "dead"))

    def pills(self, client: redis.Redis) -> frozenset[tuple[int, int]]:
        """Steps that may fail and have died with their workers: run, number."""
        dead = [json.loads(member) for member in members(client, "dead")]
        pills = [job for job in dead if job.get("error_class") == "PoisonPill" and "swf_died_in" in job]
        return frozenset((job["args"][0], job["args"][1]) for job in pills)


def members(client: redis.Redis, name: str, after: float = 0.0) -> list[bytes]:
    """Of a sorted set of jobs, those that are due later."""
    found: Any = client.zrangebyscore(name, f"({after}", "+inf")
    return list(found)


RETRY = """
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('LPUSH', KEYS[2], ARGV[1])
return 1
"""


class Companion(_Sidekiq):
    name = "companion"
    heading = ("ours, with", "companion")
    must_hold = True
    companion = True
    steered = True


class PlainRuby(_Sidekiq):
    name = "plain-ruby"
    heading = ("ours, plain", "gem in Ruby")


class Gem(_Sidekiq):
    """Ruby alone, with Sidekiq's own fetch.  Runs are started by this package, which starts them in one step."""

    name = "gem"
    heading = ("the gem", "alone")
    kinds = OF_PEERS
    steps = ((RUBY, "ruby"),)
    # Started by this package, a delayed one is a step on a Python queue.
    empty_nodes = False

    def languages(self, settings: Settings) -> list[str]:
        return ["ruby"] * (settings.ruby + settings.python)


class DramatiqWorkflow(System):
    """On Dramatiq's RedisBroker, with the same heartbeat."""

    name = "dramatiq-workflow"
    heading = ("dramatiq-", "workflow")
    kinds = OF_PEERS
    repeatable = False

    #: Commands in a million after which jobs of dead workers are looked for.
    #: Fifty times Dramatiq's default, which would take minutes under so little load.
    MAINTENANCE = 50_000

    @property
    def missing(self) -> str:
        if importlib.util.find_spec("dramatiq_workflow") is None:
            return "dramatiq-workflow is missing: pip install 'dramatiq-workflow==0.3.*' (make soak does)"
        return ""

    def languages(self, settings: Settings) -> list[str]:
        return ["python"] * (settings.ruby + settings.python)

    def broker(self, url: str, heartbeat: float, references: int | None, step: Step = _never) -> dramatiq.Broker:
        from dramatiq.brokers.redis import RedisBroker
        from dramatiq.rate_limits.backends import RedisBackend

        broker = RedisBroker(url=url, heartbeat_timeout=int(heartbeat * 1000), maintenance_chance=self.MAINTENANCE)
        dramatiq.set_broker(broker)
        WorkflowMiddleware = importlib.import_module(
            "dramatiq_workflow"
        ).WorkflowMiddleware  # declares an actor on the global broker

        broker.add_middleware(WorkflowMiddleware(RedisBackend(client=broker.client)))
        broker.add_middleware(Origins())
        _declare(broker, step)
        return broker

    def origin(self) -> str:
        return str(_current_message().options[Origins.OPTION])

    def workflow(self, broker: dramatiq.Broker, shape: Shape, run: int, rng: random.Random, settings: Settings) -> Any:
        theirs = importlib.import_module("dramatiq_workflow")
        actor = broker.get_actor(PYTHON)

        def delayed(task: Any, delay: Any) -> Any:
            return theirs.WithDelay(task, int(delay.total_seconds() * 1000))

        def job(number: int) -> Any:
            return actor.message(run, number, options_of(rng, settings))

        return theirs.Workflow(build(shape, job, kinds=(theirs.Chain, theirs.Group, delayed))[0], broker)

    def left(self, client: redis.Redis) -> dict[str, int]:
        found = {}
        for queue in ("python", "python.DQ", "default", "default.DQ"):
            # Waiting and in flight: a message stays here until it is acknowledged.
            found[queue] = client.hlen(f"dramatiq:{queue}.msgs")
        return {what: count for what, count in found.items() if count}

    def dead(self, client: redis.Redis) -> Counter[str]:
        return Counter({"dead-lettered": client.zcard("dramatiq:python.XQ")}) + Counter()


class Origins(dramatiq.Middleware):
    """Gives each message an id at its first push, which it keeps when it is delayed, retried or redelivered."""

    OPTION = "soak_origin"

    def before_enqueue(self, broker: dramatiq.Broker, message: dramatiq.Message[Any], delay: int | None) -> None:
        message.options.setdefault(self.OPTION, uuid4().hex)


SYSTEMS: dict[str, System] = {system.name: system for system in (Companion(), PlainRuby(), Gem(), DramatiqWorkflow())}


def versions() -> dict[str, str]:
    """Of the distributions that take part."""
    names = ("dramatiq-sidekiq-flow", "dramatiq", "redis", "dramatiq-workflow")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    gem = os.environ.get("SIDEKIQ_WORKFLOW_LIB")
    found["sidekiq-workflow"] = f"from {gem}" if gem else "the stand-in of interop/ruby/lib"
    return found
