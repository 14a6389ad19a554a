"""Runs: started once, advanced one step at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import attrs

from ..wire.barrier import NewBarrier
from . import fanouts, keys, scripts
from .connection import Connection
from .outcomes import Done, Operation, Outcome, read_outcome
from .scripts import Argument
from .step_records import NO_RUN, NO_STEP, RunRecord, StepRecord

#: A plan with more jobs or barriers, or with more bytes, is staged first, so
#: that no single script blocks Redis for long.
MAX_INLINE = 1000
MAX_BYTES_INLINE = 1024 * 1024


@attrs.frozen
class Writes:
    """Keys and arguments of a plan, as ``_plan.lua`` reads them.

    Attributes:
      fanout: ID of the fan-out that :func:`fanouts.pour` pushes after the
        commit; "" if the arguments hold the whole plan.
    """

    keys: tuple[str, ...]
    arguments: tuple[Argument, ...]
    fanout: str = ""


#: No barriers, queues, scheduled jobs or fan-out.
NOTHING = Writes((), ())


@attrs.frozen
class Walk:
    """One entry of a callback stack, as ``_walk.lua`` reads it.

    Attributes:
      kind: ``f`` fires a continuation, ``n`` has none and continues with the
        next entry, ``s`` has none and stops.
    """

    barrier: str
    kind: Literal["f", "n", "s"]


@attrs.frozen
class MemoryKey:
    """Hash of a run's memory; an empty key means no memory.

    Attributes:
      ttl: Seconds that it is kept after the end of the run.
    """

    key: str = ""
    ttl: int = 0


NO_MEMORY = MemoryKey()


@attrs.frozen
class Output:
    """Fields that a script sets in the memory of a run: name -> JSON."""

    memory: MemoryKey = NO_MEMORY
    fields: Mapping[str, bytes] = {}

    def arguments(self) -> tuple[Argument, ...]:
        """The number of fields, then name and JSON of each."""
        flat = (part for pair in self.fields.items() for part in pair)
        return (len(self.fields), *flat)


NO_OUTPUT = Output()


def writes(
    connection: Connection,
    barriers: Sequence[NewBarrier],
    pushes: Mapping[str, Sequence[bytes]],
    scheduled: Sequence[tuple[float, bytes]],
) -> Writes:
    """Make the keys and arguments of a plan.  A large plan is staged now."""
    if _is_large(barriers, pushes, scheduled):
        staged = fanouts.stage(connection, barriers, pushes, scheduled)
        return Writes(
            (keys.fanout(staged.id), keys.FANOUTS),
            (0, 0, 0, 1, staged.id, staged.length, len(staged.queues), *staged.queues),
            staged.id,
        )
    names = [barrier.id for barrier in barriers]
    names += map(keys.queue, pushes)
    return Writes(tuple(names), _inline_arguments(barriers, pushes, scheduled))


def _is_large(
    barriers: Sequence[NewBarrier],
    pushes: Mapping[str, Sequence[bytes]],
    scheduled: Sequence[tuple[float, bytes]],
) -> bool:
    """Return True if a plan is too large for the arguments of one script."""
    jobs = len(scheduled) + sum(map(len, pushes.values()))
    if max(jobs, len(barriers)) > MAX_INLINE:
        return True
    # A single job stays one element of a list, so staging does not split it.
    return jobs > 1 and _bytes(pushes, scheduled) > MAX_BYTES_INLINE


def _inline_arguments(
    barriers: Sequence[NewBarrier],
    pushes: Mapping[str, Sequence[bytes]],
    scheduled: Sequence[tuple[float, bytes]],
) -> tuple[Argument, ...]:
    """A plan without a fan-out, as ``_plan.lua`` reads it."""
    arguments: list[Argument] = [len(barriers)]
    for barrier in barriers:
        arguments += (barrier.ttl, barrier.value)
    arguments.append(len(pushes))
    for payloads in pushes.values():
        arguments += (len(payloads), *payloads)
    if scheduled:
        arguments.append(len(scheduled))
    for at, payload in scheduled:
        arguments += (repr(at), payload)
    return tuple(arguments)


def _bytes(pushes: Mapping[str, Sequence[bytes]], scheduled: Sequence[tuple[float, bytes]]) -> int:
    pushed = sum(sum(map(len, payloads)) for payloads in pushes.values())
    return pushed + sum(len(payload) for _, payload in scheduled)


def start(
    run_id: str, plan: Writes, *, ttl: int, output: Output = NO_OUTPUT, record: RunRecord = NO_RUN
) -> Operation[Outcome]:
    """Start a run (``start.lua``): Done, AlreadyStarted, Taken or StageLost.

    Parameters:
      ttl: Seconds for which a second start of the same id is refused.
      output: Initial values of its memory; ``memory.ttl`` is the memory's lifetime.

    Raises, when its reply is read:
      WrongType: if a key that it needs holds another type.
    """
    command = scripts.START.command(
        (keys.run(run_id), output.memory.key, record.key, *plan.keys),
        (ttl, output.memory.ttl, *output.arguments(), *record.arguments(), *plan.arguments),
    )
    return Operation(command, read_outcome)


def advance(
    member: str,
    receipt: str,
    unit: str,
    walk: Sequence[Walk],
    *,
    ttl: int,
    output: Output = NO_OUTPUT,
    planned: int = 0,
    plan: Writes = NOTHING,
    keep: str = "",
    record: StepRecord = NO_STEP,
) -> Operation[Outcome]:
    """Advance a run past a finished job (``advance.lua``): Done, Kept, Gone, RunCancelled, NeedsPlan or StageLost.

    Parameters:
      unit: The jid.
      walk: The callback stack, from the top.
      ttl: Seconds that barriers which still wait live from now on.
      planned: Number of the callback that ``plan`` belongs to (1 = the top), 0 = none.
      keep: Receipt under which the member takes the next job into flight, if its
        queue is empty and not paused; "" pushes it.  Only with a plan of one job,
        for the member's queue.

    Raises, when its reply is read:
      BarrierExpired, WrongType: see :func:`outcomes.read_outcome`.
    """
    barriers = [entry.barrier for entry in walk]
    kinds = "".join([entry.kind for entry in walk])
    memory = output.memory
    command = scripts.ADVANCE.command(
        (keys.in_flight(member), memory.key, record.key, *barriers, *plan.keys),
        (receipt, unit, ttl, memory.ttl, keep, record.text, *output.arguments(), kinds, planned, *plan.arguments),
    )
    return Operation(command, read_outcome)


def extend(connection: Connection, needs: Iterable[str], memory: str = "", *, ttl: int, outlive: bool = False) -> None:
    """Let keys live for ``ttl`` seconds from now; never shorten a lifetime.

    Parameters:
      needs: Keys of barriers, of stored chains, and of the memory.
      memory: The memory's key if its lease is to be extended, too.
      outlive: True keeps the memory for ``ttl`` seconds even if the run ends earlier.
    """
    marker = keys.memory_lease(memory) if memory else ""
    connection.call(*scripts.EXTEND.command((marker, *needs), (ttl, int(outlive))))


def release(
    member: str,
    receipt: str,
    *,
    released: str,
    ttl: int,
    output: Output = NO_OUTPUT,
    plan: Writes = NOTHING,
    record: StepRecord = NO_STEP,
    is_over: bool = False,
) -> Operation[Outcome]:
    """Take a finished job out of flight after custom barriers counted it (``release.lua``): Done, Gone, RunCancelled or
    StageLost.

    Parameters:
      released: The barrier that ``plan`` is the continuation of; "" for none.
      ttl: Seconds for which a second push of that continuation is refused.
      is_over: True if nothing of the run is left after the job.
    """
    marker = keys.released(released) if released else ""
    memory = output.memory
    command = scripts.RELEASE.command(
        (keys.in_flight(member), memory.key, marker, record.key, *plan.keys),
        (receipt, ttl, memory.ttl, record.text, int(is_over), *output.arguments(), *plan.arguments),
    )
    return Operation(command, read_outcome)


@attrs.frozen
class LostBarrier:
    """A barrier of a callback stack, and the value with which it is created if it is gone."""

    barrier: str
    value: int


def resume(
    name: str, member: bytes, *, queue: str, payload: bytes, barriers: Sequence[LostBarrier], ttl: int
) -> Operation[bool]:
    """Replace a failed step by a job that does nothing (``resume.lua``); return False if the step is gone.

    Parameters:
      name: The set that holds the step, ``dead`` or ``retry``.
      barriers: Barriers of its callback stack, from the top.
      ttl: Lifetime of new barriers, in seconds.

    Raises, when its reply is read:
      WrongType: if a key that it needs holds another type.
    """
    stack = [key for entry in barriers for key in keys.barrier(entry.barrier)]
    values = [entry.value for entry in barriers]
    command = scripts.RESUME.command(
        (name, keys.QUEUES, keys.queue(queue), *stack), (member, queue, payload, ttl, *values)
    )
    return Operation(command, lambda reply: isinstance(read_outcome(reply), Done))
