"""What decides whether a job can run: worker processes, their beats, paused queues and published classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from . import keys
from .connection import Connection
from .scripts import Command
from .sets import scored

#: Fields of a process's record that are read.
_FIELDS = ("info", "actors", "beat")


@attrs.frozen
class ProcessRecord:
    """Record of a worker process; a field that is missing is None.

    Attributes:
      info: JSON object.
      actors: JSON list of the names of its actors; only Python writes it.
      beat: Time of its last beat, as it wrote it.
    """

    info: bytes | None
    actors: bytes | None
    beat: bytes | None


@attrs.frozen
class Surroundings:
    """What surrounds the jobs.

    Attributes:
      now: Redis's time in epoch seconds.
      processes: Identity -> record.
      beats: Member of the worker registry -> its last beat, in epoch seconds.
      paused: Names of paused queues.
      classes: Language -> names that it has published; None for a language whose names cannot be read.
    """

    now: float
    processes: Mapping[str, ProcessRecord]
    beats: Mapping[str, float]
    paused: frozenset[str]
    classes: Mapping[str, frozenset[str] | None]


def read(connection: Connection, languages: Sequence[str] = ()) -> Surroundings:
    """Read the surroundings in two round trips; what the Redis user may not read counts as empty."""
    commands: list[Command] = [
        ("TIME",),
        ("SMEMBERS", keys.PROCESSES),
        ("ZRANGE", keys.WORKERS, 0, -1, "WITHSCORES"),
        ("SMEMBERS", keys.PAUSED),
        *(("HKEYS", keys.registry(language)) for language in languages),
    ]
    now, identities, members, paused, *names = connection.send(commands)
    if isinstance(now, Exception):
        raise now
    return Surroundings(
        float(now[0]) + float(now[1]) / 1e6,
        _records(connection, keys.readable(_array(identities))),
        {member.decode("utf-8", "replace"): score for member, score in scored(_array(members))},
        frozenset(keys.readable(_array(paused))),
        {language: _names(reply) for language, reply in zip(languages, names)},
    )


def _records(connection: Connection, identities: Sequence[str]) -> dict[str, ProcessRecord]:
    replies = connection.send([("HMGET", identity, *_FIELDS) for identity in identities]) if identities else []
    read = {identity: reply for identity, reply in zip(identities, replies) if not isinstance(reply, Exception)}
    return {identity: ProcessRecord(*values) for identity, values in read.items()}


def missing(connection: Connection, barriers: Sequence[str]) -> set[str]:
    """Find the barriers that do not exist; none if the Redis user may not ask."""
    replies = connection.send([("EXISTS", *keys.barrier(id)[:2]) for id in barriers]) if barriers else []
    return {id for id, reply in zip(barriers, replies) if type(reply) is int and reply < 2}


def _names(reply: Any) -> frozenset[str] | None:
    return None if isinstance(reply, Exception) else frozenset(keys.readable(reply))


def _array(reply: Any) -> list[Any]:
    """A reply that is an array or a set; empty for an error: another type, or no right to read."""
    return [] if isinstance(reply, Exception) else list(reply)
