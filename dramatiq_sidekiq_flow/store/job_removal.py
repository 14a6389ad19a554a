"""Removal of the jobs of a run from all places where a job can wait: they are dropped, or parked."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from ..wire.wait_for import waits_on_queue
from . import keys, scripts
from .connection import Connection
from .job_search import FoundJob, Part, Place, by_size, first_parts, needle_of, next_part, places
from .outcomes import wrong_type
from .scripts import Argument

#: Places from which jobs are not removed: a worker has them, or a person decides about them.
KEPT = frozenset(("flight", "dead"))

#: Elements behind the part of a list in which its jobs are looked up: jobs that were pushed since have moved them.
PUSHED_SINCE = 5000

#: Jobs that one call removes.  Among a million others the server needs 0.1 ms for each, and 60 ms for all of
#: them to walk there: many small calls would take longer.
AT_ONCE = 250

#: Elements over which jobs are gathered for one call.
LONGEST = 10_000


@attrs.frozen
class Clearing:
    """What one look at all places found.

    Attributes:
      jobs: The jobs of the run, removed or not.
      waiting: Number of them in places from which jobs are removed.
    """

    jobs: Sequence[FoundJob]
    waiting: int


class Removal:
    """Removal of jobs from the places in which they were found: they are dropped."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def fanout(self, place: Place) -> int:
        """Remove a fan-out; return how many elements were left of it."""
        return removed(self.connection.call(*scripts.DROP_FANOUT.command((keys.FANOUTS, place.key), (place.name,))))

    def jobs(self, place: Place, start: int, elements: int, payloads: Sequence[bytes]) -> int:
        """Remove jobs from a list or a set; return how many were there.

        Parameters:
          start, elements: Index in the list from which they are looked up, and among how many elements.
        """
        return removed(
            self.connection.call(*scripts.DROP_JOBS.command((place.key,), (start, elements, new_mark(), *payloads)))
        )


class Parking(Removal):
    """Removal of the jobs of a paused run: they are parked."""

    def __init__(self, connection: Connection, run_id: str) -> None:
        super().__init__(connection)
        self.record = keys.record(run_id)

    def fanout(self, place: Place) -> int:
        """See Removal."""
        command = scripts.PARK_FANOUT.command((keys.FANOUTS, place.key, self.record), (place.name,))
        return removed(self.connection.call(*command))

    def jobs(self, place: Place, start: int, elements: int, payloads: Sequence[bytes]) -> int:
        """See Removal."""
        by_label: dict[str, list[bytes]] = {}
        for payload in payloads:
            by_label.setdefault(_label(place, payload), []).append(payload)
        return sum(self._park(place, (start, elements, new_mark(), label, *jobs)) for label, jobs in by_label.items())

    def _park(self, place: Place, arguments: Sequence[Argument]) -> int:
        return removed(self.connection.call(*scripts.PARK_JOBS.command((place.key, self.record), arguments)))


def _label(place: Place, payload: bytes) -> str:
    """What the entry of a parked job begins with: where it goes when its run is resumed."""
    if place.kind == "retry":
        return "r"
    if place.kind == "schedule":
        # A step that waits looks for its signal when the run is resumed.
        queue = waits_on_queue(payload)
        return "s" if queue is None else f"q{queue}"
    return f"q{place.name}"


def clear(connection: Connection, run_id: str, is_ours: Callable[[FoundJob], bool], removal: Removal) -> Clearing:
    """Remove the jobs of a run that wait: in queues, ``schedule`` and ``retry``, and in fan-outs.

    Each call to the server is short, so that others are served in between.

    Parameters:
      is_ours: Reads a job that holds the id of the run, and returns whether it belongs to the run.
    """
    needle = needle_of(run_id)
    small, large = by_size(connection, places(connection))
    found: list[FoundJob] = []
    for batch in small:
        for place, part in first_parts(connection, needle, batch):
            found += _clear_place(connection, needle, place, part, is_ours, removal)
    for place in large:
        part = next_part(connection, needle, place, Part())
        found += _clear_place(connection, needle, place, part, is_ours, removal)
    return Clearing(found, sum(job.place.kind not in KEPT for job in found))


def _clear_place(
    connection: Connection,
    needle: bytes,
    place: Place,
    part: Part,
    is_ours: Callable[[FoundJob], bool],
    removal: Removal,
) -> Iterator[FoundJob]:
    """Remove jobs from a place, of which the first part was read; yields those found."""
    gathered: list[FoundJob] = []
    start, elements = "0", 0
    while True:
        ours = [job for job in part.jobs(place) if is_ours(job)]
        yield from ours
        if place.kind not in KEPT:
            gathered += ours
        elements += part.elements
        gone = 0
        if _is_due(gathered, elements, part):
            gone = _remove(removal, place, int(start), elements, gathered)
            gathered = []
        if not part.cursor:
            return
        # The rest has moved forward.  A hash, from which nothing is removed, has cursors of its own.
        cursor = str(int(part.cursor) - gone) if gone else part.cursor
        if not gathered:
            start, elements = cursor, 0
        part = next_part(connection, needle, place, attrs.evolve(part, cursor=cursor))


def _is_due(gathered: Sequence[FoundJob], elements: int, last: Part) -> bool:
    """Return True if jobs that were gathered over some elements are to be removed now."""
    return bool(gathered) and (not last.cursor or len(gathered) >= AT_ONCE or elements >= LONGEST)


def _remove(removal: Removal, place: Place, start: int, elements: int, jobs: Sequence[FoundJob]) -> int:
    """Remove jobs that were found among the elements of a place from an index on; returns how many were there."""
    if place.kind == "fanout":
        # All of it belongs to one run.
        return removal.fanout(place)
    payloads = [job.payload for job in jobs]
    batches = (payloads[first : first + AT_ONCE] for first in range(0, len(payloads), AT_ONCE))
    # Those of a later batch move to lower indexes, not below the first one.
    return sum(removal.jobs(place, start, elements + PUSHED_SINCE, batch) for batch in batches)


def new_mark() -> str:
    """Make a text that is unlike each payload."""
    return secrets.token_hex(12)


def removed(reply: Any) -> int:
    """Read how many jobs were removed.

    Raises:
      WrongType: if a key that is needed holds another type.
    """
    if isinstance(reply, int):
        return reply
    raise wrong_type(reply[1], ", so the jobs of a run cannot be removed")
