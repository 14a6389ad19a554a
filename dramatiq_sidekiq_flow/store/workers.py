"""Who lives, and what the dead left in flight."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from ..wire.payload import Payload
from . import keys, scripts
from .connection import Connection

#: A job recovered that often within that time is a poison pill (the numbers
#: of Sidekiq Pro's super_fetch).
MAX_RECOVERIES = 3
RECOVERY_WINDOW = 72 * 3600


@attrs.frozen
class Orphan:
    """A job in flight whose worker is dead, and what would go to ``dead``; ``job`` where it can be read."""

    receipt: str
    jid: str
    corpse: bytes
    job: Payload | None = None


def beat(connection: Connection, members: Iterable[str], timeout: float) -> list[str]:
    """Say that ``members`` live (by Redis's clock); hear who has not for ``timeout`` seconds."""
    stale: list[bytes] = connection.call(*scripts.BEAT.command((keys.WORKERS,), (repr(timeout), *members)))
    return [member.decode() for member in stale]


def recover(
    connection: Connection, member: str, orphans: Sequence[Orphan], *, timeout: float, now: float
) -> tuple[int, int]:
    """Put a dead worker's jobs back, or into ``dead``.

    Returns:
      How many went back, and how many died; ``(0, 0)`` where the worker turns
      out to live.
    """
    reply = connection.call(
        *scripts.RECOVER.command(
            (
                keys.WORKERS,
                keys.in_flight(member),
                keys.queue(keys.queue_of(member)),
                keys.DEAD,
                *(keys.recovered(o.jid) for o in orphans),
            ),
            (
                member,
                repr(timeout),
                MAX_RECOVERIES,
                RECOVERY_WINDOW,
                repr(now),
                *(part for o in orphans for part in (o.receipt, o.corpse)),
            ),
        )
    )
    return (reply[1], reply[2]) if reply[0] == b"DONE" else (0, 0)


def strike_off(connection: Connection, members: Sequence[str]) -> None:
    """Forget members that shut down with nothing in flight."""
    if members:
        connection.call("ZREM", keys.WORKERS, *members)
