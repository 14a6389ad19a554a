"""Lists of runs, by state, template or tag: sorted sets of run ids by start time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from . import keys
from .connection import FAULTS, Connection
from .run_records import check_type, read_seconds, read_text
from .scripts import Command
from .sets import scored

#: Ids of a list that are read at once.
PAGE = 500


@attrs.frozen
class Position:
    """Place of a run in an index: its start in epoch seconds, and its id."""

    started: float
    run_id: str


def position_of(connection: Connection, run_id: str, indexes: Sequence[str]) -> Position | None:
    """Find the place of a run in one of these indexes, or by its record; None if it is in neither."""
    commands: list[Command] = [("ZSCORE", index, run_id) for index in indexes]
    commands.append(("HGET", keys.record(run_id), "started"))
    for reply in connection.send(commands):
        # A score is a number over RESP3.
        text = read_text(reply) if isinstance(reply, bytes) else str(reply)
        started = None if isinstance(reply, Exception) else read_seconds(text)
        if started is not None:
            return Position(started, run_id)
    return None


def newest(connection: Connection, index: str, after: Position | None, since: float | None) -> Iterator[Position]:
    """Yield the runs of an index, the newest first; equal starts by id, the last one first.

    Parameters:
      after: Only the runs behind this one.
      since: Only the runs that started then or later, in epoch seconds.
    """
    least = "-inf" if since is None else repr(since)
    most = "+inf" if after is None else repr(after.started)
    limit = after
    for position in _downwards(connection, index, most, least):
        if limit is None or order(position) < order(limit):
            yield position
            limit = position


def _downwards(connection: Connection, index: str, most: str, least: str) -> Iterator[Position]:
    """Yield the runs of an index in a range of scores, some of them twice.

    A run may be added or removed between two pages: the next one begins at the score of
    the last.
    """
    offset, last = 0, most
    while True:
        command = ("ZREVRANGEBYSCORE", index, last, least, "WITHSCORES", "LIMIT", offset, PAGE)
        found = _scored(index, connection.send([command])[0])
        yield from found
        if len(found) < PAGE:
            return
        at_end = repr(found[-1].started)
        offset = offset + PAGE if at_end == last else 0
        last = at_end


def order(position: Position) -> tuple[float, bytes]:
    """Sort key of a run in an index."""
    return position.started, position.run_id.encode("utf-8", "surrogateescape")


def by_size(connection: Connection, indexes: Sequence[str]) -> list[str]:
    """Sort indexes by their numbers of runs, the smallest first."""
    sizes = connection.send([("ZCARD", index) for index in indexes])
    for index, size in zip(indexes, sizes):
        check_type(index, size)
    return [index for _, index in sorted(zip(sizes, indexes))]


def contains(connection: Connection, index: str, run_ids: Sequence[str]) -> list[bool]:
    """Return, for each run, whether it is in an index."""
    if not run_ids:
        return []
    reply = connection.send([("ZMSCORE", index, *run_ids)])[0]
    check_type(index, reply)
    return [score is not None for score in reply]


def forget(connection: Connection, indexes: Sequence[str], run_ids: Sequence[str]) -> None:
    """Remove runs whose records have expired from indexes.  Does nothing if the Redis user may not write."""
    if run_ids and indexes:
        with contextlib.suppress(*FAULTS):
            connection.send([("ZREM", index, *run_ids) for index in indexes])


def _scored(index: str, reply: Any) -> list[Position]:
    check_type(index, reply)
    return [Position(score, read_text(name)) for name, score in scored(reply)]
