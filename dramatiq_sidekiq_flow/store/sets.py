"""The sorted sets: ``schedule``, ``retry`` and ``dead``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from . import keys, scripts
from .connection import Connection
from .scripts import Command

#: ``dead`` keeps that many jobs, for that long (Sidekiq's ``config.rb``).
DEAD_MAX_JOBS = 10_000
DEAD_TIMEOUT = 180 * 86_400


@attrs.frozen
class Promotion:
    """What becomes of one due member: a queue and payload, or ``dead`` (queue None)."""

    member: bytes
    queue: str | None
    payload: bytes


def fail(
    member: str,
    receipt: str,
    action: str,
    *,
    now: float,
    at: float = 0.0,
    payload: bytes = b"",
    barriers: Iterable[str] = (),
    also: Iterable[str] = (),
    ttl: int = 0,
) -> Command:
    """The command that moves a failed job out of flight.

    Parameters:
      action: ``retry`` (due at epoch seconds ``at``), ``dead`` or ``discard``.
      barriers: Of the job's stack: kept alive for ``ttl`` seconds.
      also: Other keys to keep alive as long: of the run's memory, of stored chains.
    """
    destination = keys.RETRY if action == "retry" else keys.DEAD
    alive = [key for barrier in barriers for key in keys.barrier(barrier)]
    alive += also
    score = repr(at if action == "retry" else now)
    return scripts.FAIL.command(
        (keys.in_flight(member), destination, *alive),
        (receipt, action, score, payload, repr(now - DEAD_TIMEOUT), DEAD_MAX_JOBS, ttl),
    )


def due(connection: Connection, name: str, now: float, limit: int = 100) -> list[bytes]:
    """Members of ``schedule`` or ``retry`` whose time has come."""
    members: list[bytes] = connection.call("ZRANGEBYSCORE", name, "-inf", repr(now), "LIMIT", 0, limit)
    return members


def promote(connection: Connection, name: str, now: float, promotions: Sequence[Promotion]) -> tuple[int, list[int]]:
    """Move due members to their queues, or to ``dead``.

    Returns:
      How many were moved, and the indices of those whose queue is no list,
      which stayed.
    """
    queue_keys = [keys.queue(p.queue or "") for p in promotions]
    flat = [part for p in promotions for part in (p.member, p.queue or "", p.payload)]
    moved, *stuck = connection.call(
        *scripts.PROMOTE.command((name, keys.DEAD, keys.QUEUES, *queue_keys), (repr(now), *flat))
    )
    return moved, [index - 1 for index in stuck]


def next_due(connection: Connection) -> float | None:
    """When the next member of ``schedule`` or ``retry`` is due, in epoch seconds."""
    scores = []
    for reply in connection.send(
        [("ZRANGE", name, 0, 0, "WITHSCORES") for name in (keys.SCHEDULE, keys.RETRY)],
    ):
        if isinstance(reply, list) and reply:
            last = reply[0][1] if isinstance(reply[0], list) else reply[1]
            scores.append(float(last))
    return min(scores, default=None)


def members(connection: Connection, name: str) -> list[tuple[bytes, float]]:
    """All of a set, lowest score first.  For reading by people and tests."""
    reply = connection.call("ZRANGE", name, 0, -1, "WITHSCORES")
    if reply and not isinstance(reply[0], list):  # RESP2 answers with a flat list
        reply = zip(reply[::2], reply[1::2])
    return [(member, float(score)) for member, score in reply]


def remove(connection: Connection, name: str, found: Sequence[bytes]) -> None:
    """Take members out of a set."""
    if found:
        connection.call("ZREM", name, *found)
