"""Runs workflows in a test: in this process, on an embedded server.

One thread runs one job at a time, through the application's broker: it
fetches, acknowledges, advances and retries as a worker does.  Only delays are
left out: when the queues are empty, the next scheduled job or retry is due at
once, in the order of their times.
"""

from __future__ import annotations

import contextlib
import copy
import random
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar, overload

import dramatiq

from ..broker import SidekiqBroker, SidekiqConsumer, SidekiqMessage
from ..broker.dramatiq_internals import as_global_broker, stand_in_worker
from ..errors import ConfigurationError, FlowError
from ..middleware import WorkflowMiddleware
from ..process.poller import promotion
from ..store import keys, sets
from ..store.memory import RedisHashMemory
from ..wire import codec
from ..wire.dialect import NOOP_CLASSES
from ..wire.nodes import Wire
from ..wire.wait_for import waiting_for
from ..workflow.completion import Completion
from ..workflow.workflow import Workflow
from .execution import ends_run, execute, is_of, quietly
from .flow_server import empty_server
from .flow_steering import FlowSteering
from .run import Enqueued, Run, Step, check_names, disorder, mark

#: Option with the number of a step in its workflow; it travels in the payloads.
_PLACE = "flow_test_place"

_lock = threading.Lock()

F = TypeVar("F", bound=Callable[..., Any])


class FlowTest(FlowSteering):
    """Run workflows in a test.

    Examples:

      >>> with FlowTest(app.broker) as flow:
      ...     flow.ruby("Images::Thumbnail", lambda size: {"thumbnail": size})
      ...     run = flow.run(Chain(app.extract.message("42"), Job("Images::Thumbnail", 200)))
      ...     assert run.order == ["extract", "Images::Thumbnail"]
      ...     assert run.memory["thumbnail"] == 200

    Inside the ``with`` block the broker uses an embedded server, which is empty
    at first; afterwards its own server again.  One block at a time.

    Parameters:
      broker: The application's; by default a new one with workflows and memory,
        which is the global broker inside the block.
      seed: Run waiting jobs in a random order with this seed, not first come,
        first served, to test an order that workflows do not guarantee.
      max_jobs: Most executions, to detect jobs that enqueue each other for ever.
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
          ConfigurationError: if it is a new one, and the block was not entered.
        """
        if self._broker is None:
            raise ConfigurationError("This FlowTest makes its broker when it is entered: with FlowTest() as flow.")
        return self._broker

    def __enter__(self) -> FlowTest:
        if not _lock.acquire(blocking=False):
            raise ConfigurationError("Another FlowTest is open in this process: leave it first.")
        with contextlib.ExitStack() as stack:
            stack.callback(_lock.release)
            url = empty_server()
            if self._given is None:
                self._broker = SidekiqBroker(url=url)
                self._broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
                stack.enter_context(as_global_broker(self._broker))
                stack.callback(self._broker.close)
            broker = self.broker
            if broker.process.in_flight:
                raise ConfigurationError("A worker of this broker is at work in this process: stop it first.", broker)
            stack.enter_context(broker.connection.redirected(url))
            stack.callback(setattr, broker.process, "quiet", broker.process.quiet)
            broker.process.quiet = False
            stack.callback(broker.process.hand_back)
            worker = stand_in_worker(broker)
            for middleware in broker.middleware:
                # Middleware that works while a worker runs: time limits, event loops.
                quietly(middleware.before_worker_boot, broker, worker)
                stack.callback(quietly, middleware.after_worker_shutdown, broker, worker)
                stack.callback(quietly, middleware.before_worker_shutdown, broker, worker)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    # -- fakes ------------------------------------------------------------------

    @overload
    def ruby(self, name: str, function: None = None) -> Callable[[F], F]: ...

    @overload
    def ruby(self, name: str, function: F) -> F: ...

    def ruby(self, name: str, function: Callable[..., Any] | None = None) -> Any:
        """Register a Python function as a fake of a Ruby class.

        Its arguments are those of ``perform``; a mapping that it returns goes to
        the run's memory; an error fails the job, which is retried by the rules
        of its payload.  ``current_run()`` works in it.

        Without a function, registers a fake that does nothing, and returns a decorator.
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
        """Start a workflow, and run all jobs until none is left.

        Parameters:
          workflow: A Workflow, or a node.
          seed: Initial values of the run's memory.

        Raises:
          ConfigurationError: if a job has neither an actor nor a fake, or if
            more than ``max_jobs`` were executed.
          AssertionError: if an actor or a fake raised it.
        """
        before = set(self._enqueued)
        run_id = self.start(workflow, run_id, seed=seed)
        self.drain()
        return self._result(run_id, before)

    def start(self, workflow: Any, run_id: str | None = None, *, seed: Mapping[str, Any] | None = None) -> str:
        """As :meth:`run`, but run no job yet; return the run id for :meth:`pause`, :meth:`finish` and others."""
        if not isinstance(workflow, Workflow):
            workflow = Workflow(workflow, self.broker)
        workflow = copy.copy(workflow)
        workflow.wire = copy.deepcopy(workflow.wire)
        mark(workflow.wire, _PLACE)
        run_id = workflow.start(run_id, seed)
        self._trees.setdefault(run_id, workflow.wire)
        return run_id

    def finish(self, run_id: str) -> Run:
        """As :meth:`run`, for a run that was started in another way, by a template or an actor."""
        self.drain()
        return self._result(run_id, set())

    def drain(self) -> None:
        """Run all jobs until none is left, also outside of workflows; raises the errors of :meth:`run`."""
        limit = len(self._steps) + self._max_jobs
        while True:
            queue = self._next_queue()
            if queue is None:
                if not self._go_on():
                    return
                continue
            if len(self._steps) >= limit:
                raise ConfigurationError(f"More than {self._max_jobs} jobs were run, and more are waiting.", queue)
            self._last_queue = queue
            self._work(queue)

    def assert_order(self, run: Run, *names: str) -> None:
        """Check that a run kept its order, and that each of its steps was done once.

        Parameters:
          names: Check instead that these steps were done in this order, with
            any others between.

        Raises:
          AssertionError: if not; the message names the steps.
        """
        if names:
            check_names(run, names)
            return
        if run.tree is None:
            raise ConfigurationError("This run was not started by FlowTest.run: pass the names in their order.", run)
        problems = list(disorder(run))
        if problems:
            raise AssertionError("\n".join([f"Run {run.run_id} did not keep its order:", *problems]))

    # -- inside -------------------------------------------------------------------

    def _next_queue(self) -> str | None:
        waiting = self._waiting_queues()
        if not waiting:
            return None
        if self._random is None:
            # Each queue in turn.
            later = [name for name in waiting if name > self._last_queue]
            return (later or waiting)[0]
        return self._shuffled(waiting, self._random)

    def _waiting_queues(self) -> list[str]:
        """The queues that have jobs, by name."""
        connection = self.broker.connection
        names: list[str] = sorted(name.decode() for name in connection.call("SMEMBERS", keys.QUEUES))
        return [name for name in names if connection.call("LLEN", keys.queue(name))]

    def _shuffled(self, waiting: list[str], source: random.Random) -> str:
        """Choose a queue at random, and move one of its jobs to the front."""
        connection = self.broker.connection
        queue = source.choice(waiting)
        payloads = connection.call("LRANGE", keys.queue(queue), 0, -1)
        chosen = source.choice(payloads)
        connection.call("LREM", keys.queue(queue), 1, chosen)
        connection.call("RPUSH", keys.queue(queue), chosen)
        return queue

    def _go_on(self) -> bool:
        """Push what is due when no queue has a job; return False if nothing is left."""
        if self._promote():
            return True
        self._call_back()
        return bool(self._waiting_queues())

    def _promote(self) -> bool:
        """Promote the next scheduled job or retry."""
        connection = self.broker.connection
        delayed: list[tuple[float, str, bytes]] = []
        for name in (keys.SCHEDULE, keys.RETRY):
            found = sets.members(connection, name)
            delayed += [(score, name, member) for member, score in found if waiting_for(member) is None]
        if not delayed:
            return False
        score, name, member = min(delayed)
        if name == keys.SCHEDULE:
            with contextlib.suppress(FlowError, TypeError, ValueError):
                fields = codec.decode(member)
                self._delays[fields["jid"]] = max(0, round((score - float(fields["created_at"])) * 1000))
        return sets.promote(connection, name, score, [promotion(member, score)]).moved > 0

    def _work(self, queue: str) -> None:
        consumer = SidekiqConsumer(self.broker.process, queue, 1, 10)
        message = next(consumer)
        if message is None:
            return  # it could not be read, and went to dead
        self._see(message)
        fake = self._fakes.get(message.actor_name)
        output, error = execute(self.broker, consumer, message, fake)
        if message.waits or message.actor_name in NOOP_CLASSES:
            return  # it runs when its signal comes, or its time is over; it does nothing
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
            self._check_actor(name)
        if message.message_id not in self._enqueued and not ends_run(message):
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

    def _check_actor(self, name: str) -> None:
        try:
            self.broker.get_actor(name)
        except dramatiq.errors.ActorNotFound:
            raise ConfigurationError(
                f"{name} is not an actor of this broker, and has no fake. For a Ruby class: "
                f"flow.ruby({name!r}, lambda ...: ...)",
                name,
            ) from None

    def _result(self, run_id: str, before: set[str]) -> Run:
        steps = [step for step in self._steps if step.run_id == run_id]
        enqueued = [job for jid, job in self._enqueued.items() if jid not in before]
        dead = [codec.decode(member) for member, _ in sets.members(self.broker.connection, keys.DEAD)]
        return Run(
            run_id,
            tuple(steps),
            self._memory_of(run_id),
            tuple(enqueued),
            tuple(filter(partial(is_of, run_id), dead)),
            self._trees.get(run_id),
            self._state_of(run_id),
        )

    def _memory_of(self, run_id: str) -> dict[str, Any]:
        completion = self.broker.completion
        memory = completion.engine.memory if isinstance(completion, Completion) else None
        return {} if memory is None else memory.read(run_id)
