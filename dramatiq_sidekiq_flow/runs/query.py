"""Runs: what is known of the runs of a broker, and what can be done with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, overload

import dramatiq

from ..broker import SidekiqBroker
from ..errors import InvalidFilter, RunTimeout, UnknownRun, shortened
from ..store import run_records
from ..workflow.engine_lookup import engine_of
from ..workflow.workflow import global_broker
from . import run_index
from .consumers import Surveyor
from .explanation import Explainer, Explanation
from .run_cancellation import Cancellation
from .run_index import Filter
from .run_reader import RunReader, head_run
from .snapshot import Run
from .steering import Steering, checked

#: Seconds between two looks at the state of a run: the first interval, the longest, and the factor between.
FIRST, LONGEST, FACTOR = 0.01, 0.5, 1.5

#: Seconds between two searches for the jobs of a run whose recorded state does not change: the first
#: interval, and the longest.
FIRST_SEARCH, LONGEST_SEARCH = 2.0, 20.0


#: The states of runs that can be cancelled.
CANCELLABLE = ("running", "failed", "paused")


class Runs(Steering):
    """Reads the runs of a broker, and steers them.

    Parameters:
      broker: A SidekiqBroker with a WorkflowMiddleware, or another Dramatiq
        broker whose WorkflowMiddleware has the url of Sidekiq's Redis; the
        global broker by default.

    Raises:
      ConfigurationError: if the broker cannot run workflows.

    The methods block.  Those whose names end with ``_async`` do the same in a
    coroutine, in a thread.
    """

    def __init__(self, broker: dramatiq.Broker | None = None) -> None:
        broker = broker or global_broker()
        engine = engine_of(broker)
        self._engine = engine
        self._connection = engine.broker.connection
        memory = engine.memory

        def read_memory(run_id: str) -> Mapping[str, Any]:
            return {} if memory is None else memory.read(run_id)

        def ruby_queues() -> frozenset[str]:
            return frozenset(engine.precheck.fleet.look(max_age=1.0).ruby)

        self._reader = RunReader(
            self._connection, read_memory, ruby_queues, is_elsewhere=not isinstance(broker, SidekiqBroker)
        )
        self._cancellation = Cancellation(self._connection, engine.stacks.retrieve)
        self._steer(engine, self._reader)
        surveyor = Surveyor(self._connection, engine.broker.process.heartbeat.timeout)
        has_barriers = engine.settings.barriers is None
        self._explainer = Explainer(self._connection, self._reader, surveyor, has_barriers)

    def get(self, run_id: str) -> Run:
        """Read a run: its record, and where its jobs are.

        Raises:
          UnknownRun: if it has no record, and no job of it is found.
          WrongType: if a key of its record holds another type.
          redis.RedisError: if Redis cannot be reached, or refuses.
        """
        return self._reader.get(run_id)

    def explain(self, run_id: str) -> Explanation:
        """Explain why each open step of a run waits, or cannot move, and what to do.

        A step of Ruby without the companion whose job is nowhere may have begun a
        moment ago, while a Ruby process consumes its queue: the same ``Runs`` is
        certain when it looks again after 15 seconds.

        Raises:
          UnknownRun: if it has no record.
          WrongType: if a key of its record holds another type.
          redis.RedisError: if Redis cannot be reached, or refuses.
        """
        return self._explainer.explain(run_id)

    def list(
        self,
        *,
        state: str | None = None,
        template: str | None = None,
        tag: str | None = None,
        since: datetime | timedelta | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Sequence[Run]:
        """List runs, the newest first, as they are recorded: without steps, failures and memory.

        Parameters:
          state: ``running``, ``failed``, ``paused``, ``cancelled`` or ``done``.  A run that is ``waiting`` or
            ``stuck`` is recorded as running: :meth:`get` looks where its jobs are.
          since: Earliest start: a time (UTC if it has no time zone), or how long ago.
          limit: Most runs.
          after: Id of the last run of the page before.

        Raises:
          InvalidFilter: if runs are not recorded in this state, or if the limit is below 1.
          UnknownRun: if the run of ``after`` is gone.
          redis.RedisError: if Redis cannot be reached, or refuses.
        """
        _check_state(state)
        if type(limit) is not int or limit < 1:
            raise InvalidFilter(f"limit must be 1 or more, not {shortened(limit)}.", limit)
        wanted = Filter(state, template, tag, _earliest(since), after)
        return [head_run(head) for head in run_index.page(self._connection, wanted, limit)]

    def wait(self, run_id: str, *, timeout: int | timedelta | None = None) -> Run:
        """Wait until a run is at rest: done, failed, cancelled or stuck.

        Parameters:
          timeout: Milliseconds, or a timedelta; None waits without a limit.

        Raises:
          RunTimeout: if it is not at rest in time.
          UnknownRun: if it has no record.
          redis.RedisError: if Redis cannot be reached, or refuses.
        """
        waiting = _Waiting(self, run_id, timeout)
        for pause in waiting.pauses():
            time.sleep(pause)
        return waiting.result

    @overload
    def cancel(self, run_id: str, reason: str = "") -> Run: ...

    @overload
    def cancel(
        self, *, reason: str = "", template: str | None = None, tag: str | None = None, state: str | None = None
    ) -> Sequence[str]: ...

    def cancel(
        self,
        run_id: str | None = None,
        reason: str = "",
        *,
        template: str | None = None,
        tag: str | None = None,
        state: str | None = None,
    ) -> Run | Sequence[str]:
        """Cancel a run, or all runs of a filter: what runs, ends, and nothing new of them starts.

        Python's workers, and Ruby's with the companion, start no step of the run
        later than one second after.  A step that runs then ends, and its output
        and its end are recorded; ``current_run().cancelled()`` tells it.  Jobs of
        the run are removed from queues, ``schedule`` and ``retry``, not from
        ``dead``.  With the plain gem, this call waits until each Ruby process
        has told what it works on: up to 15 seconds, if the run has steps of Ruby.

        A run that is done stays as it is.  One that was cancelled before stays as
        it is, too, and what is left of its jobs is removed.

        Parameters:
          reason: Kept in the record, shown in ``Run.reason``.
          template, tag, state: Cancel the runs of this filter, as in :meth:`list`, instead of one.

        Returns:
          The run; of a filter, the ids of the runs that were cancelled.

        Raises:
          UnknownRun: if it has no record.
          InvalidFilter: if there is neither an id nor a filter, or both, or if no run of this state can be cancelled.
          WrongType: if a key that is needed holds another type.
          redis.RedisError: if Redis cannot be reached, or refuses.
        """
        wanted = checked("cancel", run_id, Filter(state, template, tag), CANCELLABLE)
        if run_id is not None:
            if self._cancellation.mark(run_id, reason):
                self._cancellation.clear(run_id)
            return self.get(run_id)
        return self._cancel_all(wanted, reason)

    def _cancel_all(self, wanted: Filter, reason: str) -> Sequence[str]:
        found = self._selected(wanted, CANCELLABLE)
        # All of them before the search for their jobs, which takes longer.
        cancelled = [found_id for found_id in found if self._cancellation.mark_known(found_id, reason)]
        for cancelled_id in cancelled:
            self._cancellation.clear(cancelled_id)
        return cancelled

    @overload
    async def cancel_async(self, run_id: str, reason: str = "") -> Run: ...

    @overload
    async def cancel_async(
        self, *, reason: str = "", template: str | None = None, tag: str | None = None, state: str | None = None
    ) -> Sequence[str]: ...

    async def cancel_async(self, *run: Any, **options: Any) -> Run | Sequence[str]:
        """Cancel a run, or all runs of a filter, as :meth:`cancel`."""
        return await asyncio.to_thread(lambda: self.cancel(*run, **options))

    async def get_async(self, run_id: str) -> Run:
        """Read a run, as :meth:`get`."""
        return await asyncio.to_thread(self.get, run_id)

    async def explain_async(self, run_id: str) -> Explanation:
        """Explain a run, as :meth:`explain`."""
        return await asyncio.to_thread(self.explain, run_id)

    async def list_async(self, **filters: Any) -> Sequence[Run]:
        """List runs, as :meth:`list`."""
        return await asyncio.to_thread(lambda: self.list(**filters))

    async def wait_async(self, run_id: str, *, timeout: int | timedelta | None = None) -> Run:
        """Wait until a run is at rest, as :meth:`wait`.  No thread waits meanwhile."""
        waiting = _Waiting(self, run_id, timeout)
        pauses = waiting.pauses()
        while (pause := await asyncio.to_thread(next, pauses, None)) is not None:
            await asyncio.sleep(pause)
        return waiting.result


class _Waiting:
    """Looks at the state of a run again and again, and rarely for its jobs."""

    def __init__(self, runs: Runs, run_id: str, timeout: int | timedelta | None) -> None:
        self.runs = runs
        self.run_id = run_id
        if isinstance(timeout, timedelta):
            timeout = int(timeout.total_seconds() * 1000)
        self.timeout = timeout
        self.deadline = float("inf") if timeout is None else time.monotonic() + timeout / 1000
        self.result: Run

    def pauses(self) -> Iterator[float]:
        """Yield the seconds to the next look, until the run is at rest and ``result`` is set."""
        pause, between = FIRST, FIRST_SEARCH
        recorded, search_at = "running", time.monotonic() + between
        while True:
            before, recorded = recorded, self._recorded()
            left = self.deadline - time.monotonic()
            if recorded != before or time.monotonic() >= search_at or left <= 0:
                self.result = self.runs.get(self.run_id)
                if self.result.at_rest:
                    return
                between = min(between * 2, LONGEST_SEARCH)
                search_at = time.monotonic() + between
            if left <= 0:
                raise RunTimeout(
                    f"The run {shortened(self.run_id)} is not at rest after {self.timeout} ms: it is "
                    f"{self.result.state}. It goes on; Runs.get() shows where it is.",
                    self.run_id,
                )
            yield min(pause, left)
            pause = min(pause * FACTOR, LONGEST)

    def _recorded(self) -> str:
        state = run_records.state_of(self.runs._connection, self.run_id)
        if state is None:
            raise UnknownRun(f"There is no record of the run {shortened(self.run_id)}.", self.run_id)
        return state


def _check_state(state: str | None) -> None:
    if state is not None and state not in run_records.STATES:
        raise InvalidFilter(
            f"Runs can be listed as {', '.join(run_records.STATES)}, not as {shortened(state)}. Runs.get() tells "
            "whether a running one waits or is stuck.",
            state,
        )


def _earliest(since: datetime | timedelta | None) -> float | None:
    if since is None:
        return None
    if isinstance(since, timedelta):
        return time.time() - since.total_seconds()
    if since.tzinfo is None:
        since = since.replace(tzinfo=timezone.utc)
    return since.timestamp()
