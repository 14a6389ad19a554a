"""Queue and set sizes, for monitoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from . import keys
from .connection import Connection
from .scripts import Command

_SETS = (keys.SCHEDULE, keys.RETRY, keys.DEAD)


@attrs.frozen
class Depths:
    """Numbers of jobs in Redis, of both languages, at one instant.

    Attributes:
      waiting: Queue -> jobs in it.
      in_flight: Queue -> jobs that Python workers hold (Redis does not know of
        those that Ruby workers hold).
      scheduled, retries, dead: Jobs in the sets of these names.
    """

    waiting: Mapping[str, int]
    in_flight: Mapping[str, int]
    scheduled: int
    retries: int
    dead: int


def depths(connection: Connection) -> Depths:
    """Count the jobs in Redis, in two round trips."""
    queues, members = _names(connection)
    commands: list[Command] = [("LLEN", keys.queue(name)) for name in queues]
    commands += [("HLEN", keys.in_flight(member)) for member in members]
    commands += [("ZCARD", name) for name in _SETS]
    numbers = _count(connection, commands)
    waiting = dict(zip(queues, numbers))
    in_flight = dict.fromkeys(queues, 0)
    for member, number in zip(members, numbers[len(queues) :]):
        queue = keys.queue_of(member)
        in_flight[queue] = in_flight.get(queue, 0) + number
    scheduled, retries, dead = numbers[-len(_SETS) :]
    return Depths(waiting, in_flight, scheduled, retries, dead)


def _names(connection: Connection) -> tuple[list[str], list[str]]:
    """Names of the queues, and members of the workers."""
    queues, members = connection.send([("SMEMBERS", keys.QUEUES), ("ZRANGE", keys.WORKERS, 0, -1)])
    return sorted(_decoded(queues)), [member for member in _decoded(members) if keys.is_member(member)]


def queue_names(connection: Connection) -> list[str]:
    """Read the names of the queues.

    Raises:
      redis.ResponseError: if the Redis user may not read them.
    """
    return sorted(keys.readable(connection.call("SMEMBERS", keys.QUEUES)))


def _decoded(reply: Any) -> list[str]:
    """Names in a reply; none if it is an error, since the key has another type."""
    return keys.readable(reply) if isinstance(reply, (set, list)) else []


def _count(connection: Connection, commands: Sequence[Command]) -> list[int]:
    """Send commands that count, in one transaction."""
    replies = connection.send([("MULTI",), *commands, ("EXEC",)])
    counts = replies[-1]
    if isinstance(counts, Exception):
        raise counts
    # A key of another type, written by another program, counts as empty.
    return [count if isinstance(count, int) else 0 for count in counts]
