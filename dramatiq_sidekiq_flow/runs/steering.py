"""Steering of runs: they are paused, resumed and retried, and get signals."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, overload

from ..errors import InvalidFilter, shortened
from ..store.connection import Connection
from ..workflow.engine import Engine
from . import run_index
from .pausing import Pausing
from .run_index import Filter
from .run_reader import RunReader
from .run_retry import MODES, Retrying
from .signalling import Signals
from .snapshot import Run

#: The recorded states in which runs can be paused and resumed.
PAUSABLE = ("running", "failed")
RESUMABLE = ("paused",)

#: Mode of a retry -> the recorded states in which runs can be retried in it.
RETRIABLE = {
    "failed": ("failed", "running", "paused"),
    "failed_and_after": ("failed", "running", "paused", "done"),
    "all": ("failed", "cancelled", "done"),
}


class Steering:
    """The methods of ``Runs`` that pause, resume and retry runs, and send signals to them.

    The methods block.  Those whose names end with ``_async`` do the same in a
    coroutine, in a thread.
    """

    _connection: Connection

    def _steer(self, engine: Engine, reader: RunReader) -> None:
        self._pausing = Pausing(engine)
        self._retrying = Retrying(engine, reader, self._pausing)
        self._signals = Signals(self._connection)

    def get(self, run_id: str) -> Run:
        """Read a run."""
        raise NotImplementedError

    # -- pause ------------------------------------------------------------------

    @overload
    def pause(self, run_id: str, reason: str = "") -> Run: ...

    @overload
    def pause(
        self, *, reason: str = "", template: str | None = None, tag: str | None = None, state: str | None = None
    ) -> Sequence[str]: ...

    def pause(
        self,
        run_id: str | None = None,
        reason: str = "",
        *,
        template: str | None = None,
        tag: str | None = None,
        state: str | None = None,
    ) -> Run | Sequence[str]:
        """Pause a run, or all runs of a filter: what runs, ends, and what would follow waits for :meth:`resume`.

        Python's workers, and Ruby's with the companion, start no step of the run
        later than one second after.  Jobs of the run in queues, ``schedule`` and
        ``retry`` are parked, and so are the next steps of those that run.  A step
        that fails while its run is paused goes to ``retry`` or ``dead`` as ever.
        With the plain gem, this call waits until each Ruby process has told what
        it works on: up to 15 seconds, if the run has steps of Ruby.

        A run that is done or cancelled stays as it is.  What is left of the jobs of
        a run that was paused before is parked.  Steps on another Dramatiq broker go
        on.

        Parameters:
          reason: Kept in the record until the run is resumed, shown in ``Run.reason``.
          template, tag, state: Pause the runs of this filter, as in ``list``, instead of one.

        Returns:
          The run; of a filter, the ids of the runs that are paused now.

        Raises:
          UnknownRun: if it has no record.
          InvalidFilter: if there is neither an id nor a filter, or both, or if no run of this state can be paused.
          WrongType: if a key that is needed holds another type.
          redis.RedisError: if Redis cannot be reached, or refuses.
        """
        wanted = checked("pause", run_id, Filter(state, template, tag), PAUSABLE)
        if run_id is None:
            return self._pausing.pause_all(self._selected(wanted, PAUSABLE), reason)
        self._pausing.pause(run_id, reason)
        return self.get(run_id)

    @overload
    async def pause_async(self, run_id: str, reason: str = "") -> Run: ...

    @overload
    async def pause_async(
        self, *, reason: str = "", template: str | None = None, tag: str | None = None, state: str | None = None
    ) -> Sequence[str]: ...

    async def pause_async(self, *run: Any, **options: Any) -> Run | Sequence[str]:
        """Pause a run, or all runs of a filter, as :meth:`pause`."""
        return await asyncio.to_thread(lambda: self.pause(*run, **options))

    # -- resume -----------------------------------------------------------------

    @overload
    def resume(self, run_id: str) -> Run: ...

    @overload
    def resume(
        self, *, template: str | None = None, tag: str | None = None, state: str | None = None
    ) -> Sequence[str]: ...

    def resume(
        self,
        run_id: str | None = None,
        *,
        template: str | None = None,
        tag: str | None = None,
        state: str | None = None,
    ) -> Run | Sequence[str]:
        """Resume a paused run, or all paused runs of a filter: their parked jobs go where they belong, in their order.

        If a call is killed, another one with the id of the run finishes what is
        left.  In a run that is not paused it changes nothing else.

        Parameters:
          template, tag, state: Resume the paused runs of this filter, as in ``list``, instead of one.

        Returns:
          The run; of a filter, the ids of the runs that were resumed.

        Raises:
          UnknownRun: if it has no record.
          InvalidFilter: if there is neither an id nor a filter, or both, or if no run of this state can be resumed.
          WrongType: if a key that is needed holds another type; call it again when the key is removed.
          redis.RedisError: if Redis cannot be reached, or refuses.
        """
        wanted = checked("resume", run_id, Filter(state, template, tag), RESUMABLE)
        if run_id is None:
            return self._pausing.resume_all(self._selected(wanted, RESUMABLE))
        self._pausing.resume(run_id)
        return self.get(run_id)

    @overload
    async def resume_async(self, run_id: str) -> Run: ...

    @overload
    async def resume_async(
        self, *, template: str | None = None, tag: str | None = None, state: str | None = None
    ) -> Sequence[str]: ...

    async def resume_async(self, *run: Any, **options: Any) -> Run | Sequence[str]:
        """Resume a paused run, or all of a filter, as :meth:`resume`."""
        return await asyncio.to_thread(lambda: self.resume(*run, **options))

    # -- retry ------------------------------------------------------------------

    @overload
    def retry(self, run_id: str, mode: str = "failed") -> Run: ...

    @overload
    def retry(
        self, *, mode: str = "failed", template: str | None = None, tag: str | None = None, state: str | None = None
    ) -> Sequence[str]: ...

    def retry(
        self,
        run_id: str | None = None,
        mode: str = "failed",
        *,
        template: str | None = None,
        tag: str | None = None,
        state: str | None = None,
    ) -> Run | Sequence[str]:
        """Retry the dead steps of a run, or of all runs of a filter, or whole runs.

        The dead steps of a paused run are parked.  Of a cancelled run only the whole
        can be retried.

        Parameters:
          mode: ``failed``: the steps that are dead go back to their queues, as from Sidekiq's Web UI.
            ``failed_and_after``: so do the steps that the run went on past (``MayFail``, ``Catch``), and what comes
            after each runs again.  ``all``: the whole run starts again, as a new run; it must have been
            started with ``Workflow(..., repeatable=True)``.  If a run that repeats it lives, nothing starts.
          template, tag, state: Retry the runs of this filter, as in ``list``, instead of one.

        Returns:
          The run, in the mode ``all`` the new one; of a filter, the ids of the runs that go on.

        Raises:
          UnknownRun: if it has no record.
          CannotRetry: if it is at work, which ``failed_and_after`` (if the run went on past a dead step) and ``all``
            refuse; if its unique key is taken; in the mode ``all``, if it is not repeatable.
          InvalidFilter: if there is neither an id nor a filter, or both, if no run of this state can be retried, or
            if there is no such mode.
          WrongType: if a key that is needed holds another type.
          redis.RedisError: if Redis cannot be reached, or refuses.
        """
        if mode not in MODES:
            raise InvalidFilter(f"mode must be one of {', '.join(MODES)}, not {shortened(mode)}.", mode)
        wanted = checked("retry", run_id, Filter(state, template, tag), RETRIABLE[mode])
        if run_id is None:
            return self._retrying.retry_all(self._selected(wanted, RETRIABLE[mode]), mode)
        return self.get(self._retrying.retry(run_id, mode) or run_id)

    @overload
    async def retry_async(self, run_id: str, mode: str = "failed") -> Run: ...

    @overload
    async def retry_async(
        self, *, mode: str = "failed", template: str | None = None, tag: str | None = None, state: str | None = None
    ) -> Sequence[str]: ...

    async def retry_async(self, *run: Any, **options: Any) -> Run | Sequence[str]:
        """Retry a run, or all runs of a filter, as :meth:`retry`."""
        return await asyncio.to_thread(lambda: self.retry(*run, **options))

    # -- signal -----------------------------------------------------------------

    @overload
    def signal(self, run_id: str, name: str, data: Any = None) -> bool: ...

    @overload
    def signal(
        self,
        run_id: None = None,
        *,
        name: str,
        data: Any = None,
        template: str | None = None,
        tag: str | None = None,
        state: str | None = None,
    ) -> Sequence[str]: ...

    def signal(
        self,
        run_id: str | None = None,
        name: str = "",
        data: Any = None,
        *,
        template: str | None = None,
        tag: str | None = None,
        state: str | None = None,
    ) -> bool | Sequence[str]:
        """Send a signal to a run, or to all runs of a filter: their steps ``WaitFor(name)`` go on.

        The signal is kept for the run: a step that waits for it later goes on at
        once.  A second signal of the same name replaces the data of the first.

        Parameters:
          data: JSON value, written to the memory of the run under the name of the signal when a step goes on;
            None writes nothing.
          template, tag, state: Signal the runs of this filter, as in :meth:`list`, instead of one.

        Returns:
          False if the run is done or cancelled, which changes nothing; of a filter, the ids of the other runs.

        Raises:
          UnknownRun: if there is no such run.
          InvalidFilter: if there is neither an id nor a filter, or both.
          InvalidWorkflow: if no signal can have this name.
          InvalidArguments: if JSON cannot carry the data exactly.
          WrongType: if a key that is needed holds another type.
          redis.RedisError: if Redis cannot be reached, or refuses.
        """
        wanted = Filter(state, template, tag)
        if run_id is None:
            return self._signals.send_all(wanted, name, data)
        if wanted.indexes:
            raise InvalidFilter("signal takes the id of a run or a filter, not both.", run_id)
        return self._signals.send(run_id, name, data)

    async def signal_async(self, *run: Any, **options: Any) -> bool | Sequence[str]:
        """Send a signal to a run, or to all runs of a filter, as :meth:`signal`."""
        return await asyncio.to_thread(lambda: self.signal(*run, **options))

    def _selected(self, wanted: Filter, states: Sequence[str]) -> list[str]:
        """The ids of the runs of a filter that are in one of these states."""
        return [head.id for head in run_index.all_of(self._connection, wanted) if head.state in states]


def checked(verb: str, run_id: str | None, wanted: Filter, states: Sequence[str]) -> Filter:
    """Return a filter; raise InvalidFilter if there is an id, too, or neither, or if no run of its state fits."""
    if (run_id is None) == (not wanted.indexes):
        raise InvalidFilter(f"{verb} takes the id of a run, or a filter: template=, tag= or state=.", run_id)
    if wanted.state is not None and wanted.state not in states:
        raise InvalidFilter(
            f"{verb} takes runs in state {', '.join(states)}, not {shortened(wanted.state)}.", wanted.state
        )
    return wanted
