"""Workflows run to their end, in this process, on a server of their own.

One thread takes one job at a time, through the broker that the application
has: what is fetched, acknowledged, advanced and retried is what a worker does.
Only waiting is left out: what is scheduled or to be retried is due as soon as
there is nothing else to do, in the order of its time.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import random
import threading
import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

import dramatiq
from dramatiq.logging import get_logger

from ..broker import SidekiqBroker, SidekiqConsumer, SidekiqMessage
from ..broker.poller import promotion
from ..embedded import EmbeddedServer
from ..errors import ConfigurationError, FlowError
from ..middleware import WorkflowMiddleware
from ..store import keys, sets
from ..store.connection import connect
from ..store.memory import RedisHashMemory
from ..wire import codec
from ..wire.nodes import Wire
from ..workflow import Workflow
from .execution import execute
from .run import Enqueued, Run, Step, disorder, mark

#: Numbers the steps of a workflow; it travels in the payloads, beside their options.
_PLACE = "flow_test_place"

_logger = get_logger(__name__)
_lock = threading.Lock()
_server: EmbeddedServer | None = None

F = TypeVar("F", bound=Callable[..., Any])


class FlowTest:
    """A place to run workflows in a test.

    Examples:

      >>> with FlowTest(app.broker) as flow:
      ...     flow.ruby("Images::Thumbnail", lambda size: {"thumbnail": size})
      ...     run = flow.run(Chain(app.extract.message("42"), Job("Images::Thumbnail", 200)))
      ...     assert run.order == ["extract", "Images::Thumbnail"]
      ...     assert run.memory["thumbnail"] == 200

    Inside of the block the broker uses an embedded server that is empty at
    first, whatever URL it was made with; afterwards its own again.  One block
    at a time.

    Parameters:
      broker: The application's; by default a new one with workflows and memory,
        which is the global broker inside of the block.
      seed: Take waiting jobs in an order that this number stands for, rather
        than first come, first served: where order is not promised, any may come.
      max_jobs: More executions than this are an error: jobs that enqueue each other.
    """

    def __init__(self, broker: SidekiqBroker | None = None, *, seed: int | None = None, max_jobs: int = 10_000) -> None:
        if broker is not None and not isinstance(broker, SidekiqBroker):
            raise ConfigurationError(f"FlowTest needs a SidekiqBroker, not a {type(broker).__name__}.", broker)
        self._given = broker
        self._broker = broker
        self._random = None if seed is None else random.Random(seed)  # noqa: S311
        self._max_jobs = max_jobs
        self._fakes: dict[str, Callable[..., Any]] = {}
        self._trees: dict[str, Wire] = {}
        self._steps: list[Step] = []
        self._enqueued: dict[str, Enqueued] = {}
        self._delays: dict[str, int] = {}
        self._last_queue = ""
        self._open = contextlib.ExitStack()

    # -- the block ------------------------------------------------------------

    @property
    def broker(self) -> SidekiqBroker:
        """The broker in use.

        Raises:
          ConfigurationError: for a new one, before the block.
        """
        if self._broker is None:
            raise ConfigurationError("This FlowTest makes its broker when it is entered: with FlowTest() as flow.")
        return self._broker

    def __enter__(self) -> FlowTest:
        if not _lock.acquire(blocking=False):
            raise ConfigurationError("Another FlowTest is open in this process: leave it first.")
        with contextlib.ExitStack() as stack:
            stack.callback(_lock.release)
            url = _empty_server()
            if self._given is None:
                self._broker = SidekiqBroker(url=url)
                self._broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
                stack.callback(setattr, dramatiq.broker, "global_broker", dramatiq.broker.global_broker)
                dramatiq.set_broker(self._broker)
                stack.callback(self._broker.close)
            broker = self.broker
            if broker.windows:
                raise ConfigurationError("A worker of this broker is at work in this process: stop it first.", broker)
            stack.enter_context(broker.connection.redirected(url))
            stack.callback(setattr, broker, "quiet", broker.quiet)
            broker.quiet = False
            stack.callback(broker.hand_back)
            worker = types.SimpleNamespace(broker=broker, consumers={}, workers=[], worker_timeout=1000)
            for middleware in broker.middleware:
                # Time limits, event loops: what runs while a worker does.
                _quietly(middleware.before_worker_boot, broker, worker)
                stack.callback(_quietly, middleware.after_worker_shutdown, broker, worker)
                stack.callback(_quietly, middleware.before_worker_shutdown, broker, worker)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    # -- what there is ----------------------------------------------------------

    @overload
    def ruby(self, name: str, function: None = None) -> Callable[[F], F]: ...

    @overload
    def ruby(self, name: str, function: F) -> F: ...

    def ruby(self, name: str, function: Callable[..., Any] | None = None) -> Any:
        """Have a Python function stand for a Ruby class.

        Its arguments are those of ``perform``; a mapping that it returns goes to
        the run's memory; what it raises fails the job, which is retried by the
        rules of its payload.  ``current_run()`` works in it.

        Without a function it does nothing, and what is returned is a decorator.
        """
        if function is None:
            self._fakes[name] = lambda *args: None

            def take(function: Callable[..., Any]) -> Callable[..., Any]:
                self._fakes[name] = function
                return function

            return take
        self._fakes[name] = function
        return function

    # -- running ----------------------------------------------------------------

    def run(self, workflow: Any, run_id: str | None = None, *, seed: Mapping[str, Any] | None = None) -> Run:
        """Start a workflow, and run all there is to run.

        Parameters:
          workflow: A Workflow, or a node.
          seed: Values for the run's memory.

        Raises:
          ConfigurationError: for a job that no actor and no fake is there for,
            and where more than ``max_jobs`` were executed.
          AssertionError: raised in an actor or a fake.
        """
        if not isinstance(workflow, Workflow):
            workflow = Workflow(workflow, self.broker)
        workflow = copy.copy(workflow)
        workflow.wire = copy.deepcopy(workflow.wire)
        mark(workflow.wire, _PLACE)
        before = set(self._enqueued)
        run_id = workflow.start(run_id, seed)
        self._trees.setdefault(run_id, workflow.wire)
        self.drain()
        return self._result(run_id, before)

    def finish(self, run_id: str) -> Run:
        """As :meth:`run`, for a run that was started in another way: by a template, by an actor."""
        self.drain()
        return self._result(run_id, set())

    def drain(self) -> None:
        """Run all there is to run, in and outside of workflows; see :meth:`run` for what it raises."""
        limit = len(self._steps) + self._max_jobs
        while True:
            queue = self._next_queue()
            if queue is None:
                if not self._promote():
                    return
                continue
            if len(self._steps) >= limit:
                raise ConfigurationError(f"More than {self._max_jobs} jobs were run, and there are more.", queue)
            self._last_queue = queue
            self._work(queue)

    def assert_order(self, run: Run, *names: str) -> None:
        """See that a run kept its order, and that each of its steps is done, once.

        Parameters:
          names: Instead of by the workflow's own order: these names are among
            the steps that are done, in this order, with any others between.

        Raises:
          AssertionError: saying what is wrong.
        """
        if names:
            rest = iter(run.order)
            missing = [name for name in names if name not in rest]
            if missing:
                raise AssertionError(f"{missing[0]} is not where it should be: {' > '.join(names)} in {run.order}")
            return
        if run.tree is None:
            raise ConfigurationError("This run was not started by FlowTest.run: say the names in their order.", run)
        problems = list(disorder(run))
        if problems:
            raise AssertionError("\n".join([f"Run {run.run_id} did not keep its order:", *problems]))

    # -- inside -------------------------------------------------------------------

    def _next_queue(self) -> str | None:
        connection = self.broker.connection
        names: list[str] = sorted(name.decode() for name in connection.call("SMEMBERS", keys.QUEUES))
        waiting = [name for name in names if connection.call("LLEN", keys.queue(name))]
        if not waiting:
            return None
        if self._random is None:
            # Each queue in its turn.
            return next((name for name in waiting if name > self._last_queue), waiting[0])
        queue = self._random.choice(waiting)
        payloads = connection.call("LRANGE", keys.queue(queue), 0, -1)
        chosen = self._random.choice(payloads)
        connection.call("LREM", keys.queue(queue), 1, chosen)
        connection.call("RPUSH", keys.queue(queue), chosen)
        return queue

    def _promote(self) -> bool:
        """Make the next job that waits for its time due."""
        connection = self.broker.connection
        found = [
            (score, name, member)
            for name in (keys.SCHEDULE, keys.RETRY)
            for member, score in sets.members(connection, name)
        ]
        if not found:
            return False
        score, name, member = min(found)
        if name == keys.SCHEDULE:
            with contextlib.suppress(FlowError, TypeError, ValueError):
                fields = codec.decode(member)
                self._delays[fields["jid"]] = max(0, round((score - float(fields["created_at"])) * 1000))
        return sets.promote(connection, name, score, [promotion(member, score)]).moved > 0

    def _work(self, queue: str) -> None:
        consumer = SidekiqConsumer(self.broker, queue, 1, 10)
        message = next(consumer)
        if message is None:
            return  # it could not be read, and is dead
        self._see(message)
        fake = self._fakes.get(message.actor_name)
        output, error = execute(self.broker, consumer, message, fake)
        self._steps.append(
            Step(
                message.actor_name,
                tuple(message.args),
                message.message_id,
                queue,
                "python" if fake is None else "ruby",
                message.payload.retries + 1,
                output,
                error,
                message.payload.run_id,
                message.payload.fields.get(_PLACE),
            )
        )
        if isinstance(error, AssertionError):
            raise error

    def _see(self, message: SidekiqMessage) -> None:
        fields, name = message.payload.fields, message.actor_name
        if name not in self._fakes:
            try:
                self.broker.get_actor(name)
            except dramatiq.errors.ActorNotFound:
                raise ConfigurationError(
                    f"Nothing stands for {name}: it is not an actor of this broker. For a Ruby class: "
                    f"flow.ruby({name!r}, lambda ...: ...)",
                    name,
                ) from None
        if message.message_id not in self._enqueued:
            shown = {key: value for key, value in fields.items() if key != _PLACE}
            delay = self._delays.get(message.message_id, 0)
            self._enqueued[message.message_id] = Enqueued(
                name,
                tuple(message.args),
                message.queue_name,
                message.message_id,
                message.payload.run_id,
                delay,
                shown,
            )

    def _result(self, run_id: str, before: set[str]) -> Run:
        broker = self.broker
        memory = getattr(broker.completion, "memory", None)
        dead = [codec.decode(member) for member, _ in sets.members(broker.connection, keys.DEAD)]
        return Run(
            run_id,
            tuple(step for step in self._steps if step.run_id == run_id),
            {} if memory is None else memory.read(run_id),
            tuple(job for jid, job in self._enqueued.items() if jid not in before),
            tuple(job for job in dead if run_id in (job.get("workflow_run_id"), job.get("sideline_run_id"))),
            self._trees.get(run_id),
        )


def _empty_server() -> str:
    global _server
    if _server is None or not _server.running:
        _server = EmbeddedServer().start()
        atexit.register(_server.stop)
    connection = connect(_server.url)
    connection.call("FLUSHALL")
    connection.close()
    return _server.url


def _quietly(hook: Callable[..., Any], *args: Any) -> None:
    try:
        hook(*args)
    except Exception as e:
        _logger.warning("A middleware failed: %s", e)
