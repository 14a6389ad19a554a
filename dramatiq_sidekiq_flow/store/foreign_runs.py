"""Runs whose steps are on another Dramatiq broker: their data in Redis.

The barriers are the same as any run's.  In addition, ``BARRIER:f`` holds the
unit that released a barrier whose continuation may not have been enqueued yet.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..wire.lifetimes import DEAD_TIMEOUT, RELEASED_TTL
from . import keys, scripts
from .connection import Connection
from .needs import Needs
from .outcomes import Operation, Outcome, read_nothing, read_outcome, read_unless_staged
from .runs import NO_OUTPUT, NOTHING, Output, Walk, Writes
from .sets import DEAD_MAX_JOBS, places
from .step_records import NO_DEATH, NO_STEP, Death, StepRecord

#: Value of the marker of a run after its first steps were enqueued.
ENQUEUED = b"enqueued"


def count(
    unit: str,
    walk: Sequence[Walk],
    *,
    ttl: int,
    output: Output = NO_OUTPUT,
    planned: int = 0,
    elsewhere: bool = False,
    plan: Writes = NOTHING,
    record: StepRecord = NO_STEP,
) -> Operation[Outcome]:
    """Count a finished step (``count.lua``): Done, Fires, RunCancelled, NeedsPlan or StageLost.

    Parameters:
      unit: The message id.
      walk, ttl, planned: As for :func:`runs.advance`.
      output: Values for the memory; ``memory.ttl`` is its lifetime from now on.
      elsewhere: True if a part of the plan goes to the other broker.
      plan: The barriers, and the part that goes to Sidekiq's queues.
    """
    barriers = [entry.barrier for entry in walk]
    kinds = "".join(entry.kind for entry in walk)
    memory = output.memory
    command = scripts.COUNT.command(
        (memory.key, record.key, *barriers, *plan.keys),
        (unit, ttl, memory.ttl, record.text, *output.arguments(), kinds, planned, int(elsewhere), *plan.arguments),
    )
    return Operation(command, read_outcome)


def fired(walk: Sequence[Walk]) -> Operation[None]:
    """Mark the continuation of the last entry of ``walk`` as enqueued (``fired.lua``)."""
    names = [key for entry in walk for key in (*keys.barrier(entry.barrier)[:2], keys.fired(entry.barrier))]
    return Operation(scripts.FIRED.command(names, (RELEASED_TTL,)), read_nothing)


def bury(
    payload: bytes, *, now: float, needs: Needs, death: Death = NO_DEATH, plan: Writes = NOTHING
) -> Operation[bool]:
    """Move a step that failed for good to ``dead`` (``bury.lua``); False if the plan must be staged again.

    Parameters:
      needs: Keys to keep alive for it.
      plan: The jobs that take its place; NOTHING if none do.

    Raises, when its reply is read:
      WrongType: if ``dead`` is not a sorted set.
    """
    command = scripts.BURY.command(
        (keys.DEAD, death.key, *needs.keys, *plan.keys),
        (
            repr(now),
            payload,
            repr(now - DEAD_TIMEOUT),
            DEAD_MAX_JOBS,
            needs.ttl,
            death.number,
            death.failure,
            *places(needs, death, plan),
        ),
    )
    return Operation(command, read_unless_staged)


def is_enqueued(connection: Connection, run_id: str) -> bool:
    """Return True if the first steps of a run were enqueued."""
    return bool(connection.call("GET", keys.run(run_id)) == ENQUEUED)


def enqueued(connection: Connection, run_id: str) -> None:
    """Mark the first steps of a run as enqueued."""
    connection.call("SET", keys.run(run_id), ENQUEUED, "XX", "KEEPTTL")
