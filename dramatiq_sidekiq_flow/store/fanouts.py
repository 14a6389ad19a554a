"""Fan-outs that are too large for one script: staged, committed, poured.

Staged: a list with a TTL, to which no run refers yet.  Committed: one write of the
script that starts a run or advances it makes the list part of the run, however long
it is.  Poured: its barriers and jobs move to where they belong, a part at a time.
A crash before the commit leaves a list that expires; after it, the next beat of
any worker process goes on.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from ..errors import WrongType
from ..wire.barrier import NewBarrier
from . import keys, scripts
from .connection import Connection
from .scripts import Command

#: Elements, and bytes, of one part: what one script stages or pours.
PART_ELEMENTS = 1000
PART_BYTES = 1024 * 1024

#: Parts sent in one round trip.
PARTS_AT_ONCE = 4

#: Seconds after which a list that is not committed expires.
STAGE_TTL = 3600


@attrs.frozen
class Fanout:
    """A staged fan-out.

    Attributes:
      length: How many elements its list has.
      queues: Where its jobs go; the empty name is ``schedule``.
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
    """Stage what a plan writes.

    Where a part finds that the list has vanished, the commit finds it, too.
    """
    fanout_id = secrets.token_hex(12)
    list_key = keys.fanout(fanout_id)
    length = 0
    commands: list[Command] = []
    for part in _parts(_elements(barriers, pushes, scheduled)):
        commands.append(scripts.STAGE.command((list_key, keys.FANOUTS), (STAGE_TTL, fanout_id, length, *part)))
        length += len(part)
        if len(commands) == PARTS_AT_ONCE:
            _send(connection, commands)
            commands = []
    _send(connection, commands)
    queues = (*pushes, "") if scheduled else tuple(pushes)
    return Fanout(fanout_id, length, queues)


def _elements(
    barriers: Sequence[NewBarrier],
    pushes: Mapping[str, Sequence[bytes]],
    scheduled: Sequence[tuple[float, bytes]],
) -> Iterator[bytes]:
    """The list of ``stage.lua``."""
    for barrier in barriers:
        yield f"b{barrier.ttl} {barrier.value} {barrier.ran} {barrier.id}".encode()
    for queue, payloads in pushes.items():
        yield f"q{queue}".encode()
        yield from payloads
    for at, payload in scheduled:
        yield f"s{at!r} ".encode() + payload


def _parts(elements: Iterable[bytes]) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    size = 0
    for element in elements:
        part.append(element)
        size += len(element)
        if len(part) == PART_ELEMENTS or size >= PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def pour(connection: Connection, fanout_id: str) -> None:
    """Push all that is left of a fan-out; nothing where it is not committed.

    Raises:
      WrongType: if a queue, or a key that all share, is of another type.  What
        is left stays, and the next beat tries again.
      ServerUnavailable, redis.ConnectionError: what is left is pushed by the next beat of any worker.
    """
    command = scripts.POUR.command(
        (keys.FANOUTS, keys.fanout(fanout_id), keys.QUEUES, keys.SCHEDULE), (fanout_id, PART_ELEMENTS, PART_BYTES)
    )
    while True:
        for reply in _send(connection, [command] * PARTS_AT_ONCE):
            if reply[0] == b"DONE":
                return
            if reply[0] == b"TYPE":
                raise WrongType(
                    f"The Redis key {reply[1].decode()!r} holds another type, so a fan-out waits. Remove it.", reply[1]
                )


def pending(connection: Connection) -> list[str]:
    """The fan-outs that are committed and not pushed to the end, the oldest first."""
    return keys.readable(connection.call("ZRANGE", keys.FANOUTS, 0, -1))


def pour_all(connection: Connection, first: str = "") -> dict[str, WrongType]:
    """Push all that is left of the committed fan-outs.

    Parameters:
      first: ID of the one to begin with; empty for none.

    Returns:
      ID -> error of each that waits, since a key is of another type.

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
    replies = connection.send(commands) if commands else []
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies
