"""Runs: started once, advanced one step at a time."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import attrs

from . import keys, scripts
from .connection import Connection
from .scripts import Argument, Command

#: A fan-out above these is laid down in chunks first, then committed in one
#: step, so that no single script holds Redis up for long.
MAX_JOBS_INLINE = 1000
MAX_BYTES_INLINE = 1024 * 1024

#: Chunks that nobody commits (a crash in between) vanish after this, in seconds.
STAGE_TTL = 3600


class NewBarrier(Protocol):
    """See ``workflow.plan.NewBarrier``."""

    @property
    def id(self) -> str: ...
    @property
    def value(self) -> int: ...
    @property
    def ran(self) -> int: ...
    @property
    def ttl(self) -> int: ...


@attrs.frozen
class Writes:
    """A plan as the scripts take it: the keys and arguments of ``_plan.lua``."""

    keys: tuple[str, ...]
    arguments: tuple[Argument, ...]


#: No barriers, queues, scheduled jobs or chunks.
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
    chunks: list[tuple[str, str]] = []
    if jobs > MAX_JOBS_INLINE or _bytes(pushes, scheduled) > MAX_BYTES_INLINE:
        for queue, payloads in pushes.items():
            chunks += _stage(connection, queue, payloads, MAX_JOBS_INLINE)
        pairs = [part for at, payload in scheduled for part in (repr(at), payload)]
        # An even chunk: a score and its payload stay together.
        chunks += _stage(connection, "", pairs, 2 * MAX_JOBS_INLINE)
        pushes, scheduled = {}, ()
    arguments: list[Argument] = [len(barriers)]
    for barrier in barriers:
        arguments += (barrier.ttl, barrier.value, barrier.ran)
    arguments.append(len(pushes))
    for queue, payloads in pushes.items():
        arguments += (queue, len(payloads), *payloads)
    arguments.append(len(scheduled))
    for at, payload in scheduled:
        arguments += (repr(at), payload)
    arguments += (len(chunks), *(queue for queue, _ in chunks))
    names = [name for barrier in barriers for name in keys.barrier(barrier.id)[:2]]
    names += [keys.queue(queue) for queue in pushes]
    names += [key for _, key in chunks]
    return Writes(tuple(names), tuple(arguments))


def _bytes(pushes: Mapping[str, Sequence[bytes]], scheduled: Sequence[tuple[float, bytes]]) -> int:
    return sum(len(p) for ps in pushes.values() for p in ps) + sum(len(p) for _, p in scheduled)


def _stage(connection: Connection, queue: str, parts: Sequence[Any], most: int) -> list[tuple[str, str]]:
    chunks, start = [], 0
    while start < len(parts):
        end, size = start, 0
        while end < len(parts) and end - start < most and (size < MAX_BYTES_INLINE or (end - start) % 2):
            size += len(parts[end])
            end += 1
        key = keys.stage(secrets.token_hex(12))
        connection.call(*scripts.STAGE.command((key,), (STAGE_TTL, *parts[start:end])))
        chunks.append((queue, key))
        start = end
    return chunks


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
        marker = keys.keep(memory)
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
