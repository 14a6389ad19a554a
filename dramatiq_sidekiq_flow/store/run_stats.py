"""Numbers of runs, and how long the oldest jobs wait, for monitoring."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import attrs

from ..errors import PayloadError
from ..wire import codec, payload_fields
from . import keys, run_lists, run_records
from .connection import Connection
from .scripts import Command
from .sets import scored

#: Recorded states of runs that have not ended.
OPEN = ("running", "failed", "paused")

#: The oldest runs of each state that are looked at: those whose records have expired leave the lists.
LOOKED_AT = 100


@attrs.frozen
class RunStats:
    """Numbers of runs.

    Attributes:
      counts: Recorded state -> number of runs; a few of them may have expired.
      oldest: Age of the oldest run that has not ended, in seconds; 0.0 without one.
    """

    counts: Mapping[str, int]
    oldest: float


def run_stats(connection: Connection) -> RunStats:
    """Count the runs in two round trips; removes some of those whose records have expired from the lists.

    Raises:
      redis.ResponseError: if the Redis user may not read the lists.
    """
    lists = [keys.runs_in(state) for state in run_records.STATES]
    commands: list[Command] = [("TIME",)]
    commands += [("ZCARD", name) for name in lists]
    commands += [("ZRANGE", name, 0, LOOKED_AT - 1, "WITHSCORES") for name in lists]
    now, *replies = connection.send(commands)
    found = [_List(state, _number(size)) for state, size in zip(run_records.STATES, replies)]
    for each, reply in zip(found, replies[len(lists) :]):
        each.starts = {name.decode("utf-8", "surrogateescape"): start for name, start in scored(_checked(reply))}
    _drop_expired(connection, found)
    oldest = min((each.oldest for each in found if each.state in OPEN), default=math.inf)
    return RunStats({each.state: each.size for each in found}, max(0.0, _seconds(now) - oldest))


@attrs.define
class _List:
    """The list of the runs of a state, and its oldest ones: run id -> start."""

    state: str
    size: int
    starts: dict[str, float] = attrs.field(factory=dict)

    @property
    def oldest(self) -> float:
        return min(self.starts.values(), default=math.inf)


def _drop_expired(connection: Connection, found: Sequence[_List]) -> None:
    """Remove the runs whose records have expired."""
    ids = [run_id for each in found for run_id in each.starts]
    replies = connection.send([("EXISTS", keys.record(run_id)) for run_id in ids]) if ids else []
    gone = {run_id for run_id, exists in zip(ids, replies) if exists == 0}
    for each in found:
        _drop(connection, each, gone & each.starts.keys())


def _drop(connection: Connection, runs: _List, gone: Collection[str]) -> None:
    run_lists.forget(connection, [keys.runs_in(runs.state)], list(gone))
    runs.size -= len(gone)
    for run_id in gone:
        del runs.starts[run_id]


def latencies(connection: Connection, queues: Sequence[str]) -> dict[str, float]:
    """Read for how many seconds the next job of each queue has waited; 0.0 if a queue is empty.

    Raises:
      redis.ResponseError: if the Redis user may not read the clock.
    """
    now, *jobs = connection.send([("TIME",), *(("LINDEX", keys.queue(name), -1) for name in queues)])
    return dict(zip(queues, _waits(_seconds(now), jobs)))


def paused(connection: Connection) -> frozenset[str]:
    """Read the names of the paused queues; none if the Redis user may not."""
    (reply,) = connection.send([("SMEMBERS", keys.PAUSED)])
    return frozenset() if isinstance(reply, Exception) else frozenset(keys.readable(reply))


def _waits(now: float, jobs: Iterable[Any]) -> list[float]:
    return [max(0.0, now - (_pushed(job) or now)) for job in jobs]


def _pushed(job: Any) -> float | None:
    """When a job was pushed, in epoch seconds; None if it is not known."""
    try:
        return payload_fields.seconds(codec.decode(job).get("enqueued_at")) if isinstance(job, bytes) else None
    except PayloadError:
        return None


def _seconds(time: Any) -> float:
    """Redis's time in epoch seconds."""
    seconds, micros = _checked(time)
    return float(seconds) + float(micros) / 1e6


def _checked(reply: Any) -> Any:
    """A reply; raises an error."""
    if isinstance(reply, Exception):
        raise reply
    return reply


def _number(reply: Any) -> int:
    return reply if isinstance(reply, int) else 0
