"""Which workers live, and what the dead ones left in flight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ..errors import WrongType
from ..wire.payload import Payload
from . import keys, scripts
from .connection import Connection

#: A job recovered that often within that time is a poison pill (the numbers
#: of Sidekiq Pro's super_fetch).
MAX_RECOVERIES = 3
RECOVERY_WINDOW = 72 * 3600

#: A suspect that still runs after this, in seconds, keeps no other back.
TRIAL_TIME = 60

#: The dead that one beat names at most (``beat.lua``).
DEAD_AT_ONCE = 16


@attrs.frozen
class Beat:
    """What a process hears when it beats.

    Attributes:
      dead: Members without a beat for too long, at most :data:`DEAD_AT_ONCE`.
      more: Members of this process that have more in flight than they hold.
      fanouts: Committed fan-outs are not pushed to the end (``store.fanouts``).
    """

    dead: list[bytes]
    more: list[str]
    fanouts: bool


@attrs.frozen
class Orphan:
    """A job in flight whose worker is dead, and what would go to ``dead``; ``job`` where it can be read."""

    receipt: bytes
    jid: str
    corpse: bytes
    job: Payload | None = None


@attrs.frozen
class Recovery:
    """What became of a dead worker's jobs.

    Attributes:
      back: How many are in their queue again.
      waiting: How many wait for a trial.
      dead: Those that are poison pills.
      kept: Those that stay in flight, since ``dead`` is not a sorted set.
    """

    back: int = 0
    waiting: int = 0
    dead: tuple[Orphan, ...] = ()
    kept: tuple[Orphan, ...] = ()


def beat(connection: Connection, held: Mapping[str, int | None], timeout: float, *, skip: int = 0) -> Beat:
    """Record a beat of this process's members, by Redis's clock.

    Parameters:
      held: Member -> how many jobs it holds; None where that is not known.
      skip: How many of the dead to pass over.
    """
    flat = [part for member, count in held.items() for part in (member, "" if count is None else count)]
    dead, more, fanouts = connection.call(*scripts.BEAT.command((keys.WORKERS,), (repr(timeout), skip, *flat)))
    return Beat(dead, [member.decode() for member in more], bool(fanouts))


def begin(connection: Connection, member: str, receipt: str) -> bool:
    """Mark a job that was fetched ahead as begun; its receipt loses its ``?``.

    Returns:
      False if the job has left flight here.
    """
    return bool(_checked(connection.call(*scripts.BEGIN.command((keys.in_flight(member),), (receipt,)))))


def receipts(connection: Connection, member: str) -> list[bytes]:
    """The receipts of all that a member has in flight."""
    found: list[bytes] = connection.call("HKEYS", keys.in_flight(member))
    return found


def idle(connection: Connection, members: Sequence[str]) -> list[str]:
    """Those members that have nothing in flight."""
    replies = connection.send([("HLEN", keys.in_flight(member)) for member in members]) if members else []
    return [member for member, reply in zip(members, replies) if reply == 0]


def payloads(connection: Connection, member: str, of: Sequence[bytes]) -> list[bytes | None]:
    """The payloads of some receipts; None where one has left flight."""
    found: list[bytes | None] = connection.call("HMGET", keys.in_flight(member), *of)
    return found


def recover(
    connection: Connection, member: str, orphans: Sequence[Orphan], *, timeout: float, now: float
) -> Recovery | None:
    """Put a dead worker's jobs back, or into ``dead``, or let them wait for a trial.

    Parameters:
      orphans: Those to be taken next come last.

    Returns:
      None where the worker turns out to live.

    Raises:
      WrongType: if the in-flight hash or the queue is of another type.
    """
    reply = _checked(connection.call(*_recover_command(member, orphans, timeout, now)))
    if reply[0] != b"DONE":
        return None
    _, back, _, waiting, dead, kept = reply
    return Recovery(back, waiting, tuple(orphans[i - 1] for i in dead), tuple(orphans[i - 1] for i in kept))


def _recover_command(member: str, orphans: Sequence[Orphan], timeout: float, now: float) -> scripts.Command:
    queue = keys.queue(keys.queue_of(member))
    counters = [keys.recovered(orphan.jid) for orphan in orphans]
    jobs: list[scripts.Argument] = []
    for orphan in orphans:
        jobs += (orphan.receipt, orphan.corpse)
    return scripts.RECOVER.command(
        (keys.WORKERS, keys.in_flight(member), queue, keys.DEAD, *counters),
        (member, repr(timeout), MAX_RECOVERIES, RECOVERY_WINDOW, repr(now), *jobs),
    )


def try_suspect(connection: Connection, dead: str, member: str, base: str, *, timeout: float) -> bytes | str | None:
    """Take one suspect of a dead worker into flight, as ``BASE:1?``.  Safe to repeat with the same base.

    Parameters:
      dead: The member whose hash holds it.
      member: The own member of the same queue.

    Returns:
      The payload; "wait" while another trial runs; None where there is nothing to try.

    Raises:
      WrongType: if a key of either worker is of another type.
    """
    queue_name = keys.queue_of(member)
    reply = _checked(
        connection.call(
            *scripts.TRIAL.command(
                (keys.WORKERS, keys.in_flight(dead), keys.in_flight(member), keys.trial(queue_name), keys.PAUSED),
                (dead, member, queue_name, repr(timeout), base, TRIAL_TIME),
            )
        )
    )
    if reply[0] == b"TRIAL":
        payload: bytes = reply[1]
        return payload
    return "wait" if reply[0] == b"WAIT" else None


def deregister(connection: Connection, members: Sequence[str]) -> None:
    """Forget members that shut down with nothing in flight."""
    if members:
        connection.call("ZREM", keys.WORKERS, *members)


def _checked(reply: Any) -> Any:
    if isinstance(reply, list) and reply[0] == b"TYPE":
        key = reply[1]
        raise WrongType(f"The Redis key {key.decode('utf-8', 'replace')!r} holds another type. Remove it.", key)
    return reply
