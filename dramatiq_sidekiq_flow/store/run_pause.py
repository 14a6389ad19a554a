"""Pauses of runs: what would be pushed, or would run, is parked in a list of the run until it is resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..errors import WrongType
from . import fanouts, keys, scripts
from .connection import Connection
from .needs import NO_NEEDS, Needs
from .outcomes import Operation, read_written, wrong_type
from .run_cancel import KEPT, MOST

#: Parked jobs that one call moves, and bytes after which it reads no further one.
AT_ONCE = 250
BYTES_AT_ONCE = 256 * 1024

Retried = Literal["retried", "gone", "cancelled"]


def pause(run_id: str, reason: str) -> Operation[str]:
    """Pause a run (``pause.lua``).

    Returns:
      The state that it has now: ``paused``, also if it was paused before; ``cancelled`` or ``done`` if it has
      ended; "" if it has no record.

    Raises, when its reply is read:
      WrongType: if a key that it needs holds another type.
    """
    command = scripts.PAUSE.command((keys.record(run_id), keys.CANCELLED), (reason, KEPT, MOST))
    return Operation(command, lambda reply: _state(reply, "paused"))


def unpause(run_id: str) -> Operation[str]:
    """End the pause of a run (``unpause.lua``); its parked jobs stay parked until :func:`unpark`.

    Returns:
      ``resumed``; the state of a run that is not paused; "" if it has no record.

    Raises, when its reply is read:
      WrongType: if its record holds another type.
    """
    command = scripts.UNPAUSE.command((keys.record(run_id),), ())
    return Operation(command, lambda reply: _state(reply, "resumed"))


def _state(reply: list[Any], done: str) -> str:
    match reply:
        case [b"DONE"]:
            return done
        case [b"ENDED", state]:
            return state.decode("utf-8", "replace")  # type: ignore[no-any-return]
        case [b"UNKNOWN"]:
            return ""
        case _:
            raise wrong_type(reply[1], ", so the run cannot be steered")


def park(member: str, receipt: str, queue: str, record: str, needs: Needs = NO_NEEDS) -> Operation[None]:
    """Park a job in flight that did not run (``park.lua``); it goes back to its queue if its run is not paused now.

    Parameters:
      record: Key of the record of its run.
      needs: What its run needs until it runs.

    Raises, when its reply is read:
      WrongType: if a key that it needs holds another type.
    """
    command = scripts.PARK.command(
        (keys.in_flight(member), record, keys.queue(queue), *needs.keys), (receipt, queue, needs.ttl)
    )
    return Operation(command, read_written)


def unpark(connection: Connection, run_id: str) -> None:
    """Put the parked jobs of a run where they belong (``unpark.lua``), in their order; none of a paused run.

    Raises:
      WrongType: if a key that is needed holds another type; what was not moved stays parked.
      redis.RedisError: if Redis cannot be reached, or refuses.
    """
    places = (keys.record(run_id), keys.QUEUES, keys.SCHEDULE, keys.RETRY, keys.FANOUTS)
    command = scripts.UNPARK.command(places, (AT_ONCE, BYTES_AT_ONCE))
    while True:
        kind, *committed = connection.call(*command)
        if kind == b"TYPE":
            raise wrong_type(committed[0], ", so the parked jobs of a run wait")
        for fanout in committed:
            _pour(connection, fanout.decode())
        if kind == b"DONE":
            return


def _pour(connection: Connection, fanout: str) -> None:
    try:
        fanouts.pour(connection, fanout)
    except WrongType:
        # It is committed: each heartbeat tries again, and says so.
        return


def hold(connection: Connection, run_id: str, barriers: Mapping[str, bytes]) -> int:
    """Disarm barriers of a paused run for the plain gem (``hold_barriers.lua``); return how many were armed.

    Parameters:
      barriers: Barrier -> queue, a NUL, and the job that fires it later.

    Raises:
      WrongType: if a key that is needed holds another type.
    """
    names, held = list(barriers), 0
    for first in range(0, len(names), AT_ONCE):
        some = names[first : first + AT_ONCE]
        jobs = [barriers[name] for name in some]
        held += _number(connection.call(*scripts.HOLD_BARRIERS.command((keys.record(run_id), *some), jobs)))
    return held


def rearm(connection: Connection, run_id: str) -> None:
    """Arm the barriers again that :func:`hold` disarmed (``rearm.lua``); none of a paused run.

    Raises:
      WrongType: if a key that is needed holds another type.
    """
    names = [name.decode("utf-8", "surrogateescape") for name in connection.call("HKEYS", keys.disarmed(run_id))]
    for first in range(0, len(names), AT_ONCE):
        some = names[first : first + AT_ONCE]
        read_written(connection.call(*scripts.REARM.command((keys.record(run_id), keys.QUEUES, *some), ())))


def retry(run_id: str, member: bytes, queue: str, payload: bytes, death: int | str) -> Operation[Retried]:
    """Move a dead step back to its queue, or to the parked jobs of its run (``retry_dead.lua``).

    Parameters:
      member: Its payload in ``dead``.
      payload: What goes to the queue.
      death: ``step_records.death_key`` of it.

    Raises, when its reply is read:
      WrongType: if a key that it needs holds another type.
    """
    command = scripts.RETRY_DEAD.command(
        (keys.DEAD, keys.record(run_id), keys.QUEUES, keys.queue(queue)),
        (member, queue, payload, death),
    )
    return Operation(command, _read_retried)


def _read_retried(reply: list[Any]) -> Retried:
    read_written(reply)
    return "retried" if reply[0] == b"DONE" else "gone" if reply[0] == b"GONE" else "cancelled"


def drop(connection: Connection, run_id: str) -> None:
    """Remove the parked jobs of a cancelled run: nothing of it is parked any more."""
    parked = keys.parked(run_id)
    first = 0
    while entries := connection.call("LRANGE", parked, first, first + AT_ONCE - 1):
        lists = [keys.fanout(name) for name in _fanouts(entries)]
        if lists:
            connection.call("UNLINK", *lists)
        first += len(entries)
    connection.call("UNLINK", parked, keys.disarmed(run_id))


def _fanouts(entries: Sequence[bytes]) -> list[str]:
    found = [entry[1:].partition(b"\0")[0] for entry in entries if entry[:1] == b"f"]
    return keys.readable(found)


def _number(reply: Any) -> int:
    if isinstance(reply, int):
        return reply
    raise wrong_type(reply[1], ", so the barriers of a run cannot be disarmed")
