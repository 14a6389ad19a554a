"""The run that the current actor belongs to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Protocol

import attrs

from .errors import ConfigurationError, NoCurrentRun
from .wire.active_job import decode_context
from .wire.option_rules import check_namespace
from .wire.payload import Payload


class Memory(Protocol):
    """Values that the steps of a run share: what a backend must do.

    ``run_id`` names the run; keys are strings, values what JSON can carry.
    """

    def write(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Set values; others stay."""

    def read(self, run_id: str, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """The values of ``keys`` that are there, or all."""

    def clear(self, run_id: str) -> None:
        """Forget the run."""


@attrs.frozen
class RunMemory:
    """The memory of one run, as one of its steps sees it.

    Attributes:
      namespace: Where the step writes (``left`` or ``outer.inner``); empty for
        everybody's.  It reads its own first, then that of each namespace
        around it, then everybody's.
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
        """Set values, in this namespace; others stay.

        Raises:
          ConfigurationError: where workflows have no memory.
          InvalidOutput: for keys that are not strings, and values that JSON
            cannot carry exactly; nothing is written.
        """
        self._backend().write(self.run_id, namespaced(values, self.namespace))

    def read(self, *keys: str) -> dict[str, Any]:
        """The values of ``keys`` that are there; without keys, all.

        In a namespace, what is there under its name and without it is found
        without it, and the nearest counts.  All of the others' is there, too,
        under its full name (``right.size``).
        """
        backend = self._backend()
        if not self.namespace:
            return backend.read(self.run_id, keys or None)
        prefixes = _prefixes(self.namespace)
        if keys:
            found = backend.read(self.run_id, [prefix + key for key in keys for prefix in prefixes])
            names = ((key, prefix + key) for key in keys for prefix in reversed(prefixes))
            return {key: found[name] for key, name in names if name in found}
        everything = backend.read(self.run_id)
        seen = dict(everything)
        for prefix in reversed(prefixes[:-1]):
            own = {name[len(prefix) :]: value for name, value in everything.items() if name.startswith(prefix)}
            seen.update(own)
        return seen

    def within(self, namespace: str) -> RunMemory:
        """The same memory, as a step of that namespace sees it; ``""`` for everybody's.

        Examples:

          >>> current_run().memory.within("left").read("size")

        Raises:
          InvalidOptions: for a name that is none.
        """
        if namespace:
            check_namespace(namespace)
        return attrs.evolve(self, namespace=namespace)

    def clear(self) -> None:
        """Forget all values of the run, of every namespace."""
        self._backend().clear(self.run_id)


def namespaced(values: Mapping[str, Any], namespace: str) -> Mapping[str, Any]:
    """Values under their full names.  Keys that are not strings stay, for whoever refuses them."""
    if not namespace:
        return values
    return {f"{namespace}.{key}" if isinstance(key, str) else key: value for key, value in values.items()}


def _prefixes(namespace: str) -> list[str]:
    """What a name may stand under, nearest first: ``outer.inner.``, ``outer.``, and nothing."""
    parts = namespace.split(".")
    return [".".join(parts[:n]) + "." for n in range(len(parts), 0, -1)] + [""]


@attrs.frozen
class CurrentRun:
    """Where the current actor stands.

    Attributes:
      run_id: ``workflow_run_id``.
      jid: The job's id.
      depth: How many callbacks are on the stack.
      memory: The run's memory.
      keeper: Lets the run live on; see ``extend_ttl``.
      reader: Gives the context.
    """

    run_id: str
    jid: str
    depth: int
    memory: RunMemory
    keeper: Callable[[int | None], None] | None = attrs.field(default=None, repr=False, eq=False)
    reader: Callable[[], Mapping[str, Any]] | None = attrs.field(default=None, repr=False, eq=False)

    @property
    def context(self) -> Mapping[str, Any]:
        """What the job hands on to the jobs that follow it and that it sends: tenant, locale, trace.

        Keys are those of the payload (``cattr``, ``locale``, ``apartment`` ...),
        and so are values, but for the attributes in ``cattr``, which are a dict
        of values as an ActiveJob's arguments; read-only.
        ``WorkflowMiddleware(inherit=[...])`` adds keys.
        """
        return MappingProxyType({} if self.reader is None else decode_context(self.reader()))

    @contextlib.contextmanager
    def enter(self) -> Iterator[CurrentRun]:
        """Make this the current run of another thread or task, for as long as the block.

        A coroutine, and what it starts with ``asyncio.create_task`` or
        ``asyncio.to_thread``, has its actor's run without it.  A thread does
        not; it also decorates what a thread is to do::

            run = current_run()
            pool.map(run.enter()(work), items)
        """
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)


_current: ContextVar[CurrentRun | None] = ContextVar("dramatiq_sidekiq_flow_run", default=None)


#: The job that this thread or task works on, in a workflow or not.
_job: ContextVar[Payload | None] = ContextVar("dramatiq_sidekiq_flow_job", default=None)


def current_run() -> CurrentRun:
    """The run of the job that this thread or task works on.

    Raises:
      NoCurrentRun: if there is none; :func:`find_current_run` gives None then.
    """
    run = _current.get()
    if run is None:
        raise NoCurrentRun(
            "There is no current run: this is not a step of a workflow, or a thread that an actor started. In such a "
            "thread use `with run.enter():`, with the run that the actor found. find_current_run() gives None instead."
        )
    return run


def find_current_run() -> CurrentRun | None:
    """The run of the job that this thread or task works on; None outside of one."""
    return _current.get()


def set_current_run(run: CurrentRun | None) -> None:
    """Enter or leave a run.  Called by the middleware."""
    _current.set(run)


def current_job() -> Payload | None:
    """The job that this thread or task works on, in a workflow or not."""
    return _job.get()


def set_current_job(job: Payload | None) -> None:
    """Begin or end a job.  Called by the broker's own middleware."""
    _job.set(job)
