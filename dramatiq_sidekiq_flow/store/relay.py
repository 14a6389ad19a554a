"""Runs whose steps travel on another broker: what Redis keeps of them.

The barriers are the same as any run's.  Beside them is ``BARRIER:f``: which
unit released a barrier whose continuation may not have been enqueued yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..wire.payload import RELEASED_TTL
from . import keys, scripts
from .connection import Connection
from .runs import NOTHING, Walk, Writes
from .scripts import Command
from .sets import DEAD_MAX_JOBS, DEAD_TIMEOUT

#: What the marker of a run holds once its first steps were enqueued.
ENQUEUED = b"enqueued"


def count(
    unit: str,
    walk: Sequence[Walk],
    *,
    ttl: int,
    memory: tuple[str, int] = ("", 0),
    fields: Mapping[str, bytes] = {},
    planned: int = 0,
    elsewhere: bool = False,
    plan: Writes = NOTHING,
) -> Command:
    """The command that counts a finished step; reply of ``count.lua``.

    Parameters:
      unit: The message id.
      walk, ttl, memory, fields, planned: As for :func:`runs.advance`.
      elsewhere: Something of the plan goes to the other broker.
      plan: What goes to Sidekiq's queues, and the barriers.
    """
    names = [key for entry in walk for key in (*keys.barrier(entry.barrier), keys.fired(entry.barrier))]
    flat = [part for pair in fields.items() for part in pair]
    return scripts.COUNT.command(
        (memory[0], keys.QUEUES, keys.SCHEDULE, *names, *plan.keys),
        (
            unit,
            ttl,
            memory[1],
            len(fields),
            *flat,
            len(walk),
            *(entry.kind for entry in walk),
            planned,
            int(elsewhere),
            *plan.arguments,
        ),
    )


def fired(walk: Sequence[Walk]) -> Command:
    """The command that says: the continuation of the last of ``walk`` is enqueued."""
    names = [key for entry in walk for key in (*keys.barrier(entry.barrier)[:2], keys.fired(entry.barrier))]
    return scripts.FIRED.command(names, (RELEASED_TTL,))


def bury(payload: bytes, *, now: float, barriers: Iterable[str], also: Iterable[str] = (), ttl: int) -> Command:
    """The command that puts a step that failed for good into ``dead``; reply of ``bury.lua``."""
    alive = [*(key for barrier in barriers for key in keys.barrier(barrier)), *also]
    return scripts.BURY.command((keys.DEAD, *alive), (repr(now), payload, repr(now - DEAD_TIMEOUT), DEAD_MAX_JOBS, ttl))


def is_enqueued(connection: Connection, run_id: str) -> bool:
    """Whether the first steps of a run were enqueued."""
    return bool(connection.call("GET", keys.run(run_id)) == ENQUEUED)


def enqueued(connection: Connection, run_id: str) -> None:
    """Say that the first steps of a run were enqueued."""
    connection.call("SET", keys.run(run_id), ENQUEUED, "XX", "KEEPTTL")
