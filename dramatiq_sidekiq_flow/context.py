"""The run that the current actor belongs to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

import attrs

from .errors import ConfigurationError


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
    """The memory of one run."""

    backend: Memory | None
    run_id: str

    def _backend(self) -> Memory:
        if self.backend is None:
            raise ConfigurationError(
                "Workflows have no memory here: use WorkflowMiddleware(memory=RedisHashMemory(...)).", self.run_id
            )
        return self.backend

    def write(self, values: Mapping[str, Any]) -> None:
        """Set values; others stay."""
        self._backend().write(self.run_id, values)

    def read(self, *keys: str) -> dict[str, Any]:
        """The values of ``keys`` that are there; without keys, all."""
        return self._backend().read(self.run_id, keys or None)

    def clear(self) -> None:
        """Forget all values."""
        self._backend().clear(self.run_id)


@attrs.frozen
class CurrentRun:
    """Where the current actor stands.

    Attributes:
      run_id: ``workflow_run_id``.
      jid: The job's id.
      depth: How many callbacks are on the stack.
      memory: The run's memory.
    """

    run_id: str
    jid: str
    depth: int
    memory: RunMemory

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


def current_run() -> CurrentRun | None:
    """The run of the job that this thread or task works on; None outside of one."""
    return _current.get()


def set_current_run(run: CurrentRun | None) -> None:
    """Enter or leave a run.  Called by the middleware."""
    _current.set(run)
