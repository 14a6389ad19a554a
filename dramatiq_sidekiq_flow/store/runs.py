"""Runs: started once, advanced one step at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from . import fanouts, keys, scripts
from .connection import Connection
from .fanouts import NewBarrier
from .scripts import Argument, Command

#: A plan with more jobs or barriers, or with more bytes, is staged first, so
#: that no single script holds Redis up for long.
MAX_INLINE = 1000
MAX_BYTES_INLINE = 1024 * 1024


@attrs.frozen
class Writes:
    """A plan as the scripts take it: the keys and arguments of ``_plan.lua``.

    Attributes:
      fanout: ID of what :func:`fanouts.pour` pushes after the commit; empty where all is in the arguments.
    """

    keys: tuple[str, ...]
    arguments: tuple[Argument, ...]
    fanout: str = ""


#: No barriers, queues, scheduled jobs or fan-out.
NOTHING = Writes((), (0, 0, 0, 0))


@attrs.frozen
class Walk:
    """One entry of a callback stack, as the advance sees it.

    ``kind`` is ``f`` (fires a continuation), ``n`` (has none, and goes on with
    the next) or ``s`` (has none, and stops).
    """

    barrier: str
    kind: str


def writes(
    connection: Connection,
    barriers: Sequence[NewBarrier],
    pushes: Mapping[str, Sequence[bytes]],
    scheduled: Sequence[tuple[float, bytes]],
) -> Writes:
    """Prepare what a plan writes.  Large ones are staged now."""
    jobs = len(scheduled) + sum(map(len, pushes.values()))
    # A single job gains nothing: it is one element in any way.
    heavy = jobs > 1 and _bytes(pushes, scheduled) > MAX_BYTES_INLINE
    if heavy or max(jobs, len(barriers)) > MAX_INLINE:
        staged = fanouts.stage(connection, barriers, pushes, scheduled)
        return Writes(
            (keys.fanout(staged.id), keys.FANOUTS),
            (0, 0, 0, 1, staged.id, staged.length, len(staged.queues), *staged.queues),
            staged.id,
        )
    arguments: list[Argument] = [len(barriers)]
    for barrier in barriers:
        arguments += (barrier.ttl, barrier.value, barrier.ran)
    arguments.append(len(pushes))
    for queue, payloads in pushes.items():
        arguments += (queue, len(payloads), *payloads)
    arguments.append(len(scheduled))
    for at, payload in scheduled:
        arguments += (repr(at), payload)
    arguments.append(0)
    names = [name for barrier in barriers for name in keys.barrier(barrier.id)[:2]]
    names += [keys.queue(queue) for queue in pushes]
    return Writes(tuple(names), tuple(arguments))


def _bytes(pushes: Mapping[str, Sequence[bytes]], scheduled: Sequence[tuple[float, bytes]]) -> int:
    return sum(len(p) for ps in pushes.values() for p in ps) + sum(len(p) for _, p in scheduled)


def start(
    connection: Connection,
    run_id: str,
    plan: Writes,
    *,
    ttl: int,
    memory: tuple[str, int] = ("", 0),
    fields: Mapping[str, bytes] = {},
) -> list[Any]:
    """Start a run: reply of ``start.lua``.

    Raises:
      Unconfirmed: if it was done, and too few replicas have it.
    """
    flat = [part for pair in fields.items() for part in pair]
    reply: list[Any] = connection.write(
        *scripts.START.command(
            (keys.run(run_id), memory[0], keys.QUEUES, keys.SCHEDULE, *plan.keys),
            (ttl, memory[1], len(fields), *flat, *plan.arguments),
        )
    )
    return reply


def advance(
    member: str,
    receipt: str,
    unit: str,
    walk: Sequence[Walk],
    *,
    ttl: int,
    memory: tuple[str, int] = ("", 0),
    fields: Mapping[str, bytes] = {},
    planned: int = 0,
    plan: Writes = NOTHING,
) -> Command:
    """The command that advances a run past a finished job; reply of ``advance.lua``.

    Parameters:
      unit: The jid.
      walk: The callback stack, from the top.
      ttl: Seconds that waiting barriers live on.
      memory: The memory's key, and how many seconds it outlives its run.
      fields: Output to keep there.
      planned: Number of the callback that ``plan`` is for (1 = the top), 0 = none.
    """
    triples = [key for entry in walk for key in keys.barrier(entry.barrier)]
    flat = [part for pair in fields.items() for part in pair]
    return scripts.ADVANCE.command(
        (keys.in_flight(member), memory[0], keys.QUEUES, keys.SCHEDULE, *triples, *plan.keys),
        (
            receipt,
            unit,
            ttl,
            memory[1],
            len(fields),
            *flat,
            len(walk),
            *(entry.kind for entry in walk),
            planned,
            *plan.arguments,
        ),
    )


def extend(
    connection: Connection,
    barriers: Iterable[str],
    memory: str = "",
    *,
    also: Iterable[str] = (),
    ttl: int,
    outlive: bool = False,
) -> None:
    """Let barriers and a memory live ``ttl`` seconds from now; none of them shorter than before.

    Parameters:
      memory: The memory's key; empty for none.
      also: Other keys: of stored chains.
      outlive: The memory is to live that long even when its run is over before.
    """
    alive = [key for barrier in barriers for key in keys.barrier(barrier)]
    alive += also
    marker = ""
    if memory:
        alive.append(memory)
        marker = keys.memory_lease(memory)
    connection.call(*scripts.EXTEND.command((marker, *alive), (ttl, int(outlive))))


def release(
    member: str,
    receipt: str,
    *,
    released: str,
    ttl: int,
    memory: tuple[str, int] = ("", 0),
    fields: Mapping[str, bytes] = {},
    plan: Writes = NOTHING,
) -> Command:
    """The command that takes a finished job out of flight which other barriers have counted; reply of ``release.lua``.

    Parameters:
      released: The barrier whose continuation ``plan`` is; empty where nothing follows.
      ttl: Seconds for which it is remembered that it was pushed.
      memory, fields: As for :func:`advance`.
    """
    flat = [part for pair in fields.items() for part in pair]
    marker = keys.released(released) if released else ""
    return scripts.RELEASE.command(
        (keys.in_flight(member), memory[0], keys.QUEUES, keys.SCHEDULE, marker, *plan.keys),
        (receipt, ttl, memory[1], len(fields), *flat, *plan.arguments),
    )


def resume(
    connection: Connection,
    name: str,
    member: bytes,
    *,
    queue: str,
    payload: bytes,
    barriers: Sequence[tuple[str, int]],
    ttl: int,
) -> list[Any]:
    """Put a job that does nothing in the place of a failed step; reply of ``resume.lua``.

    Parameters:
      name: The set that the step is in, ``dead`` or ``retry``.
      barriers: Of its callback stack, and their value where they are gone.
      ttl: Seconds that new barriers live.
    """
    stack = [key for barrier, _ in barriers for key in keys.barrier(barrier)]
    reply: list[Any] = connection.call(
        *scripts.RESUME.command(
            (name, keys.QUEUES, keys.queue(queue), *stack),
            (member, queue, payload, ttl, *(value for _, value in barriers)),
        )
    )
    return reply
