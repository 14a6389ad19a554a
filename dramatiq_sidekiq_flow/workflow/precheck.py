"""Checks before a run starts: each step has a class, and a process that consumes its queue.

They use the registry, the actors and the records of live processes.  A problem
is logged once, with its cure.  Only a tree that would lose a step is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
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
from ..wire.nodes import Wire, is_ruby_constant, jobs
from ..wire.payload import DEFAULTS
from .job_options import JobOptions

#: Classes, queues and pairs of them that are remembered as looked at.
_MOST_SEEN = 10_000


class Precheck:
    """Checks the trees of one broker's workflows before they start.

    Parameters:
      derives_ids: Steps of this broker's actors travel on another broker.
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
        # A copy of its own: the other one remembers a name that it did not find, though it may be published
        # before its step is due.
        self._registry = Registry(broker.connection)
        self._seen: set[Any] = set()
        self._names: set[str] = set()
        self._queues: set[Any] = set()

    def check(self, wire: Wire) -> None:
        """Look at each step of a tree.

        Raises:
          QueueShared: if a Ruby process consumes the queue of a carrier.
        """
        for name, queue, carried in {_facts(job) for job in jobs(wire)}:
            if carried:
                self._refuse_shared(name, queue)
            if (name, queue) not in self._seen:
                self._look_at(name, queue)

    def _look_at(self, name: str, queue: Any) -> None:
        """Look for the class and the queue of a step that is not remembered as looked at."""
        self._limit_memory()
        self._seen.add((name, queue))
        if name not in self._names:
            self._names.add(name)
            self._look_for_class(name)
        self._look_for_queue(name, queue)

    def _limit_memory(self) -> None:
        """Forget what was looked at once there is too much of it."""
        for seen in (self._seen, self._names, self._queues):
            if len(seen) >= _MOST_SEEN:
                seen.clear()

    def noop_queue(self, wire: Wire) -> str:
        """The queue of a job that does nothing: a Python step's, else one that Python alone consumes.

        ``default``, as in the gem, if there is no Python queue at all.

        Raises:
          QueueShared: if Ruby consumes all of them.
        """
        if not _has_empty(wire):
            return "default"
        fleet = self.fleet.look()
        steps = self._python_queues(wire)
        declared = self.broker.get_declared_queues()
        for queue in [*steps, *sorted(declared & fleet.python), *sorted(declared - fleet.python)]:
            if queue not in fleet.ruby:
                return str(queue)
        if steps:
            raise _shared("The job of a delayed empty node", steps[0], fleet)
        return "default"

    def _python_queues(self, wire: Wire) -> list[str]:
        """The queues of a tree's Python steps."""
        queues = []
        for name, queue, carried in map(_facts, jobs(wire)):
            if carried or name in self.broker.actors:
                queues.append(queue or self._known_queue(name))
        return queues

    def _known_queue(self, name: str) -> Any:
        """The queue of a class or actor; Sidekiq's default if it is unknown."""
        return {**DEFAULTS, **(self._options(name) or {})}["queue"]

    def is_python(self, job: Mapping[str, Any]) -> bool:
        """Whether a job, in wire form or as it is pushed, runs in Python for certain: Ruby does not consume its queue.

        Raises:
          redis.ConnectionError, redis.TimeoutError: if the registry is needed and Redis cannot be reached.
        """
        name, queue, _ = _facts(job)
        queue = queue or self.job_options.with_defaults(name)["queue"]
        fleet = self.fleet.look()
        if queue in fleet.ruby:
            return False
        if name in NOOP_CLASSES:
            return queue in fleet.python or queue in self.broker.get_declared_queues()
        return name in self.broker.actors or self.registry.is_python(name)

    def _refuse_shared(self, name: str, queue: Any) -> None:
        fleet = self.fleet.look()
        if queue in fleet.ruby:
            raise _shared(f"The step {name}", queue, fleet)

    def _look_for_class(self, name: str) -> None:
        if name in self.broker.actors or name in NOOP_CLASSES or self._options(name) is not None:
            return
        published = {*self.registry.names(), *self._registry.names()}
        here = {*self.broker.actors, *self.job_options.classes, *ruby_job.names(self.broker)} - NOOP_CLASSES
        nearest = hint(name, {*published, *here})
        if nearest:
            self.logger.warning("No class or actor is known by the name %s.%s", name, nearest)
        else:
            self._warn_of_unknown(name, published)

    def _warn_of_unknown(self, name: str, published: set[str]) -> None:
        """Warn of a name that no class or actor has, and that is not like one; not if Ruby may have it unpublished."""
        if not is_ruby_constant(name):
            self.logger.warning(
                "No actor is named %s on this broker, and no other program has published one. Is it declared on "
                "another broker, before dramatiq.set_broker(...)?",
                name,
            )
        elif any(map(is_ruby_constant, published)):
            self.logger.warning(
                "No class is known by the name %s: it is not among those that Ruby has published. Where it exists, "
                "let its process write the registry, or say RubyJob(%r, queue=..., retry=...).",
                name,
                name,
            )

    def _options(self, name: str) -> Mapping[str, Any] | None:
        """As ``JobOptions.find``; None also if Redis cannot be asked."""
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
            "No live process consumes queue %r, where %s goes.%s Consumed are: %s. Start a worker for it, or give "
            "the step another queue.",
            queue,
            name,
            hint(str(queue), fleet.queues),
            ", ".join(sorted(fleet.queues)),
        )


def _facts(job: Mapping[str, Any]) -> tuple[str, Any, bool]:
    """Name, queue (None: not said) and whether it is a carrier."""
    carried = job["class"] in NOOP_CLASSES and type(job.get("wrapped")) is str
    queue = job.get("queue")
    return job["wrapped"] if carried else job["class"], queue if type(queue) is str else None, carried


def _shared(what: str, queue: str, fleet: Fleet) -> QueueShared:
    return QueueShared(
        f"{what} would go to queue {queue!r}, which the Ruby process {fleet.ruby[queue]} consumes: Ruby would take it "
        "for done without running it. Give each language queues of its own: queue_name= of the actor, and -Q of the "
        "Python worker.",
        queue,
    )


def _has_empty(node: Wire) -> bool:
    if node["__type__"] == "job":
        return False
    if "task" in node:
        return _has_empty(node["task"])
    return not node["children"] or any(map(_has_empty, node["children"]))
