"""A workflow: a tree of steps, started under one run id."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import dramatiq

from ..broker.dramatiq_internals import has_global_broker
from ..broker.message import enqueued_itself, job_options, was_sent
from ..context import current_job
from ..errors import ConfigurationError, InvalidWorkflow
from ..wire import codec
from ..wire.nodes import Job, Node, Wire, carry, dump, dump_job, is_ruby_constant, jobs, validate, walk
from ..wire.payload import DEFAULTS
from .collisions import warn_of_collisions
from .engine_lookup import engine_of
from .outline import outline
from .payload_size import warn_of_size
from .start import start

#: Attribute of a message: the run that its id is known to.
_RUN = "sidekiq_run"


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
      ConfigurationError: if the broker cannot run workflows.

    A step made from a message has that message's id as its jid, so that
    ``message.get_result()``, abort and cancel work.  In a second run of the
    same message the id of its step derives from both: a job has an id of its own.
    """

    def __init__(
        self,
        node: Node | dramatiq.Message[Any],
        broker: dramatiq.Broker | None = None,
        *,
        seed: Mapping[str, Any] | None = None,
    ) -> None:
        if broker is not None and not isinstance(broker, dramatiq.Broker):
            raise InvalidWorkflow(
                "A workflow has one node: Workflow(Chain(a, b)) for one after the other, Workflow(Group(a, b)) for "
                f"side by side. As its broker it got {broker!r:.100}.",
                broker,
            )
        self.node = node
        self.seed = seed
        self.broker = broker or global_broker()
        self.engine = engine_of(self.broker)
        self.wire = self._dump(node)
        #: The run that a call has perhaps started, since it raised.
        self._raised: str | None = None

    def walk(self) -> Iterator[Any]:
        """The steps, jobs and messages, in the order in which they are written."""
        return walk(self.node)

    def run(self, run_id: str | None = None) -> str:
        """Start the workflow.

        Calling it again with the same run id, also after a crash in between,
        starts it once.  A call that raised may have started the run: the next one
        without a run id has the id of that one.

        Parameters:
          run_id: Any name for the run; a new UUID unless given.

        Returns:
          The run id.

        Raises:
          NotReplicated: if the run has started, and too few replicas have it
            (``SidekiqBroker(replication=...)``).  Calling again waits again.
        """
        return self.start(run_id, self.seed if self.engine.memory is not None else None)

    def start(self, run_id: str | None = None, seed: Mapping[str, Any] | None = None) -> str:
        """As :meth:`run`, with values in the run's memory before the first job exists."""
        if run_id is not None:
            return self._start(run_id, seed, named=True)
        run_id, self._raised = self._raised or str(uuid.uuid4()), None
        try:
            return self._start(run_id, seed, named=False)
        except BaseException:
            self._raised = run_id
            raise

    def _start(self, run_id: str, seed: Mapping[str, Any] | None, *, named: bool) -> str:
        engine = self.engine
        engine.broker.check_encoder()
        if named and engine.transport.derives_ids:
            wire = _without(self.wire, self._message_ids())
        else:
            wire = self._of_run(self.wire, run_id)
        unconfirmed = start(engine, run_id, wire, seed)
        for message in self._messages():
            message.__dict__.setdefault(_RUN, run_id)
        if unconfirmed is not None:
            raise unconfirmed
        return run_id

    def _messages(self) -> Iterator[Any]:
        return (step for step in self.walk() if isinstance(step, dramatiq.Message))

    def _message_ids(self) -> set[str]:
        return {message.message_id for message in self._messages()}

    def _of_run(self, wire: Wire, run_id: str) -> Wire:
        """The tree with ids of their own for the steps of messages that other runs have."""
        ids = self._ids_in_place(run_id)
        if not ids:
            return wire
        wire = copy.deepcopy(wire)
        for job in jobs(wire):
            if job.get("jid") in ids:
                job["jid"] = ids[job["jid"]]
        return wire

    def _ids_in_place(self, run_id: str) -> dict[str, str]:
        """Id of each message that another run has -> the id of its step in this run."""
        ids: dict[str, str] = {}
        for message in self._messages():
            if message.__dict__.get(_RUN, run_id) != run_id:
                name = f"{run_id}:{message.message_id}"
                ids[message.message_id] = str(uuid.uuid5(uuid.NAMESPACE_OID, name))
        return ids

    def _dump(self, node: Any) -> Wire:
        unknown: list[Job] = []
        named: list[Wire] = []

        def leaf(value: Any) -> Wire | None:
            if isinstance(value, Job):
                wire = dump_job(value)
                # Without a Ruby name it is another Python program's actor.
                here = self.engine.broker.options_of(value.job_class) is not None
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
        self._give_own_ids(wire)
        warn_of_collisions(self.engine, wire)
        if self.engine.stacks.inline:
            python = self._is_python if self.engine.stacks.refers_large else None
            warn_of_size(wire, len(named) + len(unknown), python)
        if unknown:
            self._make_carriers(named)
        return wire

    def _make_carriers(self, steps: list[Wire]) -> None:
        """Make carriers, in place, of the steps that Ruby could not advance onto: it looks up each one's class."""
        for step in steps:
            if not is_ruby_constant(step["class"]):
                options = self.engine.job_options.with_defaults(step["class"])
                carried = carry({**options, **step}, self.engine.settings.dialect.noop_class)
                step.clear()
                step.update(carried)

    def _is_python(self, job: Mapping[str, Any]) -> bool:
        """Whether an actor of this broker takes a job."""
        return job["class"] in self.engine.broker.actors

    def _give_own_ids(self, wire: Wire) -> None:
        """Make two jobs of one that is in the tree twice: the second one gets an id when it is pushed."""
        seen: set[str] = set()
        for job in jobs(wire):
            jid = job.get("jid")
            if jid in seen:
                del job["jid"]
                self.engine.logger.warning(
                    "%s is in this workflow twice, as the same message %s: the second one gets a new id, so results, "
                    "abort and cancel do not find it. Call .message(...) for each step.",
                    job["class"],
                    jid,
                )
            elif jid is not None:
                seen.add(jid)

    def _dump_message(self, message: dramatiq.Message[Any]) -> Wire:
        job = current_job()
        if was_sent(message):
            raise InvalidWorkflow(
                f"The message {message} was sent already, and would run a second time as a step: write "
                f"{message.actor_name}.message(...) instead of .send(...).",
                message,
            )
        if job is not None and job.jid == message.message_id:
            raise enqueued_itself(message)
        codec.check(message.args, "args")
        of_actor = self.engine.broker.options_of(message.actor_name) or DEFAULTS
        return {
            "__type__": "job",
            "class": message.actor_name,
            "args": list(message.args),
            "jid": message.message_id,
            **job_options(message, of_actor),
        }

    def __str__(self) -> str:
        """A line for each step."""
        return outline(self.wire)

    def __repr__(self) -> str:
        return f"Workflow({self.node!r})"


def _without(wire: Wire, ids: Collection[str]) -> Wire:
    """The tree without these jids."""
    wire = copy.deepcopy(wire)
    for job in jobs(wire):
        if job.get("jid") in ids:
            del job["jid"]
    return wire


def global_broker() -> dramatiq.Broker:
    """The global broker; Dramatiq itself would make one of its own.

    Raises:
      ConfigurationError: if none was set.
    """
    if not has_global_broker():
        raise ConfigurationError(
            "There is no broker: dramatiq.set_broker(broker) was not called. Call it before the actors are declared, "
            "or pass Workflow(..., broker=broker)."
        )
    return dramatiq.get_broker()
