"""What the keeper looks after for all runs: deadlines, callbacks that are due, deaths in Ruby, lists of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from . import keys, scripts
from .connection import Connection
from .outcomes import Operation
from .run_records import STATES, check_type, numbered
from .step_records import Death

#: Runs of one look at deadlines, and of one page of those that rest.
PAGE = 100


@attrs.frozen
class RestingRun:
    """A run that may have a callback to push.

    Attributes:
      state: Its recorded state; "" without a record.
      calls: ``on_failure`` and ``on_complete``, as far as they are to be pushed.
      failures: JSON of its deaths, by step number.
    """

    run_id: str
    state: str
    calls: frozenset[str]
    failures: Mapping[int, bytes]


def note_death(death: Death, member: bytes, barriers: Sequence[str] = ()) -> Operation[bool]:
    """Record a death that was found in ``dead`` (``note_death.lua``); return False if there is nothing to record.

    Parameters:
      member: The job, as ``dead`` has it.
      barriers: Those of its callback stack, from the top.
    """
    command = scripts.NOTE_DEATH.command((death.key, keys.DEAD, *barriers), (death.number, death.failure, member))
    return Operation(command, lambda reply: bool(reply[0] == b"DONE"))


def call_back(run: RestingRun, name: str, members: bytes, *, again: bool) -> Operation[bool]:
    """Push a callback of a run, or take the run out of those that rest (``call_back.lua``).

    Parameters:
      name: ``on_failure`` or ``on_complete``; "" for none.
      members: JSON members for the mapping that it is given, after a comma.
      again: True leaves the run among those that rest.

    Returns:
      False if the state of the run has changed.
    """
    command = scripts.CALL_BACK.command((keys.record(run.run_id), keys.RESTING), (run.state, name, members, int(again)))
    return Operation(command, lambda reply: bool(reply[0] == b"DONE"))


def resting(connection: Connection, offset: int) -> list[str]:
    """Read a page of the runs that may have a callback to push."""
    return _ids(connection.call("ZRANGE", keys.RESTING, offset, offset + PAGE - 1))


def resting_run(connection: Connection, run_id: str) -> RestingRun:
    """Read what the keeper needs to know of a run.

    Raises:
      WrongType: if its record holds another type.
    """
    key, failed = keys.record(run_id), keys.failed_steps(run_id)
    fields, failures = connection.send([("HMGET", key, "state", "on_failure", "on_complete"), ("HGETALL", failed)])
    check_type(key, fields)
    check_type(failed, failures)
    state, *calls = fields
    return RestingRun(run_id, (state or b"").decode(), _names(calls), numbered(failures))


def _names(calls: Sequence[bytes | None]) -> frozenset[str]:
    return frozenset(name for name, value in zip(("on_failure", "on_complete"), calls) if value is not None)


def overdue(connection: Connection) -> list[str]:
    """Read the runs whose deadline has passed, by Redis's clock."""
    seconds, microseconds = connection.call("TIME")
    now = int(seconds) + int(microseconds) / 1e6
    return _ids(connection.call("ZRANGEBYSCORE", keys.DEADLINES, "-inf", now, "LIMIT", 0, PAGE))


def deadline_of(connection: Connection, run_id: str) -> float | None:
    """Read the seconds from the start of a run to its deadline; None if it has none."""
    value = connection.call("HGET", keys.record(run_id), "deadline")
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def forget_deadline(connection: Connection, run_id: str) -> None:
    """Take a run out of those with a deadline."""
    connection.call("ZREM", keys.DEADLINES, run_id)


def drop_expired(connection: Connection, state: str, offset: int) -> int:
    """Remove runs without a record from a page of the list of a state, the oldest first.

    Returns:
      Offset of the next page; 0 after the last one.
    """
    key = keys.runs_in(state)
    page = _ids(connection.call("ZRANGE", key, offset, offset + PAGE - 1))
    gone = _without_record(connection, page)
    if gone:
        connection.call("ZREM", key, *gone)
    return offset + len(page) - len(gone) if len(page) == PAGE else 0


def _without_record(connection: Connection, run_ids: Sequence[str]) -> list[str]:
    commands = [("EXISTS", keys.record(run_id)) for run_id in run_ids]
    return [run_id for run_id, exists in zip(run_ids, connection.send(commands) if commands else ()) if exists == 0]


#: The states whose lists are looked through.
LISTED: Sequence[str] = STATES


def _ids(members: Sequence[bytes]) -> list[str]:
    return [member.decode("utf-8", "surrogateescape") for member in members]
