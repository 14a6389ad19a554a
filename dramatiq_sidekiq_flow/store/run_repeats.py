"""Repetitions of runs: what a run was started with, and which run repeats it."""

from __future__ import annotations

from . import keys, scripts
from .connection import Connection
from .outcomes import Done, Operation, read_outcome
from .run_records import check_type


def note_repeat(run_id: str, again: str) -> Operation[bool]:
    """Note which run repeats a run (``note_repeat.lua``); return False if it has no record.

    Raises, when its reply is read:
      WrongType: if its record holds another type.
    """
    command = scripts.NOTE_REPEAT.command((keys.record(run_id),), (again,))
    return Operation(command, lambda reply: isinstance(read_outcome(reply), Done))


def start_of(connection: Connection, run_id: str) -> bytes | None:
    """Read what a run was started with; None if that is not kept.

    Raises:
      WrongType: if the key holds another type.
    """
    key = keys.start_of(run_id)
    reply = connection.send([("GET", key)])[0]
    check_type(key, reply)
    return reply  # type: ignore[no-any-return]
