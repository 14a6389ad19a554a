"""Run of the current actor: its ids, memory and context."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import attrs

from .errors import ConfigurationError, NoCurrentRun
from .protocols import Memory
from .wire.option_rules import check_namespace
from .wire.payload import Payload
from .wire.replace import Changes


@attrs.frozen
class RunMemory:
    """Memory of one run, as one of its steps sees it.

    Attributes:
      namespace: The namespace that the step writes to (``left`` or
        ``outer.inner``); "" is the shared one.  Reads look there first, then
        in each namespace around it, then in the shared one.
    """

    backend: Memory | None
    run_id: str
    namespace: str = ""

    def _backend(self) -> Memory:
        if self.backend is None:
            raise ConfigurationError(
                "Workflows have no memory here: use WorkflowMiddleware(memory=RedisHashMemory(...)).", self.run_id
            )
        return self.backend

    def write(self, values: Mapping[str, Any]) -> None:
        """Set values in this namespace; other keys stay.

        Raises:
          ConfigurationError: if workflows have no memory.
          InvalidOutput: if a key is not a string, or JSON cannot carry a value
            exactly; nothing is written.
        """
        self._backend().write(self.run_id, namespaced(values, self.namespace))

    def read(self, *keys: str) -> dict[str, Any]:
        """Read the values of those of ``keys`` that exist; without keys, all.

        In a namespace, a name without a prefix is looked up in that namespace
        first.  Without keys, the result also has the values of all other
        namespaces, under their full names (``right.size``).
        """
        backend = self._backend()
        if not self.namespace:
            return backend.read(self.run_id, keys or None)
        prefixes = _prefixes(self.namespace)
        if keys:
            return _read_keys(backend, self.run_id, keys, prefixes)
        return _read_all(backend, self.run_id, prefixes)

    def within(self, namespace: str) -> RunMemory:
        """View the same memory as a step of another namespace; ``""`` is the shared one.

        Examples:

          >>> current_run().memory.within("left").read("size")

        Raises:
          InvalidOptions: if the name is invalid.
        """
        if namespace:
            check_namespace(namespace)
        return attrs.evolve(self, namespace=namespace)

    def clear(self) -> None:
        """Delete all values of the run, of every namespace."""
        self._backend().clear(self.run_id)


def namespaced(values: Mapping[str, Any], namespace: str) -> Mapping[str, Any]:
    """Put values under their full names.  Non-string keys are passed through; the memory backend rejects them."""
    if not namespace:
        return values
    return {f"{namespace}.{key}" if isinstance(key, str) else key: value for key, value in values.items()}


def _prefixes(namespace: str) -> list[str]:
    """Prefixes of a name, nearest first: ``outer.inner.``, ``outer.``, and nothing."""
    parts = namespace.split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return [*(f"{name}." for name in names), ""]


def _read_keys(backend: Memory, run_id: str, keys: Iterable[str], prefixes: list[str]) -> dict[str, Any]:
    """Read keys under each of the prefixes; the first prefix that has a value wins."""
    names = [prefix + key for key in keys for prefix in prefixes]
    stored = backend.read(run_id, names)
    visible: dict[str, Any] = {}
    for key in keys:
        for prefix in prefixes:
            if prefix + key in stored:
                visible[key] = stored[prefix + key]
                break
    return visible


def _read_all(backend: Memory, run_id: str, prefixes: list[str]) -> dict[str, Any]:
    """Read all values; those under the prefixes are added without them, the nearest last."""
    stored = backend.read(run_id)
    visible = dict(stored)
    # Not the last prefix, which is empty: its names are there already.
    for prefix in reversed(prefixes[:-1]):
        for name, value in stored.items():
            if name.startswith(prefix):
                visible[name.removeprefix(prefix)] = value
    return visible


@attrs.frozen
class CurrentRun:
    """Run and job of the current actor.

    Attributes:
      run_id: ``workflow_run_id``.
      jid: The job's id.
      depth: Number of callbacks on the stack.
      memory: The run's memory.
      extend: Function that extends the lifetime of the run; see ``extend_ttl``.
      reader: Function that reads the context from the job.
      asks: Function that returns whether the run was cancelled.
      changes: What :meth:`replace` and :meth:`add` ask for; None where steps cannot do that.
    """

    run_id: str
    jid: str
    depth: int
    memory: RunMemory
    extend: Callable[[int | None], None] | None = attrs.field(default=None, repr=False, eq=False)
    reader: Callable[[], Mapping[str, Any]] | None = attrs.field(default=None, repr=False, eq=False)

    asks: Callable[[], bool] | None = attrs.field(default=None, repr=False, eq=False)
    changes: Changes | None = attrs.field(default=None, repr=False, eq=False)

    def replace(self, tree: Any) -> None:
        """Replace this step by a tree when it ends well; what follows the step waits for the tree.

        The tree is checked and written with the acknowledgement of the step: a step
        that fails has replaced nothing.  Of several calls the last one counts.
        ``return Replace(tree)`` does the same.

        Raises:
          ConfigurationError: if the step is on another broker than a SidekiqBroker, or barriers are your own.
          InvalidWorkflow: if the tree is missing.
        """
        self._changes().replace(tree)

    def add(self, *steps: Any) -> None:
        """Start steps beside each other when this step ends well; what follows this step waits for them.

        With :meth:`replace`, they start beside the tree.

        Raises:
          ConfigurationError, InvalidWorkflow: as :meth:`replace`.
        """
        self._changes().add(steps)

    def wait(self) -> None:
        """Let this step wait for a signal, or start the group that it carries; called by the actors of both.

        Raises:
          ConfigurationError: as :meth:`replace`.
        """
        self._changes().waits = True

    def _changes(self) -> Changes:
        if self.changes is None:
            raise ConfigurationError(
                "A step can be replaced on a SidekiqBroker only, without barriers of your own: there the tree is "
                "written in the script that acknowledges the step. A callback of a run is not a step.",
                self.run_id,
            )
        return self.changes

    def cancelled(self) -> bool:
        """Return True if the run was cancelled (``Runs.cancel``): what a long step does has no effect on its run.

        It asks Redis at most once a second for all steps of the process, so a
        loop may call it often.
        """
        return self.asks is not None and self.asks()

    @property
    def context(self) -> Mapping[str, Any]:
        """Tenant, locale and trace, which the next steps and jobs that this one sends inherit; read-only.

        Keys and values are those of the payload (``cattr``, ``locale``,
        ``apartment`` ...).  Only the attributes in ``cattr`` are decoded, to a
        dict of values as an ActiveJob's arguments.
        ``WorkflowMiddleware(inherit=[...])`` adds keys.
        """
        if self.reader is None:
            return MappingProxyType({})
        from .wire.active_job import decode_context

        return MappingProxyType(decode_context(self.reader()))

    @contextlib.contextmanager
    def enter(self) -> Iterator[CurrentRun]:
        """Make this the current run of another thread or task inside a ``with`` block.

        A coroutine, and the tasks that it starts with ``asyncio.create_task``
        or ``asyncio.to_thread``, have the run already.  A thread does not.  Also
        a decorator for the function that a thread calls::

            run = current_run()
            pool.map(run.enter()(work), items)
        """
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)


class PendingRun:
    """The current run until it is asked for: most steps never ask.

    Parameters:
      make: Function that makes it.
    """

    __slots__ = ("_make", "_run")

    def __init__(self, make: Callable[[], CurrentRun]) -> None:
        self._make = make
        self._run: CurrentRun | None = None

    def get(self) -> CurrentRun:
        """Get the run, the same one for each thread and task of its job."""
        run = self._run
        if run is None:
            run = self._run = self._make()
        return run


_current: ContextVar[CurrentRun | PendingRun | None] = ContextVar("dramatiq_sidekiq_flow_run", default=None)


#: The current job of this thread or task, in a workflow or not.
_job: ContextVar[Payload | None] = ContextVar("dramatiq_sidekiq_flow_job", default=None)


def current_run() -> CurrentRun:
    """Get the run of the current job of this thread or task.

    Raises:
      NoCurrentRun: if there is none; :func:`find_current_run` returns None instead.
    """
    run = find_current_run()
    if run is None:
        raise NoCurrentRun(
            "There is no current run: this is not a step of a workflow, or it is a thread that an actor started. In "
            "such a thread use `with run.enter():`, with the actor's current_run(). find_current_run() returns None "
            "instead."
        )
    return run


def find_current_run() -> CurrentRun | None:
    """Get the run of the current job of this thread or task; None outside of a workflow."""
    run = _current.get()
    return run.get() if isinstance(run, PendingRun) else run


def set_current_run(run: CurrentRun | PendingRun | None) -> None:
    """Set or clear the current run.  Called by the middleware."""
    _current.set(run)


def current_job() -> Payload | None:
    """Get the current job of this thread or task, in a workflow or not."""
    return _job.get()


def set_current_job(job: Payload | None) -> None:
    """Set or clear the current job.  Called by the broker's own middleware."""
    _job.set(job)
