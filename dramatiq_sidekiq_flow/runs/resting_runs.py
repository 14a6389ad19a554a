"""RestingRuns: runs that failed, of which the callback ``on_complete`` is due when nothing of them goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import attrs

from ..errors import UnknownRun
from ..store import run_keeping
from ..store.connection import Connection
from ..store.run_keeping import RestingRun
from ..store.run_records import is_spared
from .run_reader import RUBY_BEAT, RunReader, View
from .step_codes import LOST, PARKED, QUEUED, RETRY, RUNNING, SCHEDULED, SIGNAL, UNCAUGHT, UNKNOWN

#: Seconds between two looks at a run: the first interval, and the longest.
FIRST, LONGEST = 4.0, 300.0

#: Runs of which it is known when to look at them again.
MOST_KNOWN = 10_000

#: Codes of steps that go on.
GOING_ON = frozenset((RUNNING, QUEUED, SCHEDULED, SIGNAL, RETRY, PARKED, UNCAUGHT))


@attrs.define
class _Watch:
    """What is known of a run that was looked at.

    Attributes:
      due: Monotonic time of the next look.
      pause: Seconds until the one after it.
      marks: What was recorded when jobs were missing; None if none were.
      since: Monotonic time since which they are missing.
    """

    due: float = 0.0
    pause: float = attrs.field(factory=lambda: FIRST)
    marks: object = None
    since: float = math.inf

    def begin(self) -> bool:
        """Begin a look, and plan the next one; return False if it is not due."""
        if time.monotonic() < self.due:
            return False
        self.due = time.monotonic() + self.pause
        self.pause = min(self.pause * 1.5, LONGEST)
        return True

    def missing_for(self, marks: object) -> float:
        """Seconds since jobs are missing while nothing else was recorded."""
        if self.marks != marks:
            self.marks, self.since, self.pause = marks, time.monotonic(), FIRST
        return time.monotonic() - self.since


class RestingRuns:
    """Pushes callbacks of runs that no script could push.

    Parameters:
      stopping: Returns True if this process stops.
    """

    def __init__(self, connection: Connection, reader: RunReader, stopping: Callable[[], bool]) -> None:
        self._stopping = stopping
        self.connection = connection
        self.reader = reader
        self._offset = 0
        self._watched: dict[str, _Watch] = {}

    def look(self) -> None:
        """Look at some of the runs whose time has come."""
        if len(self._watched) > MOST_KNOWN:
            self._watched.clear()
        for run_id in self._page():
            watch = self._watched.setdefault(run_id, _Watch())
            if not self._stopping() and watch.begin():
                self._settle(run_id, watch)

    def _page(self) -> list[str]:
        """Read the next page of the runs that rest."""
        page = run_keeping.resting(self.connection, self._offset)
        self._offset = self._offset + len(page) if len(page) == run_keeping.PAGE else 0
        return page

    def _settle(self, run_id: str, watch: _Watch) -> None:
        """Push the callbacks of a run that are due."""
        run = run_keeping.resting_run(self.connection, run_id)
        if run.state == "failed":
            self._settle_failed(run, watch)
        elif run.state in ("done", "cancelled") and "on_complete" in run.calls:
            self._call(run, "on_complete", b',"state":"%b"' % run.state.encode(), again=False)
        elif not _may_fail(run):
            self._leave(run)

    def _leave(self, run: RestingRun) -> None:
        self._call(run, "", b"", again=False)

    def _settle_failed(self, run: RestingRun, watch: _Watch) -> None:
        waits = "on_complete" in run.calls
        if "on_failure" in run.calls:
            self._call(run, "on_failure", members_of(run), again=waits)
        if waits and self._is_at_rest(run, watch):
            self._call(run, "on_complete", members_of(run), again=False)
        elif not run.calls:
            self._leave(run)

    def _call(self, run: RestingRun, name: str, members: bytes, *, again: bool) -> None:
        if run_keeping.call_back(run, name, members, again=again).run(self.connection) and not again:
            self._watched.pop(run.run_id, None)

    def _is_at_rest(self, run: RestingRun, watch: _Watch) -> bool:
        """Return True if nothing of a run goes on."""
        try:
            record, view = self.reader.look(run.run_id)
        except UnknownRun:
            return False
        if view.run.state != "failed" or view.open_codes & GOING_ON:
            watch.marks = None
            return False
        # A job that was on its way to another place, or that a Ruby process has begun unseen.
        return not _misses(view) or (not self.reader.is_elsewhere and watch.missing_for(record.marks) >= RUBY_BEAT)


def _misses(view: View) -> bool:
    """Return True if jobs were not found that should be somewhere."""
    return view.codes is None or view.codes.count(LOST, UNKNOWN) > 0


def _may_fail(run: RestingRun) -> bool:
    """Return True if a run that goes on may be recorded as failed without another death."""
    return run.state == "paused" or (run.state == "running" and bool(run.failures))


def members_of(run: RestingRun) -> bytes:
    """Make the JSON members of the mapping that a callback of a failed run is given: those of its first death."""
    if not run.failures:
        return b',"state":"failed"'
    # A run does not wait for those that are spared.
    stopping = [item for item in run.failures.items() if not is_spared(item[1])]
    number, failure = min(stopping or run.failures.items())
    return b',"state":"failed","step":%d,%b' % (number, failure[1:-1])
