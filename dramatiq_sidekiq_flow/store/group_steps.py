"""Steps of groups, many of which one script call advances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import attrs

from . import keys, scripts
from .outcomes import Operation, read_outcome
from .runs import MemoryKey, Output, Walk
from .scripts import Argument
from .step_records import NO_STEP, StepRecord


@attrs.frozen(eq=False)
class StepGroup:
    """The steps of one group.

    Attributes:
      walk: Their callback stack, from the top, which is the barrier of the group.
      ttl: Seconds that its barriers live from now on.
      memory: The memory of their run.
    """

    walk: tuple[Walk, ...]
    ttl: int
    memory: MemoryKey


class GroupStep(NamedTuple):
    """A finished step of a group.

    Attributes:
      unit: The jid.
      fields: Fields that it sets in the memory of its run: name -> JSON.
      record: What the record of its run holds of it.
    """

    group: StepGroup
    receipt: str
    unit: str
    fields: Mapping[str, bytes]
    record: StepRecord = NO_STEP


def advance(member: str, steps: Sequence[GroupStep]) -> Operation[list[int]]:
    """Advance a run past finished steps of one group (``advance_group.lua``).

    Returns:
      The indexes of the steps that are left: nothing is written for them, since
      they would release the barrier, which needs a plan.

    Raises, when its reply is read:
      BarrierExpired, WrongType: if the run cannot continue; nothing is written.
    """
    group = steps[0].group
    memory = group.memory
    barriers = [entry.barrier for entry in group.walk]
    arguments: list[Argument] = [group.ttl, memory.ttl, len(group.walk), len(steps)]
    for step in steps:
        arguments += (step.receipt, step.unit, step.record.text)
    for step in steps:
        arguments += Output(memory, step.fields).arguments() if step.fields else (0,)
    command = scripts.ADVANCE_GROUP.command(
        (keys.in_flight(member), memory.key, steps[0].record.key, *barriers), arguments
    )
    return Operation(command, _left)


def _left(reply: list[Any]) -> list[int]:
    if reply[0] != b"DONE":
        read_outcome(reply)
    return [index - 1 for index in reply[1:]]
