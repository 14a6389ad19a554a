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
from .outcomes import Operation, read_unless_staged
from .runs import NOTHING, Writes
from .step_records import NO_DEATH, Death

#: Number of jobs that ``dead`` keeps, for DEAD_TIMEOUT (Sidekiq's ``config.rb``).
DEAD_MAX_JOBS = 10_000

#: The sets whose members become due.
WAITING = (keys.SCHEDULE, keys.RETRY)

#: Maximum bytes of due members that one look reads per set, besides the first member.
MAX_DUE_BYTES = 1024 * 1024


@attrs.frozen
class Promotion:
    """Target of one due member: a queue and the payload to push, or ``dead`` (queue None)."""

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
    death: Death = NO_DEATH,
    plan: Writes = NOTHING,
) -> Operation[bool]:
    """Move a failed job out of flight (``fail.lua``); False if the plan must be staged again, and nothing is written.

    Parameters:
      action: ``retry`` is due at epoch seconds ``at``; ``discard`` deletes the job.
      needs: Keys to keep alive for the job.
      plan: The jobs that take the place of a step that is dead or discarded; NOTHING if none do.

    Raises, when its reply is read:
      WrongType: if ``retry`` or ``dead`` is not a sorted set.
    """
    destination = keys.RETRY if action == "retry" else keys.DEAD
    score = repr(at if action == "retry" else now)
    command = scripts.FAIL.command(
        (keys.in_flight(member), destination, death.key, *needs.keys, *plan.keys),
        (
            receipt,
            action,
            score,
            payload,
            repr(now - DEAD_TIMEOUT),
            DEAD_MAX_JOBS,
            needs.ttl,
            death.number,
            death.failure,
            *places(needs, death, plan),
        ),
    )
    return Operation(command, read_unless_staged)


def places(needs: Needs, death: Death, plan: Writes) -> tuple[scripts.Argument, ...]:
    """The last arguments of the scripts that bury a step, if others take its place; none if not."""
    return () if plan is NOTHING else (len(needs.keys), death.ran, *plan.arguments)


def replace_dead(member: bytes, payload: bytes, *, needs: Needs, death: Death, plan: Writes) -> Operation[bool]:
    """Let others take the place of a step in ``dead`` (``replace_dead.lua``).

    Parameters:
      member: The step, as it is in ``dead``.
      payload: The same without its callback stack.
      needs: Keys to keep alive for the run.

    Returns:
      False if the plan must be staged again, and nothing is written.

    Raises, when its reply is read:
      WrongType: if a key that it needs holds another type.
    """
    command = scripts.REPLACE_DEAD.command(
        (keys.DEAD, death.key, *needs.keys, *plan.keys),
        (
            member,
            payload,
            len(needs.keys),
            needs.ttl,
            death.number,
            death.failure,
            death.ran,
            *plan.arguments,
        ),
    )
    return Operation(command, read_unless_staged)


@attrs.frozen
class Due:
    """Due members of ``schedule`` or ``retry``.

    Attributes:
      members: The due members.
      wait: Seconds until the next member is due; None if a member is due now, or the set is empty.
      wrong_type: Type of the key if it is not a sorted set, else "".
    """

    members: list[bytes] = attrs.field(factory=list)
    wait: float | None = None
    wrong_type: str = ""


def due(connection: Connection, limit: int, skip: Mapping[str, int]) -> dict[str, Due]:
    """Read the due members of ``schedule`` and ``retry``, by Redis's clock, in one command.

    Parameters:
      limit: Maximum number of members of each set.
      skip: Number of due members of each set to skip.
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
    """Result of a batch of promotions.

    Attributes:
      moved: Number of members that left the set.
      misplaced: Indices of members that stay because their queue is not a list.
      stuck: Indices of members that stay because ``dead``, ``queues`` or the set holds another type.
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


def claim_keeping(connection: Connection, identity: str, seconds: int) -> bool:
    """Become the keeper for some seconds; return False if another process is."""
    return connection.call("SET", keys.KEEPER, identity, "NX", "EX", seconds) is not None


@attrs.frozen
class Keeping:
    """What the keeper finds to do.

    Attributes:
      dead: Number of members of ``dead`` from its position on.
      runs: Number of runs that rest or have a deadline.
    """

    dead: int
    runs: int


def renew_keeping(connection: Connection, identity: str, seconds: int) -> Keeping | None:
    """Stay the keeper for some more seconds (``keep.lua``); None if another process is."""
    names = (keys.KEEPER, keys.KEEPER_DEAD, keys.DEAD, keys.RESTING, keys.DEADLINES)
    kind, *counts = connection.call(*scripts.KEEP.command(names, (identity, seconds)))
    return Keeping(*counts) if kind == b"KEEPER" else None


def end_keeping(connection: Connection, identity: str) -> None:
    """Let another process become the keeper."""
    if connection.call("GET", keys.KEEPER) == identity.encode():
        connection.call("UNLINK", keys.KEEPER)


def dead_position(connection: Connection) -> tuple[float, float]:
    """Read the score in ``dead`` from which the keeper continues, and Redis's time."""
    cursor, now = connection.send([("GET", keys.KEEPER_DEAD), ("TIME",)])
    try:
        start = float(cursor or 0)
    except (TypeError, ValueError):
        start = 0.0
    return (start if math.isfinite(start) else 0.0), float(now[0])


def dead_since(connection: Connection, score: float, skip: int, limit: int) -> list[tuple[bytes, float]]:
    """Read members of ``dead`` from a score on, lowest first."""
    return scored(connection.call("ZRANGEBYSCORE", keys.DEAD, repr(score), "+inf", "WITHSCORES", "LIMIT", skip, limit))


def keep_dead_position(connection: Connection, start: float) -> None:
    """Store the score in ``dead`` from which the keeper continues."""
    connection.call("SET", keys.KEEPER_DEAD, repr(start), "EX", DEAD_TIMEOUT)


def members(connection: Connection, name: str) -> list[tuple[bytes, float]]:
    """Read a whole set, lowest score first.  For commands and tests."""
    return scored(connection.call("ZRANGE", name, 0, -1, "WITHSCORES"))


def scored(reply: Any) -> list[tuple[bytes, float]]:
    """Read members with scores: flat over RESP2, pairs over RESP3."""
    if reply and not isinstance(reply[0], list):
        reply = zip(reply[::2], reply[1::2])
    return [(member, float(score)) for member, score in reply]


def members_of(connection: Connection, name: str, queue: str) -> list[bytes]:
    """Read the members of a set that belong to a queue."""
    return [member for member, _ in members(connection, name) if queue_of(member) == queue]


def remove(connection: Connection, name: str, found: Sequence[bytes]) -> None:
    """Remove members from a set."""
    if found:
        connection.call("ZREM", name, *found)
