"""Fan-outs that are too large for one script: staged, committed, poured.

Staged: a list with a TTL; no run refers to it yet.  Committed: one write of the
script that starts or advances a run makes the list part of the run, of any length.
Poured: its barriers are created and its jobs pushed, one part at a time.  A crash
before the commit leaves a list that expires.  After a crash behind the commit, the
next heartbeat of any worker process continues.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from ..errors import WrongType
from ..wire.barrier import NewBarrier
from . import keys, scripts
from .connection import Connection
from .outcomes import wrong_type
from .parts import PART_BYTES, PART_ELEMENTS, PARTS_AT_ONCE, slices
from .scripts import Command

#: Seconds after which a list that is not committed expires.
STAGE_TTL = 3600

#: Parts staged in one write.  The server runs each one when it has arrived, and serves others in between.
STAGED_AT_ONCE = 16

_MULTI: Command = ("MULTI",)
_EXEC: Command = ("EXEC",)


@attrs.frozen
class Fanout:
    """A staged fan-out.

    Attributes:
      length: Number of elements of its list.
      queues: Queues of its jobs; "" is ``schedule``.
    """

    id: str
    length: int
    queues: tuple[str, ...]


def stage(
    connection: Connection,
    barriers: Sequence[NewBarrier],
    pushes: Mapping[str, Sequence[bytes]],
    scheduled: Sequence[tuple[float, bytes]],
) -> Fanout:
    """Stage a plan.

    If the list vanishes while it is staged, the commit notices it.
    """
    elements = list(_elements(barriers, pushes, scheduled))
    queues = (*pushes, "") if scheduled else tuple(pushes)
    while True:
        fanout_id = secrets.token_hex(12)
        if _fill(connection, keys.fanout(fanout_id), elements):
            return Fanout(fanout_id, len(elements), queues)


def _fill(connection: Connection, list_key: str, elements: Sequence[bytes]) -> bool:
    """Write elements to a new list; return False if some may be there twice, since they were sent twice."""
    places = slices(elements)
    for first in range(0, len(places), STAGED_AT_ONCE):
        commands: list[Command] = []
        for place in places[first : first + STAGED_AT_ONCE]:
            # One transaction, so that the list never lacks its TTL.
            commands += (_MULTI, ("RPUSH", list_key, *elements[place]), ("EXPIRE", list_key, STAGE_TTL), _EXEC)
        replies, times = connection.send_counted(commands)
        _checked(replies)
        if times > 1:
            return False
    return True


def _elements(
    barriers: Sequence[NewBarrier],
    pushes: Mapping[str, Sequence[bytes]],
    scheduled: Sequence[tuple[float, bytes]],
) -> Iterator[bytes]:
    """Encode a plan as the elements that ``pour.lua`` reads."""
    for barrier in barriers:
        yield f"b{barrier.ttl} {barrier.value} {barrier.ran} {barrier.id}".encode()
    for queue, payloads in pushes.items():
        yield f"q{queue}".encode()
        yield from payloads
    for at, payload in scheduled:
        yield f"s{at!r} ".encode() + payload


def pour(connection: Connection, fanout_id: str) -> None:
    """Push the rest of a fan-out.  Does nothing before its commit.

    Raises:
      WrongType: if a queue, or a key that all queues share, holds another type.
        The rest stays in the list, and the next heartbeat tries again.
      ServerUnavailable, redis.ConnectionError: if Redis cannot be reached.  The
        next heartbeat of any worker pushes the rest.
    """
    command = scripts.POUR.command(
        (keys.FANOUTS, keys.fanout(fanout_id), keys.QUEUES, keys.SCHEDULE), (fanout_id, PART_ELEMENTS, PART_BYTES)
    )
    while True:
        for reply in _send(connection, [command] * PARTS_AT_ONCE):
            if reply[0] == b"DONE":
                return
            if reply[0] == b"TYPE":
                raise wrong_type(reply[1], ", so a fan-out waits")


def pending(connection: Connection) -> list[str]:
    """List the committed fan-outs that are not pushed completely, the oldest first."""
    return keys.readable(connection.call("ZRANGE", keys.FANOUTS, 0, -1))


def pour_all(connection: Connection, first: str = "") -> dict[str, WrongType]:
    """Push the rest of all committed fan-outs.

    Parameters:
      first: ID of the fan-out to begin with; "" for none.

    Returns:
      ID -> error of each fan-out that waits because a key holds another type.

    Raises:
      ServerUnavailable, redis.ConnectionError: as :func:`pour`.
    """
    waiting: dict[str, WrongType] = {}
    if first:
        waiting |= _tried(connection, first)
    for fanout_id in pending(connection):
        if fanout_id not in waiting:
            waiting |= _tried(connection, fanout_id)
    return waiting


def _tried(connection: Connection, fanout_id: str) -> dict[str, WrongType]:
    try:
        pour(connection, fanout_id)
    except WrongType as e:
        return {fanout_id: e}
    return {}


def _send(connection: Connection, commands: Sequence[Command]) -> list[list[bytes]]:
    return _checked(connection.send(commands))


def _checked(replies: list[Any]) -> list[Any]:
    """Return replies; raise the first error among them."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies
