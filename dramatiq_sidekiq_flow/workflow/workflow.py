"""Workflow: a tree of steps that starts under one run id."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import dramatiq

from ..broker.dramatiq_internals import has_global_broker
from ..broker.message import enqueued_itself, job_options, was_sent
from ..context import current_job
from ..errors import ConfigurationError, InvalidWorkflow
from ..wire import codec
from ..wire.mermaid import flowchart
from ..wire.need import Needing
from ..wire.nodes import Job, Node, Wire, dump, dump_job, is_ruby_constant, validate, walk
from ..wire.payload import DEFAULTS, Payload
from ..wire.run_end import ends_in_ruby
from ..wire.run_tree import dump_tree
from ..wire.step_numbers import number_steps
from ..wire.tree_nodes import load_tree
from ..wire.tree_schema import are_ids, tree_error
from ..wire.wait_for import WaitFor
from .carried_nodes import carried
from .carriers import make_carriers
from .collisions import warn_of_collisions
from .engine_lookup import engine_of
from .message_jids import MessageJids, separate_duplicates
from .outline import outline
from .payload_size import warn_of_size
from .records import RunInfo, checked_tags
from .run_callbacks import check_call
from .run_options import Call, RunOptions
from .start import start

#: Logged if a run is not started.
TAKEN = "The run %s has the unique key %r and lives, so the run %s is not started."


class Workflow:
    """Tree of steps in Ruby and Python, which can be run.

    Examples:

      >>> Workflow(Chain(fetch.message(7), Group(Job("A", 1), Job("B", 2)), Job("C"))).run()

    Parameters:
      node: ``Chain``, ``Group``, ``WithDelay``, ``WaitFor``, ``Job``, or a Dramatiq message.
      broker: The broker; the global one by default.
      seed: Values to write to the run's memory, if there is one, before the
        first job exists.
      tags: Names to find its runs by: ``Runs(broker).list(tag=...)``.
      on_success: A node that runs after all others.
      on_failure: A Job, message or actor, pushed once, when the first step dies.
      on_complete: A Job, message or actor, pushed once, when the run is done or
        cancelled, or has failed and does not go on by itself.
      deadline: Milliseconds, or a timedelta, after which the run is cancelled.
      unique_key: A name that one run may have while it lives.
      repeatable: Keep what runs start with, so that ``Runs.retry(id, mode="all")`` can start them anew.

    The last argument of ``on_failure`` and ``on_complete`` is a mapping:
    ``run_id``, ``template`` and ``state`` of the run; of a death also ``step``
    (its number), ``class``, ``jid``, ``queue``, ``error_class``,
    ``error_message`` and ``at`` (epoch seconds).  A typed actor has it as the field ``run``.

    Raises:
      InvalidWorkflow, InvalidArguments, InvalidOptions: if a node cannot be a
        step, or if an option has an invalid value; nothing is enqueued.
      ConfigurationError: if the broker cannot run workflows, or keeps no
        records, which callbacks, deadline and unique key need.

    A step made from a message has that message's id as its jid, so that
    ``message.get_result()``, abort and cancel work.  In a second run of the
    same message the jid derives from the run id and the message id, because
    two jobs must not have the same jid.
    """

    def __init__(
        self,
        node: Node | WaitFor | dramatiq.Message[Any],
        broker: dramatiq.Broker | None = None,
        *,
        seed: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
        on_success: Any = None,
        on_failure: Call | None = None,
        on_complete: Call | None = None,
        deadline: int | timedelta | None = None,
        unique_key: str | None = None,
        repeatable: bool = False,
    ) -> None:
        if broker is not None and not isinstance(broker, dramatiq.Broker):
            raise InvalidWorkflow(
                "A workflow has one node: Workflow(Chain(a, b)) for steps one after the other, Workflow(Group(a, b)) "
                f"for parallel steps. The second argument is the broker, but it is {broker!r:.100}.",
                broker,
            )
        self.options = RunOptions(on_success, on_failure, on_complete, deadline, unique_key, repeatable)
        self.node = self.options.tree(node)
        self.seed = seed
        self.broker = broker or global_broker()
        self.engine = engine_of(self.broker)
        #: What messages without options have in common, by actor and queue.
        self._known: dict[tuple[str, str], Wire] = {}
        self._messages = MessageJids()
        self._number_of_steps = 0
        #: Number of the steps in fallbacks.
        self._skipped = 0
        self._ends_in_ruby = False
        #: The compact tree; empty until the first run.
        self._tree = b""
        self.tags = checked_tags(tags)
        #: Name of the template that it was built by; "" if there is none.
        self.template = ""
        self.options.check_records(self.engine.records.enabled)
        self.wire = self._dump(self.node)
        self._calls = {name: self._dump_call(name, job) for name, job in self.options.calls.items()}
        #: Run id of a call that raised: it may have started the run.
        self._raised: str | None = None

    def walk(self) -> Iterator[Any]:
        """Yield the steps, jobs and messages, in the order in which they are written."""
        return walk(self.node)

    def run(self, run_id: str | None = None) -> str:
        """Start the workflow.

        Repeated calls with the same run id start the run once, also after a
        crash.  A call that raised may have started the run: the next call
        without a run id uses the same id.

        Parameters:
          run_id: Any name for the run; a new UUID by default.

        Returns:
          The run id.  With a ``unique_key`` that a run has which is neither done
          nor cancelled, nothing starts, and this is the id of that run.

        Raises:
          NotReplicated: if the run has started, but too few replicas confirmed it
            (``SidekiqBroker(replication=...)``).  A repeated call waits again.
        """
        return self.start(run_id, self.seed if self.engine.memory is not None else None)

    def start(self, run_id: str | None = None, seed: Mapping[str, Any] | None = None) -> str:
        """Start the workflow as :meth:`run`, with ``seed`` as the initial values of the run's memory."""
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
        of_run = self._messages.for_run(run_id, derived=named and engine.transport.derives_ids)
        info = self.info({name: of_run(job) for name, job in self._calls.items()})
        started = start(engine, run_id, of_run(self.wire), seed, info)
        if started.run_id != run_id:
            engine.logger.info(TAKEN, started.run_id, self.options.unique_key, run_id)
            return started.run_id
        self.belongs_to(run_id)
        if started.unconfirmed is not None:
            raise started.unconfirmed
        return run_id

    def wire_after(self, jid: str) -> Wire:
        """Get the tree as it starts in the place of a step: messages that are steps of a run get new ids.

        Parameters:
          jid: Of the step that it replaces.

        Raises:
          StepEnqueuedItself: if the tree holds the message of that step.
        """
        return self._messages.after_step(jid)(self.wire)

    def belongs_to(self, run_id: str) -> None:
        """Note that the messages of the tree are steps of a run."""
        self._messages.belong_to(run_id)

    def info(self, calls: Mapping[str, Wire]) -> RunInfo | None:
        """Describe the run for its record; None if it gets none.

        Parameters:
          calls: Its callbacks.
        """
        if not self.engine.records.enabled:
            return None
        # Once: a tree may be large, and may be run many times.
        if not self._tree:
            self._tree = dump_tree(self.wire, self.engine.is_ruby, self.engine.records.arguments)
        return RunInfo(
            self._number_of_steps,
            self._tree,
            self.template,
            self.tags,
            calls,
            self.options.seconds,
            self.options.unique_key or "",
            self._skipped,
            self._ends_in_ruby,
            repeatable=self.options.repeatable,
        )

    def _dump(self, node: Any) -> Wire:
        unknown: list[Job] = []
        named: list[Wire] = []
        unlike: list[Wire] = []
        own: list[Wire] = []
        current = current_job()

        def leaf(value: Any) -> Wire | None:
            if isinstance(value, dramatiq.Message):
                self._messages.add(value)
                wire = self._dump_message(value, current, unlike)
            elif isinstance(value, Job):
                wire = dump_job(value)
                unlike.append(wire)
                # A name that is not a Ruby constant belongs to an actor of another Python program.
                here = self.engine.broker.options_of(value.job_class) is not None
                if is_ruby_constant(value.job_class) and not here:
                    unknown.append(value)
                    return wire
            elif isinstance(value, (WaitFor, Needing)):
                wire = carried(value, self.engine, lambda node: Workflow(node, self.broker).wire)
                own.append(wire)
                return wire
            else:
                return None
            named.append(wire)
            return wire

        wire = dump(node, leaf)
        for step in own:
            step["queue"] = step["queue"] or self.engine.precheck.python_queue(wire, f"The step {step['wrapped']}")
        unlike += own
        self._validate(wire, unlike)
        if self.engine.records.enabled:
            self._number_of_steps, self._skipped = number_steps(wire, self._is_python)
            self._ends_in_ruby = bool(unknown) and ends_in_ruby(wire, self.engine.is_ruby)
        separate_duplicates(wire, self.engine.logger)
        warn_of_collisions(self.engine, wire)
        if self.engine.stacks.inline:
            python = self._is_python if self.engine.stacks.refers_large else None
            warn_of_size(wire, len(named) + len(unknown), python)
        if unknown:
            make_carriers(named, self.engine.settings.dialect.noop_class, self.engine)
        return wire

    def _validate(self, wire: Wire, unlike: list[Wire]) -> None:
        """Check the tree.

        Parameters:
          unlike: Its jobs, without those that differ from one of these in their arguments and ids only.
        """
        codec.check_arrays([step.args for step in self._messages])
        ids = [step.message_id for step in self._messages]
        # The tree is made of nodes that were checked when they were made.
        if not are_ids(ids) or tree_error({"__type__": "group", "children": unlike}) is not None:
            validate(wire)

    def _dump_call(self, name: str, job: Job | dramatiq.Message[Any]) -> Wire:
        """Convert a callback to its wire form."""
        if isinstance(job, Job):
            wire = dump_job(job)
        else:
            codec.check(job.args, "args")
            wire = self._dump_message(job, current_job(), [])
            if job.message_id in self._messages.ids:
                del wire["jid"]
            self._messages.add(job)
        check_call(self.engine, name, wire)
        return wire

    def _is_python(self, job: Mapping[str, Any]) -> bool:
        """Return True if an actor of this broker runs a job."""
        return job["class"] in self.engine.broker.actors

    def _dump_message(self, message: dramatiq.Message[Any], current: Payload | None, unlike: list[Wire]) -> Wire:
        """Convert a message to its wire form, to be checked later; add it to ``unlike`` unless one like it is known."""
        if was_sent(message):
            raise InvalidWorkflow(
                f"The message {message} was sent already, and would run a second time as a step: use "
                f"{message.actor_name}.message(...) instead of .send(...).",
                message,
            )
        if current is not None and current.jid == message.message_id:
            raise enqueued_itself(message)
        key = (message.actor_name, message.queue_name)
        plain = not message.options and not message.kwargs
        common = self._known.get(key) if plain else None
        is_new = common is None
        if common is None:
            common = self._common(message)
        wire = {**common, "args": list(message.args), "jid": message.message_id}
        if is_new:
            unlike.append(wire)
            if plain:
                self._known[key] = common
        return wire

    def _common(self, message: dramatiq.Message[Any]) -> Wire:
        """Make the wire form of a message without its arguments and its id."""
        of_actor = self.engine.broker.options_of(message.actor_name) or DEFAULTS
        return {"__type__": "job", "class": message.actor_name, **job_options(message, of_actor)}

    def mermaid(self) -> str:
        """Return the tree as a Mermaid flowchart."""
        return flowchart(load_tree(dump_tree(self.wire, self.engine.is_ruby, args=False)))

    def __str__(self) -> str:
        """Return an outline of the tree: one line per step."""
        return outline(self.wire)

    def __repr__(self) -> str:
        return f"Workflow({self.node!r})"


def global_broker() -> dramatiq.Broker:
    """Get the global broker.  If none is set, Dramatiq itself would create another one; this function raises.

    Raises:
      ConfigurationError: if none is set.
    """
    if not has_global_broker():
        raise ConfigurationError(
            "There is no global broker: call dramatiq.set_broker(broker) before the actors are declared, or pass "
            "Workflow(..., broker=broker)."
        )
    return dramatiq.get_broker()
