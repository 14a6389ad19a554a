"""Lists of runs, by state, template, tag and time of the start."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence

import attrs

from ..errors import UnknownRun, shortened
from ..store import keys, run_lists, run_records
from ..store.connection import Connection
from ..store.run_lists import Position
from ..store.run_records import RecordHead


@attrs.frozen
class Filter:
    """Filter of a list.

    Attributes:
      since: Earliest start in epoch seconds.
      after: Id of the run behind which the list begins.
    """

    state: str | None = None
    template: str | None = None
    tag: str | None = None
    since: float | None = None
    after: str | None = None

    @property
    def indexes(self) -> list[str]:
        """The indexes that a run must be in; one of those of all states without any."""
        found = []
        if self.template is not None:
            found.append(keys.runs_of_template(self.template))
        if self.tag is not None:
            found.append(keys.runs_with_tag(self.tag))
        if self.state is not None:
            found.append(keys.runs_in(self.state))
        return found


def page(connection: Connection, wanted: Filter, limit: int) -> list[RecordHead]:
    """Read a page of records, the newest first; removes runs whose records have expired from the indexes.

    Raises:
      UnknownRun: if the run behind which the page begins is gone.
      WrongType: if an index or a record holds another type.
    """
    found: list[RecordHead] = []
    candidates = _candidates(connection, wanted)
    while len(found) < limit:
        # One more, so that most pages need one round trip.
        ids = [position.run_id for position in itertools.islice(candidates, limit - len(found))]
        if not ids:
            break
        # A run that has just changed its state is in the index of both, or was read in the other one.
        found += [head for head in _heads(connection, wanted, ids) if wanted.state in (None, head.state)]
    return found


def _heads(connection: Connection, wanted: Filter, ids: Sequence[str]) -> list[RecordHead]:
    """Read records; removes runs whose records have expired from the indexes."""
    heads = run_records.read_heads(connection, ids)
    gone = [run_id for run_id, head in zip(ids, heads) if head is None]
    run_lists.forget(connection, wanted.indexes or _all_states(), gone)
    return [head for head in heads if head is not None]


def all_of(connection: Connection, wanted: Filter) -> list[RecordHead]:
    """Read all records of a filter, the newest first; a run may have changed its state meanwhile.

    Raises:
      WrongType: as :func:`page`.
    """
    found: list[RecordHead] = []
    candidates = _candidates(connection, wanted)
    while ids := [position.run_id for position in itertools.islice(candidates, run_lists.PAGE)]:
        found += [head for head in run_records.read_heads(connection, ids) if head is not None]
    return found


def _all_states() -> list[str]:
    return [keys.runs_in(state) for state in run_records.STATES]


def _candidates(connection: Connection, wanted: Filter) -> Iterator[Position]:
    """Yield the runs that are in all indexes of a filter."""
    indexes, after = wanted.indexes, _after(connection, wanted)
    if not indexes:
        return _merged(connection, after, wanted.since)
    if len(indexes) == 1:
        return run_lists.newest(connection, indexes[0], after, wanted.since)
    smallest, *others = run_lists.by_size(connection, indexes)
    return _in_all(connection, run_lists.newest(connection, smallest, after, wanted.since), others)


def _after(connection: Connection, wanted: Filter) -> Position | None:
    """Find the run after which a page begins; None if it begins with the newest."""
    if wanted.after is None:
        return None
    after = run_lists.position_of(connection, wanted.after, wanted.indexes or _all_states())
    if after is None:
        raise UnknownRun(
            f"The run {shortened(wanted.after)}, after which the list should continue, has no record any more. "
            "Begin again without after=.",
            wanted.after,
        )
    return after


def _merged(connection: Connection, after: Position | None, since: float | None) -> Iterator[Position]:
    """Yield the runs of all states, each once."""
    states = [run_lists.newest(connection, index, after, since) for index in _all_states()]
    merged = heapq.merge(*states, key=run_lists.order, reverse=True)
    # A run may have changed its state between two reads.
    for _, same in itertools.groupby(merged, key=run_lists.order):
        yield next(same)


def _in_all(connection: Connection, runs: Iterator[Position], others: Sequence[str]) -> Iterator[Position]:
    while True:
        some = list(itertools.islice(runs, run_lists.PAGE))
        if not some:
            return
        for index in others:
            inside = run_lists.contains(connection, index, [position.run_id for position in some])
            some = [position for position, found in zip(some, inside) if found]
        yield from some
