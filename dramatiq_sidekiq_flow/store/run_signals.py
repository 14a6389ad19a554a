"""Signals to runs, and the steps that wait for them."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from ..wire.lifetimes import RETRY_HORIZON
from . import keys, scripts
from .connection import Connection
from .needs import Needs
from .outcomes import GONE, Gone, Operation, RunCancelled, wrong_type

#: Seconds that a signal is kept at least.
KEPT = RETRY_HORIZON

Sent = Literal["sent", "ended", "unknown"]

_SENT: dict[bytes, Sent] = {b"DONE": "sent", b"ENDED": "ended", b"UNKNOWN": "unknown"}


@attrs.frozen
class Parked:
    """The job is in ``schedule``, until its time is over or the signal comes."""


@attrs.frozen
class Signalled:
    """Nothing is written: the signal is there.  ``data`` is its JSON."""

    data: bytes


@attrs.frozen
class Overdue:
    """Nothing is written: the signal is not there, and the time of the step is over."""


Arrival = Parked | Signalled | Overdue | Gone | RunCancelled

_FIXED: dict[bytes, Arrival] = {
    b"PARKED": Parked(),
    b"OVER": Overdue(),
    b"GONE": GONE,
    b"CANCELLED": RunCancelled(),
}


def wait(
    member: str,
    receipt: str,
    run_id: str,
    *,
    name: str,
    jid: str,
    queue: str,
    until: float,
    payload: bytes,
    is_over: bool,
    needs: Needs,
    record: str = "",
) -> Operation[Arrival]:
    """Park a step that waits for a signal (``wait.lua``).

    Parameters:
      name: Of the signal.
      queue: Where the job goes when the signal comes.
      until: Epoch seconds.
      payload: The job as it waits.
      is_over: True parks nothing.
      needs: Keys to keep alive for the job.
      record: The key of the run's record; "" without.

    Raises, when its reply is read:
      WrongType: if a key that it needs holds another type.
    """
    command = scripts.WAIT.command(
        (
            *(keys.in_flight(member), keys.SCHEDULE, keys.run_signals(run_id), keys.waiting(run_id), record),
            *needs.keys,
        ),
        (
            *(receipt, name, f"{name}\n{jid}", queue.encode() + b"\n" + payload),
            *(repr(until), payload, needs.ttl, int(is_over)),
        ),
    )
    return Operation(command, _read_arrival)


def _read_arrival(reply: list[Any]) -> Arrival:
    found = _FIXED.get(reply[0])
    if found is not None:
        return found
    if reply[0] == b"SIGNAL":
        return Signalled(reply[1])
    raise wrong_type(reply[1], ", so a step cannot wait for its signal")


def signal(connection: Connection, run_id: str, name: str, data: bytes) -> Sent:
    """Send a signal to a run (``signal.lua``).

    Parameters:
      data: JSON.

    Returns:
      ``sent``; ``ended`` if the run is done or cancelled; ``unknown`` if there is no such run.

    Raises:
      WrongType: if a key that is needed holds another type.
    """
    command = scripts.SIGNAL.command(
        (
            *(keys.record(run_id), keys.run(run_id), keys.run_signals(run_id), keys.waiting(run_id)),
            *(keys.SCHEDULE, keys.QUEUES),
        ),
        (name, data, KEPT),
    )
    reply = connection.call(*command)
    sent = _SENT.get(reply[0])
    if sent is None:
        raise wrong_type(reply[1], ", so the signal was not sent")
    return sent


def drop(connection: Connection, run_id: str) -> None:
    """Forget the signals of a cancelled run, and its steps that waited for them."""
    connection.call("UNLINK", keys.run_signals(run_id), keys.waiting(run_id))
