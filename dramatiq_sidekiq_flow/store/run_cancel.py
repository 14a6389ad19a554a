"""Cancellation of runs: the record of a run, and the list of cancelled runs that workers read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from . import keys, scripts
from .connection import Connection
from .outcomes import Operation, wrong_type
from .sets import scored

#: Seconds for which a cancelled run stays in the list, and the most runs in it.
KEPT, MOST = 7 * 86_400, 10_000

#: Barriers that are disarmed in one call.
AT_ONCE = 1000

#: Seconds that the marker of a disarmed barrier lives at least: a Ruby job may run as long.
DISARMED_TTL = 86_400

Cancelled = Literal["cancelled", "before", "done", "unknown"]


def cancel(run_id: str, reason: str) -> Operation[Cancelled]:
    """Cancel a run (``cancel.lua``).

    Returns:
      ``cancelled``; ``before`` if it was cancelled before; ``done`` if it has ended; ``unknown`` if it has no record.

    Raises, when its reply is read:
      WrongType: if a key that it needs holds another type.
    """
    command = scripts.CANCEL.command((keys.record(run_id), keys.CANCELLED), (reason, KEPT, MOST))
    return Operation(command, _read)


def _read(reply: list[Any]) -> Cancelled:
    match reply:
        case [b"DONE"]:
            return "cancelled"
        case [b"ENDED", b"cancelled"]:
            return "before"
        case [b"ENDED", _]:
            return "done"
        case [b"UNKNOWN"]:
            return "unknown"
        case _:
            raise wrong_type(reply[1], ", so the run cannot be cancelled")


def since(connection: Connection, last: str) -> list[tuple[str, str]]:
    """Read the runs that were cancelled after another one: id and score of each, the oldest first.

    Parameters:
      last: Score of that one; "" reads all.
    """
    reply = connection.call("ZRANGEBYSCORE", keys.CANCELLED, f"({last}" if last else "-inf", "+inf", "WITHSCORES")
    return [(run.decode("utf-8", "replace"), repr(score)) for run, score in scored(reply)]


def disarm(connection: Connection, barriers: Iterable[str]) -> int:
    """Disarm barriers: the plain gem starts nothing behind them (``disarm.lua``).  Return how many were armed."""
    markers = [keys.barrier(barrier)[1] for barrier in barriers]
    return sum(_disarm(connection, markers[first : first + AT_ONCE]) for first in range(0, len(markers), AT_ONCE))


def _disarm(connection: Connection, markers: Sequence[str]) -> int:
    disarmed: int = connection.call(*scripts.DISARM.command(markers, (DISARMED_TTL,)))
    return disarmed
