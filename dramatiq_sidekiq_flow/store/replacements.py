"""Replacement of a step by a tree, written with its acknowledgement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from . import keys, scripts
from .connection import Connection
from .outcomes import Operation, Outcome, read_outcome
from .runs import NO_OUTPUT, Output, Walk, Writes
from .step_records import NO_STEP, StepRecord


@attrs.frozen
class Numbers:
    """What the record of a run holds of the tree that replaces a step.

    Attributes:
      before: Number of steps of the run for which the steps of the tree were numbered, as the record has it; "" for
        steps without numbers.
      total: That number, with the steps of the tree.
      skipped: Number of its steps that are in fallbacks.
      step: Number of the step.
      added: JSON of the number of the tree's first step, and of its compact tree.
    """

    before: str = ""
    total: int = 0
    skipped: int = 0
    step: int = 0
    added: bytes = b""


NO_NUMBERS = Numbers()


@attrs.frozen
class RunTotal:
    """Number of steps of a run, as its record has it; "" if there is none."""

    value: str


def total_of(connection: Connection, record: str) -> RunTotal:
    """Read the number of steps of a run.

    Parameters:
      record: The key of its record.
    """
    reply = connection.call("HMGET", record, "state", "total")
    return RunTotal("" if reply[0] is None or reply[1] is None else reply[1].decode())


def replace(
    member: str,
    receipt: str,
    unit: str,
    walk: Sequence[Walk],
    *,
    ttl: int,
    plan: Writes,
    output: Output = NO_OUTPUT,
    record: StepRecord = NO_STEP,
    numbers: Numbers = NO_NUMBERS,
) -> Operation[Outcome | RunTotal]:
    """End a step that a tree replaces (``replace.lua``): Done, Gone, RunCancelled, RunTotal or StageLost.

    Parameters:
      unit: The jid.
      walk: The callback stack of the step, from the top.
      ttl: Seconds that its barriers live from now on.
      plan: Of the tree.

    Raises, when its reply is read:
      BarrierExpired, WrongType: see :func:`outcomes.read_outcome`.
    """
    marker = "" if walk else keys.released(unit)
    top = walk[0].kind if walk else ""
    memory = output.memory
    command = scripts.REPLACE.command(
        (keys.in_flight(member), memory.key, marker, record.key, *(entry.barrier for entry in walk), *plan.keys),
        (
            *(receipt, unit, ttl, memory.ttl, record.text),
            *(numbers.before, numbers.total, numbers.skipped, numbers.step, numbers.added),
            *(*output.arguments(), top, len(walk), *plan.arguments),
        ),
    )
    return Operation(command, _read)


def _read(reply: list[Any]) -> Outcome | RunTotal:
    if reply[0] == b"TOTAL":
        return RunTotal(reply[1].decode())
    return read_outcome(reply)
