"""Sweeps over the places where jobs of a run can be, until nothing of it waits in them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from dramatiq.logging import get_logger

from ..errors import FlowError
from ..process.fleet import plain_ruby
from ..store import job_search, processes, run_records
from ..store.connection import Connection
from ..store.job_search import Work
from ..wire import codec
from ..wire.payload import Payload
from ..wire.payload_fields import is_callback

#: Seconds between two looks for the jobs of a run: Ruby takes a job out of one place, and then puts it into another.
BETWEEN = 0.05

#: Seconds between two looks while Ruby processes have not told what they work on.
UNTIL_BEAT = 0.2

#: Seconds after which a Ruby process has told what it works on, unless it died: Sidekiq writes that each 10 seconds.
LONGEST_BEAT = 15.0

#: Seconds by which a beat must be later than the first look: Sidekiq writes the jobs first, and then the beat.
BEAT_WRITES = 1.0

#: Looks after which the search ends, whatever it finds.
MOST_LOOKS = 200


def never() -> bool:
    """Return False: nothing ends a sweep before it is done."""
    return False


class Sweep:
    """Looks for the jobs of a run again and again, until two looks in a row find nothing.

    Parameters:
      retrieve: Stored value of a payload -> its callback stack; None if payloads hold stacks.
    """

    def __init__(self, connection: Connection, retrieve: Callable[[Any], Any] | None) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = connection
        self.retrieve = retrieve

    def look(self, run_id: str) -> bool:
        """Look once; return True if there were jobs that waited, or armed barriers."""
        raise NotImplementedError

    def clear(self, run_id: str, stopping: Callable[[], bool] = never) -> bool:
        """Look until nothing is found.  Return False if ``stopping`` ended it earlier.

        A job that was on its way from one place to another, or a barrier that a
        Ruby worker was about to make, is found by a later look: it looks until
        two looks in a row find nothing.
        """
        beats = RubyBeats(self.connection if self.may_be_in_ruby(run_id) else None)
        quiet = 0
        for _ in range(MOST_LOOKS):
            if stopping():
                return False
            all_told = beats.all_told()
            quiet = 0 if self.look(run_id) else quiet + 1
            if quiet > 1 and all_told:
                return True
            time.sleep(BETWEEN if all_told else UNTIL_BEAT)
        self.logger.warning("Jobs of the run %s come again and again. Cancel or pause it once more later.", run_id)
        return True

    def may_be_in_ruby(self, run_id: str) -> bool:
        """Return True if Ruby may run a step of a run."""
        record = run_records.read(self.connection, run_id)
        if record is None:
            return False
        return not record.tree or any(b'"ruby":true' in tree for tree in (record.tree, *record.added.values()))

    def at_work(self, run_id: str) -> Iterator[tuple[Work, Payload]]:
        """Yield the jobs of a run that threads work on, by the last beats of their processes."""
        for work in job_search.work(self.connection):
            payload = self.payload(run_id, payload_at_work(work))
            if payload is not None:
                yield work, payload

    def payload(self, run_id: str, raw: bytes) -> Payload | None:
        """Read a step of a run; None for another job, and if it cannot be read."""
        if run_id.encode("utf-8", "replace") not in raw:
            return None
        try:
            payload = Payload.decode(raw, lambda stored: stored if type(stored) is list else self._stack(stored))
        except FlowError:
            return None
        return payload if payload.run_id == run_id and not is_callback(payload.fields) else None

    def _stack(self, stored: Any) -> Any:
        """Retrieve a callback stack; an empty one if that fails: the job is removed all the same."""
        try:
            return [] if self.retrieve is None else self.retrieve(stored)
        except Exception as e:
            self.logger.warning("The callback stack of a job was not found: %s", e)
            return []


def payload_at_work(work: Work) -> bytes:
    """Payload of the job that a thread works on; b"" if it cannot be read."""
    try:
        payload = codec.decode_value(work.entry).get("payload")
    except (FlowError, AttributeError):
        return b""
    # Sidekiq writes it as text; it was an object before 7.
    return payload.encode("utf-8", "surrogateescape") if type(payload) is str else b""


class RubyBeats:
    """Knows whether each process with the plain gem has written what it works on: until then, its new jobs are unseen.

    Parameters:
      connection: None if no Ruby process matters.
    """

    def __init__(self, connection: Connection | None) -> None:
        self.connection = connection
        self._began = time.monotonic()
        self._before = {} if connection is None else plain_ruby(connection)

    def all_told(self) -> bool:
        """Return True if no process has still to tell what it works on."""
        if self._before and time.monotonic() - self._began >= LONGEST_BEAT:
            self._before = {}
        if self._before and self.connection is not None:
            beats = processes.beats(self.connection, list(self._before))
            for identity, beat in beats.items():
                self._note(identity, beat)
        return not self._before

    def _note(self, identity: str, beat: bytes | None) -> None:
        if beat is None:
            del self._before[identity]
        elif beat != self._before[identity]:
            if time.monotonic() - self._began > BEAT_WRITES:
                del self._before[identity]
            else:
                self._before[identity] = beat
