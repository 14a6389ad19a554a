"""Checks before a run starts: each step has a class, and a process that consumes its queue.

They use the registry, the actors and the records of live processes.  A problem
is logged once, with its remedy.  Only a tree that would lose a step is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from itertools import starmap
from typing import Any

from dramatiq.logging import get_logger

from ..broker import SidekiqBroker
from ..errors import QueueShared
from ..process.fleet import Fleet, FleetView
from ..registry import ruby_job
from ..registry.registry import Registry
from ..store.connection import LOST
from ..wire.dialect import NOOP_CLASSES
from ..wire.near_names import hint
from ..wire.need import group_of
from ..wire.nodes import Wire, is_ruby_constant, jobs
from ..wire.own_steps import is_own
from ..wire.payload import DEFAULTS
from .job_options import JobOptions

#: Maximum number of classes, of queues and of pairs that are remembered as checked.
_MOST_SEEN = 10_000


class Precheck:
    """Checks of one broker's workflow trees before they start.

    Parameters:
      derives_ids: True if the steps of this broker's actors go to another
        broker (see Transport).
    """

    def __init__(
        self, *, broker: SidekiqBroker, job_options: JobOptions, registry: Registry, derives_ids: bool
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.broker = broker
        self.job_options = job_options
        self.registry = registry
        self.derives_ids = derives_ids
        self.fleet = FleetView(broker.connection)
        # A second Registry: the first one would remember a name as missing that may be published before its step
        # is due.
        self._registry = Registry(broker.connection)
        self._seen: set[Any] = set()
        self._names: set[str] = set()
        self._queues: set[Any] = set()

    def check(self, wire: Wire) -> None:
        """Check each step of a tree.

        Raises:
          QueueShared: if a Ruby process consumes the queue of a carrier.
        """
        # A group at the root starts now, so its carrier goes to no queue.
        pushed = jobs(group_of(wire) or wire)
        kinds = {(job["class"], job.get("wrapped"), job.get("queue")) for job in pushed}
        for name, queue, carried in set(starmap(_facts, kinds)):
            if carried:
                self._refuse_shared(name, queue)
            if (name, queue) not in self._seen:
                self._look_at(name, queue)

    def _look_at(self, name: str, queue: Any) -> None:
        """Check the class and the queue of a step, and remember the pair as checked."""
        self._limit_memory()
        self._seen.add((name, queue))
        if name not in self._names:
            self._names.add(name)
            self._look_for_class(name)
        self._look_for_queue(name, queue)

    def _limit_memory(self) -> None:
        """Forget the checked classes, queues and pairs if there are too many."""
        for seen in (self._seen, self._names, self._queues):
            if len(seen) >= _MOST_SEEN:
                seen.clear()

    def noop_queue(self, wire: Wire) -> str:
        """Choose the queue of a job that does nothing: a Python step's, else one that only Python consumes.

        ``default``, as in the gem, if there is no Python queue at all.

        Raises:
          QueueShared: if Ruby consumes all of them.
        """
        return self.python_queue(wire, "The job of a delayed empty node") if _has_empty(wire) else "default"

    def python_queue(self, wire: Wire, subject: str) -> str:
        """Choose a queue as :meth:`noop_queue`, also for a tree without empty nodes.

        Parameters:
          subject: What goes there, for the error.
        """
        fleet = self.fleet.look()
        steps = self._python_queues(wire)
        queue = self._own_queue(steps, fleet)
        if queue is None and steps:
            raise _shared(subject, steps[0], fleet)
        return queue or "default"

    def end_queue(self, wire: Wire) -> str | None:
        """Choose the queue of the job that ends a run: as :meth:`python_queue`, else one that any Python process
        consumes; None if no queue of Python's is known."""
        fleet = self.fleet.look()
        found = self._own_queue(self._python_queues(wire), fleet)
        return found or min(fleet.python - fleet.ruby.keys(), default=None)

    def _own_queue(self, steps: list[str], fleet: Fleet) -> str | None:
        """Choose a queue of this program that Ruby does not consume; None if there is none."""
        declared = self.broker.get_declared_queues()
        queues = [*steps, *sorted(declared & fleet.python), *sorted(declared - fleet.python)]
        return next((str(queue) for queue in queues if queue not in fleet.ruby), None)

    def _python_queues(self, wire: Wire) -> list[str]:
        """List the queues of a tree's Python steps."""
        queues = []
        for name, queue, carried in map(_facts_of, jobs(wire)):
            if (carried and not is_own(name)) or name in self.broker.actors:
                queues.append(queue or self._known_queue(name))
        return queues

    def _known_queue(self, name: str) -> Any:
        """Look up the queue of a class or actor; Sidekiq's default if it is unknown."""
        return {**DEFAULTS, **(self._options(name) or {})}["queue"]

    def is_python(self, job: Mapping[str, Any]) -> bool:
        """Return True if a job certainly runs in Python: Ruby does not consume its queue, and Python has its class.

        Parameters:
          job: A job in wire form, or the keys that it is pushed with.

        Raises:
          redis.ConnectionError, redis.TimeoutError: if the registry is needed and Redis cannot be reached.
        """
        name, queue, _ = _facts_of(job)
        queue = queue or self.job_options.with_defaults(name)["queue"]
        fleet = self.fleet.look()
        if queue in fleet.ruby:
            return False
        if name in NOOP_CLASSES or is_own(name):
            return queue in fleet.python or queue in self.broker.get_declared_queues()
        return name in self.broker.actors or self.registry.is_python(name)

    def _refuse_shared(self, name: str, queue: Any) -> None:
        fleet = self.fleet.look()
        if queue in fleet.ruby:
            raise _shared(f"The step {name}", queue, fleet)

    def _look_for_class(self, name: str) -> None:
        if name in self.broker.actors or name in NOOP_CLASSES or is_own(name) or self._options(name) is not None:
            return
        published = {*self.registry.names(), *self._registry.names()}
        here = {*self.broker.actors, *self.job_options.classes, *ruby_job.names(self.broker)} - NOOP_CLASSES
        nearest = hint(name, {*published, *here})
        if nearest:
            self.logger.warning("No class or actor has the name %s; its step is pushed anyway.%s", name, nearest)
        else:
            self._warn_of_unknown(name, published)

    def _warn_of_unknown(self, name: str, published: set[str]) -> None:
        """Warn of a name that no class or actor has, and that resembles none.

        Not of a Ruby constant while Ruby has published no classes: it may exist.
        """
        if not is_ruby_constant(name):
            self.logger.warning(
                "No actor is named %s on this broker, and no other program has published one; its step is pushed "
                "anyway. Is it declared on another broker, before dramatiq.set_broker(...)?",
                name,
            )
        elif any(map(is_ruby_constant, published)):
            self.logger.warning(
                "No class has the name %s: Ruby has not published it in the registry. If it exists, let its process "
                "write the registry, or declare it: RubyJob(%r, queue=..., retry=...).",
                name,
                name,
            )

    def _options(self, name: str) -> Mapping[str, Any] | None:
        """Look up options as ``JobOptions.find``, but without the registry in Redis if Redis cannot be reached."""
        declared = self.job_options.declared_here(name)
        entry = None
        if declared is None or "queue" not in declared:
            with contextlib.suppress(*LOST):
                entry = self.registry.filed(name) or self._registry.find(name)
        return declared if entry is None else {**entry.options, **(declared or {})}

    def _look_for_queue(self, name: str, queue: Any) -> None:
        if self.derives_ids and name in self.broker.actors:
            return  # its queue is on another broker
        known = queue or self._known_queue(name)
        if known in self._queues:
            return
        fleet = self.fleet.look()
        if not fleet.queues:
            # No worker is up yet: check the queue at the next start.
            self._seen.discard((name, queue))
            return
        self._queues.add(known)
        if known not in fleet.queues:
            self._warn_of_no_consumer(name, known, fleet)

    def _warn_of_no_consumer(self, name: str, queue: Any, fleet: Fleet) -> None:
        self.logger.warning(
            "No live process consumes queue %r, so the step %s waits there.%s Consumed queues: %s. Start a worker "
            "for it, or give the step another queue.",
            queue,
            name,
            hint(str(queue), fleet.queues),
            ", ".join(sorted(fleet.queues)),
        )


def _facts_of(job: Mapping[str, Any]) -> tuple[str, Any, bool]:
    """Read a job's name, its queue (None if it is not set), and True if it is a carrier."""
    return _facts(job["class"], job.get("wrapped"), job.get("queue"))


def _facts(name: str, wrapped: Any, queue: Any) -> tuple[str, Any, bool]:
    """As :func:`_facts_of`, from the values of a job's keys."""
    carried = name in NOOP_CLASSES and type(wrapped) is str
    return wrapped if carried else name, queue if type(queue) is str else None, carried


def _shared(subject: str, queue: str, fleet: Fleet) -> QueueShared:
    return QueueShared(
        f"{subject} would go to queue {queue!r}, which the Ruby process {fleet.ruby[queue]} consumes: Ruby would count "
        "it as done without running it. Use separate queues for each language: queue_name= of the actor, and -Q of "
        "the Python worker.",
        queue,
    )


def _has_empty(node: Wire) -> bool:
    node = group_of(node) or node
    if node["__type__"] == "job":
        return False
    if "task" in node:
        return _has_empty(node["task"])
    children = node["children"]
    return not children or any(_has_empty(child) for child in children if child["__type__"] != "job" or _carries(child))


def _carries(job: Wire) -> bool:
    return group_of(job) is not None
