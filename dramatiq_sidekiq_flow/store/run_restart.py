"""Restarts of dead steps of a run, with all that comes after them."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from . import keys, scripts
from .outcomes import Operation, Outcome, read_outcome
from .runs import NO_MEMORY, MemoryKey, Writes
from .scripts import Argument


@attrs.frozen
class Restart:
    """What a restart takes out of ``dead``, and out of the record of its run.

    Attributes:
      members: Jobs as they are in ``dead``.
      cleared: Numbers of the steps that are forgotten.
      failed: Those of them that are recorded as dead.
      replaced: Those of them whose replacements are forgotten.
      caught: Number of deaths that stay in the record, and that the run does not wait for.
      skipped: Number of steps in fallbacks that do not run, unless a step fails for good.
    """

    members: Sequence[bytes]
    cleared: Sequence[range]
    failed: Sequence[int]
    replaced: Sequence[int]
    caught: int
    skipped: int


def restart(
    run_id: str, restart: Restart, plan: Writes, *, ttl: int, memory: MemoryKey = NO_MEMORY
) -> Operation[Outcome]:
    """Start dead steps anew (``restart.lua``): Done, Taken, StageLost, or Gone if a job is not in ``dead``.

    Parameters:
      ttl: Seconds that barriers and memory live from now on.

    Raises, when its reply is read:
      WrongType: if a key that it needs holds another type.
    """
    bounds = [end for each in restart.cleared for end in (each.start, each.stop - 1)]
    arguments: list[Argument] = [max(ttl, memory.ttl), restart.caught, restart.skipped]
    arguments += (len(restart.members), *restart.members)
    arguments += (len(restart.cleared), *bounds)
    arguments += (len(restart.failed), *restart.failed)
    arguments += (len(restart.replaced), *restart.replaced)
    places = (keys.DEAD, keys.record(run_id), memory.key, *plan.keys)
    return Operation(scripts.RESTART.command(places, (*arguments, *plan.arguments)), read_outcome)
