"""Protocols of what can be replaced: memory, barriers and callback storage.

Pass an implementation to ``WorkflowMiddleware(memory=, barriers=, callback_storage=)``,
and test it with the suites of :mod:`dramatiq_sidekiq_flow.testing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

#: One entry of a stack as it is stored: ``[barrier id, tree or None, propagate]``.
Entry = list[Any]


class Memory(Protocol):
    """Protocol of a memory backend: values that the steps of a run share.

    Keys are strings; values are JSON values.
    """

    def write(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Set values; other keys stay."""

    def read(self, run_id: str, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """Read the values of those of ``keys`` that exist, or of all."""

    def clear(self, run_id: str) -> None:
        """Delete the values of the run."""


class Barrier(Protocol):
    """Protocol of a barrier backend: counts the children of a group, and the step before the next.

    The default has no class: the script that advances a run counts, keeps the
    output and pushes the continuation in one step (``store/lua/advance.lua``).
    With another backend these are several steps: the job is counted first, then
    it leaves flight and pushes the continuation.  After a crash in between the
    job runs again, so each method must allow repeated calls.  An exception fails
    the job, which is then retried.
    """

    def create(self, barrier_id: str, parties: int, ttl: int) -> None:
        """Create a barrier that waits for ``parties`` units, before any of them can be counted.

        An existing barrier stays as it is.

        Parameters:
          barrier_id: A UUID.
          ttl: Minimum lifetime in milliseconds.
        """

    def wait(self, barrier_id: str, unit: str) -> bool:
        """Count a unit, once; return True if it is the one that released the barrier.

        The same unit again changes nothing and gets the same answer, so that a
        crash after the answer repeats the continuation instead of losing it.
        True for at most one unit of a barrier.

        Parameters:
          unit: The jid of a job, or the barrier id of a finished inner group.

        Raises:
          BarrierExpired: if the barrier does not exist.
        """

    def extend(self, barrier_id: str, ttl: int) -> None:
        """Let a barrier live for at least ``ttl`` milliseconds from now.  Ignore a missing one."""


class CallbackStorage(Protocol):
    """Protocol of a storage for callback stacks; the gem's ``cfg.callback_storage``.

    A stack is a list of ``[barrier_id, remaining, propagate]``, plain JSON;
    ``remaining`` is a workflow tree or None.  All workers of a run, of both
    languages, need the same storage.
    """

    def store(self, callbacks: list[Entry]) -> Any:
        """Keep a stack; return the JSON value that the payload carries in its place.

        Called again with the same stack if a later step failed.  An exception
        fails the job, which is then retried.
        """

    def retrieve(self, stored: Any) -> list[Entry]:
        """Return the stack of a value that :meth:`store` returned.

        A FlowError sends the job to ``dead`` under the error's name.  Any other
        exception fails the job, which is then retried.
        """
