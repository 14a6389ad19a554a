"""The sorted sets: ``schedule``, ``retry`` and ``dead``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

from ..wire.lifetimes import DEAD_TIMEOUT
from ..wire.payload_fields import queue_of
from . import keys, scripts
from .connection import Connection
from .needs import NO_NEEDS, Needs
from .outcomes import Operation, read_written

#: ``dead`` keeps that many jobs (Sidekiq's ``config.rb``), for DEAD_TIMEOUT.
DEAD_MAX_JOBS = 10_000

#: Whose members become due.
WAITING = (keys.SCHEDULE, keys.RETRY)

#: Bytes after which one look takes no further due member of a set.
MAX_DUE_BYTES = 1024 * 1024


@attrs.frozen
class Promotion:
    """What becomes of one due member: a queue and payload, or ``dead`` (queue None)."""

    member: bytes
    queue: str | None
    payload: bytes


def fail(
    member: str,
    receipt: str,
    action: Literal["retry", "dead", "discard"],
    *,
    now: float,
    at: float = 0.0,
    payload: bytes = b"",
    needs: Needs = NO_NEEDS,
) -> Operation[None]:
    """Move a failed job out of flight (``fail.lua``).

    Parameters:
      action: ``retry`` is due at epoch seconds ``at``; ``discard`` drops the job.
      needs: Kept alive with it.

    Raises, when its reply is read:
      WrongType: if ``retry`` or ``dead`` is not a sorted set.
    """
    destination = keys.RETRY if action == "retry" else keys.DEAD
    score = repr(at if action == "retry" else now)
    command = scripts.FAIL.command(
        (keys.in_flight(member), destination, *needs.keys),
        (receipt, action, score, payload, repr(now - DEAD_TIMEOUT), DEAD_MAX_JOBS, needs.ttl),
    )
    return Operation(command, read_written)


@attrs.frozen
class Due:
    """What one look at ``schedule`` or ``retry`` found.

    Attributes:
      members: Those that are due.
      wait: Seconds until the next one is due, where none is; None where there is none.
      wrong_type: What the key holds instead of a sorted set.
    """

    members: list[bytes] = attrs.field(factory=list)
    wait: float | None = None
    wrong_type: str = ""


def due(connection: Connection, limit: int, skip: Mapping[str, int]) -> dict[str, Due]:
    """Look at ``schedule`` and ``retry``, by Redis's clock; one command.

    Parameters:
      limit: The most members of each.
      skip: How many due members of each to pass over.
    """
    now, *replies = connection.call(
        *scripts.DUE.command(WAITING, (limit, MAX_DUE_BYTES, *(skip.get(name, 0) for name in WAITING)))
    )
    return {name: _due(float(now), *reply) for name, reply in zip(WAITING, replies)}


def _due(now: float, kind: bytes, found: Any) -> Due:
    if kind == b"DUE":
        return Due(found)
    if kind == b"TYPE":
        return Due(wrong_type=found.decode())
    return Due(wait=float(found) - now if found else None)


@attrs.frozen
class Promoted:
    """What became of a batch of due members.

    Attributes:
      moved: How many left the set.
      misplaced: The indices of those whose queue is not a list; they stayed.
      stuck: Of those that stay because ``dead``, ``queues`` or the set is of another type.
    """

    moved: int
    misplaced: list[int]
    stuck: list[int]


def promote(connection: Connection, name: str, now: float, promotions: Sequence[Promotion]) -> Promoted:
    """Move due members to their queues, or to ``dead``."""
    moved, misplaced, stuck = connection.call(*_promote_command(name, now, promotions))
    return Promoted(moved, [index - 1 for index in misplaced], [index - 1 for index in stuck])


def _promote_command(name: str, now: float, promotions: Sequence[Promotion]) -> scripts.Command:
    queue_keys: list[str] = []
    members: list[scripts.Argument] = []
    for promotion in promotions:
        queue = promotion.queue or ""
        queue_keys.append(keys.queue(queue))
        members += (promotion.member, queue, promotion.payload)
    return scripts.PROMOTE.command((name, keys.DEAD, keys.QUEUES, *queue_keys), (repr(now), *members))


def claim_upkeep(connection: Connection, seconds: int) -> tuple[float, float] | None:
    """Claim the upkeep of ``dead`` for this process.

    Returns:
      The score to start from and Redis's time, or None where another process
      was here within so many seconds.
    """
    if connection.call("SET", keys.UPKEEP, 1, "NX", "EX", seconds) is None:
        return None
    cursor, now = connection.send([("GET", keys.UPKEEP_DEAD), ("TIME",)])
    try:
        start = float(cursor or 0)
    except (TypeError, ValueError):
        start = 0.0
    return (start if math.isfinite(start) else 0.0), float(now[0])


def dead_since(connection: Connection, score: float, skip: int, limit: int) -> list[tuple[bytes, float]]:
    """Members of ``dead`` from a score on, lowest first."""
    return _scored(connection.call("ZRANGEBYSCORE", keys.DEAD, repr(score), "+inf", "WITHSCORES", "LIMIT", skip, limit))


def upkept(connection: Connection, start: float) -> None:
    """Remember the score from which the next upkeep of ``dead`` starts."""
    connection.call("SET", keys.UPKEEP_DEAD, repr(start), "EX", DEAD_TIMEOUT)


def members(connection: Connection, name: str) -> list[tuple[bytes, float]]:
    """All of a set, lowest score first.  For reading by people and tests."""
    return _scored(connection.call("ZRANGE", name, 0, -1, "WITHSCORES"))


def _scored(reply: Any) -> list[tuple[bytes, float]]:
    if reply and not isinstance(reply[0], list):  # RESP2 answers with a flat list
        reply = zip(reply[::2], reply[1::2])
    return [(member, float(score)) for member, score in reply]


def members_of(connection: Connection, name: str, queue: str) -> list[bytes]:
    """The members of a set that go to a queue."""
    return [member for member, _ in members(connection, name) if queue_of(member) == queue]


def remove(connection: Connection, name: str, found: Sequence[bytes]) -> None:
    """Take members out of a set."""
    if found:
        connection.call("ZREM", name, *found)
