"""Heartbeats of workers, and recovery of the jobs that dead workers left in flight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ..wire.payload import Payload
from . import keys, scripts
from .connection import Caller, Connection
from .outcomes import wrong_type

#: A job recovered this many times within the window (seconds) is a poison pill.
#: The numbers are those of Sidekiq Pro's super_fetch.
MAX_RECOVERIES = 3
RECOVERY_WINDOW = 72 * 3600

#: Seconds after which a suspect that still runs no longer blocks the next trial.
TRIAL_TIME = 60

#: Maximum number of dead members in one reply of ``beat.lua``.
DEAD_AT_ONCE = 16


@attrs.frozen
class Beat:
    """Reply to a heartbeat.

    Attributes:
      dead: Members whose last beat is older than the timeout, at most :data:`DEAD_AT_ONCE`.
      more: Members of this process that have more jobs in flight than they hold.
      fanouts: True if committed fan-outs still have jobs to push (``store.fanouts``).
    """

    dead: list[bytes]
    more: list[str]
    fanouts: bool


@attrs.frozen
class InFlightJob:
    """A job in flight of a dead worker.

    Attributes:
      dead_payload: The payload to write to ``dead`` if the job is a poison pill.
      payload: The decoded payload; None if it cannot be decoded.
    """

    receipt: bytes
    jid: str
    dead_payload: bytes
    payload: Payload | None = None


@attrs.frozen
class RecoveryResult:
    """Result of the recovery of a dead worker's jobs.

    Attributes:
      back: Number of jobs put back into their queue.
      waiting: Number of suspects that wait for a trial.
      dead: Poison pills, moved to ``dead``.
      kept: Poison pills that stay in flight because ``dead`` is not a sorted set.
    """

    back: int = 0
    waiting: int = 0
    dead: tuple[InFlightJob, ...] = ()
    kept: tuple[InFlightJob, ...] = ()


def beat(connection: Connection, held: Mapping[str, int | None], timeout: float, *, skip: int = 0) -> Beat:
    """Record a beat of this process's members, by Redis's clock.

    Parameters:
      held: Member -> number of jobs that it holds; None if unknown.
      skip: Number of dead members to skip.
    """
    flat = [part for member, count in held.items() for part in (member, "" if count is None else count)]
    dead, more, fanouts = connection.call(*scripts.BEAT.command((keys.WORKERS,), (repr(timeout), skip, *flat)))
    return Beat(dead, [member.decode() for member in more], bool(fanouts))


def begin(connection: Caller, member: str, receipt: str) -> bool:
    """Mark a job that was fetched ahead as begun; its receipt loses its ``?``.

    Returns:
      False if the job has left flight here.
    """
    return bool(_checked(connection.call(*scripts.BEGIN.command((keys.in_flight(member),), (receipt,)))))


def receipts(connection: Connection, member: str) -> list[bytes]:
    """Get the receipts of all jobs that a member has in flight."""
    found: list[bytes] = connection.call("HKEYS", keys.in_flight(member))
    return found


def idle(connection: Connection, members: Sequence[str]) -> list[str]:
    """Get the members that have nothing in flight."""
    replies = connection.send([("HLEN", keys.in_flight(member)) for member in members]) if members else []
    return [member for member, reply in zip(members, replies) if reply == 0]


def payloads(connection: Connection, member: str, of: Sequence[bytes]) -> list[bytes | None]:
    """Get the payloads of receipts; None for each that has left flight."""
    found: list[bytes | None] = connection.call("HMGET", keys.in_flight(member), *of)
    return found


def recover(
    connection: Connection, member: str, jobs: Sequence[InFlightJob], *, timeout: float, now: float
) -> RecoveryResult | None:
    """Move a dead worker's jobs back to their queue or to ``dead``, or mark them to wait for a trial.

    Parameters:
      jobs: The jobs; the last one is taken first.

    Returns:
      None if the worker is alive after all.

    Raises:
      WrongType: if the in-flight hash or the queue holds another type.
    """
    reply = _checked(connection.call(*_recover_command(member, jobs, timeout, now)))
    if reply[0] != b"DONE":
        return None
    _, back, _, waiting, dead, kept = reply
    return RecoveryResult(back, waiting, tuple(jobs[i - 1] for i in dead), tuple(jobs[i - 1] for i in kept))


def _recover_command(member: str, jobs: Sequence[InFlightJob], timeout: float, now: float) -> scripts.Command:
    queue = keys.queue(keys.queue_of(member))
    counters = [keys.recovered(job.jid) for job in jobs]
    arguments: list[scripts.Argument] = []
    for job in jobs:
        arguments += (job.receipt, job.dead_payload)
    return scripts.RECOVER.command(
        (keys.WORKERS, keys.in_flight(member), queue, keys.DEAD, *counters),
        (member, repr(timeout), MAX_RECOVERIES, RECOVERY_WINDOW, repr(now), *arguments),
    )


def try_suspect(connection: Connection, dead: str, member: str, base: str, *, timeout: float) -> bytes | str | None:
    """Take one suspect of a dead worker into flight, as ``BASE:1?``.  Safe to repeat with the same base.

    Parameters:
      dead: The dead member whose in-flight hash holds the suspect.
      member: This process's member of the same queue.

    Returns:
      The payload; "wait" while another trial runs; None if no suspect is left.

    Raises:
      WrongType: if a key of either worker holds another type.
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
    """Remove members that shut down with nothing in flight."""
    if members:
        connection.call("ZREM", keys.WORKERS, *members)


def _checked(reply: Any) -> Any:
    if isinstance(reply, list) and reply[0] == b"TYPE":
        raise wrong_type(reply[1])
    return reply
