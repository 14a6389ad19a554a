"""A workflow: a tree of steps, started under one run id."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import dramatiq

from ..broker import SidekiqBroker
from ..broker.message import job_options
from ..errors import ConfigurationError, InvalidWorkflow, WrongType
from ..store import runs
from ..store.memory import RedisHashMemory
from ..wire import codec
from ..wire.nodes import Job, Node, Wire, carry, dump, dump_job, is_ruby_constant, validate, walk
from ..wire.payload import DEFAULTS
from .completion import Completion
from .inline import warn_of_weight
from .plan import barrier_ttl, derived


class Workflow:
    """Steps to run, in Ruby and in Python.

    Examples:

      >>> Workflow(Chain(fetch.message(7), Group(Job("A", 1), Job("B", 2)), Job("C"))).run()

    Parameters:
      node: ``Chain``, ``Group``, ``WithDelay``, ``Job``, or a Dramatiq message.
      broker: The global broker unless given.
      seed: Values that are in the run's memory, where there is one, before the
        first job exists.

    Raises:
      InvalidWorkflow, InvalidArguments, InvalidOptions: for what cannot be a
        step; nothing is enqueued.
    """

    def __init__(
        self,
        node: Node | dramatiq.Message[Any],
        broker: dramatiq.Broker | None = None,
        *,
        seed: Mapping[str, Any] | None = None,
    ) -> None:
        self.node = node
        self.seed = seed
        self.broker = broker or dramatiq.get_broker()
        self.completion = completion_of(self.broker)
        self.wire = self._dump(node)

    def walk(self) -> Iterator[Any]:
        """The steps, jobs and messages, in the order in which they are written."""
        return walk(self.node)

    def run(self, run_id: str | None = None) -> str:
        """Start the workflow.

        Calling it again with the same run id, also after a crash in between,
        starts it once.

        Parameters:
          run_id: Any name for the run; a new UUID unless given.

        Returns:
          The run id.
        """
        return self.start(run_id, self.seed if self.completion.memory is not None else None)

    def start(self, run_id: str | None = None, seed: Mapping[str, Any] | None = None) -> str:
        """As :meth:`run`, with values in the run's memory before the first job exists."""
        if run_id is None:
            run_id = str(uuid.uuid4())
        completion = self.completion
        fields: dict[str, bytes] = {}
        memory = ("", 0)
        if seed:
            if completion.memory is None:
                raise ConfigurationError("There is no memory to seed: use WorkflowMiddleware(memory=...).", seed)
            if isinstance(completion.memory, RedisHashMemory):
                fields = completion.memory.encode(seed)
                memory = (completion.memory.key(run_id), completion.memory.ttl_seconds)
            else:
                completion.memory.write(run_id, seed)
        # Barriers of the application's own are not made in the same step: made
        # again for the same run, they must be the same ones.
        ids = None if completion.barriers is None else derived(run_id)
        planned = completion.plan(self.wire, (), completion.source(run_id, ids=ids))
        ttl = barrier_ttl(self.wire, ())
        if not planned.completes:
            memory = (memory[0], max(memory[1], ttl))
        while True:
            reply = runs.start(
                completion.broker.connection,
                run_id,
                completion.writes(planned),
                ttl=ttl,
                memory=memory,
                fields=fields,
            )
            if reply[0] == b"TYPE":
                key = reply[1].decode()
                raise WrongType(f"The Redis key {key!r} holds another type than a workflow needs there.", key)
            if reply[0] != b"STAGE":
                completion.started(run_id, planned, before=reply[0] == b"STARTED")
                return run_id

    def _dump(self, node: Any) -> Wire:
        unknown: list[Job] = []
        named: list[Wire] = []

        def leaf(value: Any) -> Wire | None:
            if isinstance(value, Job):
                wire = dump_job(value)
                # Without a Ruby name it is another Python program's actor.
                here = self.completion.broker.options_of(value.job_class) is not None
                if is_ruby_constant(value.job_class) and not here:
                    unknown.append(value)
                else:
                    named.append(wire)
                return wire
            if isinstance(value, dramatiq.Message):
                wire = self._dump_message(value)
                named.append(wire)
                return wire
            return None

        wire = dump(node, leaf)
        validate(wire)
        self.completion.warn_of_collisions(wire)
        if self.completion.inline:
            warn_of_weight(wire, len(named) + len(unknown))
        if unknown:
            # Ruby takes part, and looks up each class that it advances onto.
            for step in named:
                if not is_ruby_constant(step["class"]):
                    options = self.completion.options(step["class"])
                    carried = carry({**options, **step}, self.completion.dialect.noop_class)
                    step.clear()
                    step.update(carried)
        return wire

    def _dump_message(self, message: dramatiq.Message[Any]) -> Wire:
        codec.check(message.args, "args")
        of_actor = self.completion.broker.options_of(message.actor_name) or DEFAULTS
        return {
            "__type__": "job",
            "class": message.actor_name,
            "args": list(message.args),
            **job_options(message, of_actor),
        }

    def __repr__(self) -> str:
        return f"Workflow({self.node!r})"


def completion_of(broker: dramatiq.Broker) -> Completion:
    """What advances the runs of a broker.

    Raises:
      ConfigurationError: for a broker that has no WorkflowMiddleware, or one that lacks the Sidekiq Redis.
    """
    if isinstance(broker, SidekiqBroker):
        if isinstance(broker.completion, Completion):
            return broker.completion
    else:
        for middleware in broker.middleware:
            # Its WorkflowMiddleware, which stands above this module.
            serve = getattr(middleware, "completion_of", None)
            if serve is not None:
                completion: Completion = serve(broker)
                return completion
    raise ConfigurationError(
        f"The {type(broker).__name__} has no WorkflowMiddleware: broker.add_middleware(WorkflowMiddleware()), and "
        "where it is no SidekiqBroker, with the url of the Sidekiq Redis.",
        broker,
    )


__all__ = ["InvalidWorkflow", "Workflow", "completion_of"]
