"""How much waits where: for people and for monitoring."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from . import keys
from .connection import Connection


@attrs.frozen
class Depths:
    """What Redis holds, of both languages, seen at one instant.

    Attributes:
      waiting: Queue -> jobs in it.
      in_flight: Queue -> jobs that Python workers hold (Ruby's hold none that
        Redis knows of).
      scheduled, retries, dead: Jobs in the sets of these names.
    """

    waiting: Mapping[str, int]
    in_flight: Mapping[str, int]
    scheduled: int
    retries: int
    dead: int


def depths(connection: Connection) -> Depths:
    """Count, in two round trips."""
    names, members = connection.send([("SMEMBERS", keys.QUEUES), ("ZRANGE", keys.WORKERS, 0, -1)])
    queues = sorted(keys.readable(names if isinstance(names, (set, list)) else ()))
    workers = keys.readable(members if isinstance(members, list) else ())
    workers = [member for member in workers if keys.is_member(member)]
    *_, counts = connection.send(
        [
            ("MULTI",),
            *(("LLEN", keys.queue(name)) for name in queues),
            *(("HLEN", keys.in_flight(member)) for member in workers),
            *(("ZCARD", name) for name in (keys.SCHEDULE, keys.RETRY, keys.DEAD)),
            ("EXEC",),
        ]
    )
    if isinstance(counts, Exception):
        raise counts
    # A key of another type, which somebody else made, counts as empty.
    numbers = [count if isinstance(count, int) else 0 for count in counts]
    in_flight = dict.fromkeys(queues, 0)
    for member, count in zip(workers, numbers[len(queues) :]):
        queue = keys.queue_of(member)
        in_flight[queue] = in_flight.get(queue, 0) + count
    scheduled, retries, dead = numbers[-3:]
    return Depths(dict(zip(queues, numbers)), in_flight, scheduled, retries, dead)
