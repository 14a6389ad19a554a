"""The worker processes that could run a step, of either language."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import attrs

from ..errors import PayloadError
from ..process.fleet import is_python, name_of, queues_of, read_info
from ..registry.registry import LANGUAGES
from ..store import keys, surroundings
from ..store.connection import Connection
from ..store.surroundings import ProcessRecord, Surroundings
from ..wire import codec

#: Seconds without a beat after which a Ruby process is taken for dead: Sidekiq beats each 10 seconds.
RUBY_SILENCE = 30.0

#: Seconds for which what was read is used again.
MAX_AGE = 1.0


@attrs.frozen
class Consumer:
    """A worker process that has a record, or a heartbeat.

    Attributes:
      name: Its identity and tag, for people.
      actors: Names of its actors; None if it does not say them.
      beat: Its last beat in epoch seconds; None if it is not known.
    """

    name: str
    is_python: bool
    queues: frozenset[str]
    actors: frozenset[str] | None = None
    beat: float | None = None


@attrs.frozen
class Consumers:
    """All worker processes, and what else decides whether a step can run.

    Attributes:
      by_identity: ``HOST:PID:NONCE`` -> process.
      timeout: Seconds without a heartbeat after which a Python process is dead.
    """

    around: Surroundings
    by_identity: Mapping[str, Consumer]
    timeout: float

    @property
    def now(self) -> float:
        """Redis's time in epoch seconds."""
        return self.around.now

    @property
    def queues(self) -> set[str]:
        """The queues that are consumed."""
        return {queue for each in self.by_identity.values() if not self.is_silent(each) for queue in each.queues}

    def of(self, queue: str) -> list[Consumer]:
        """The processes that consume a queue."""
        return [each for each in self.by_identity.values() if queue in each.queues and not self.is_silent(each)]

    def is_silent(self, consumer: Consumer) -> bool:
        """Return True if a Ruby process has not beaten for too long: its record stays for a minute after its end."""
        beat = None if consumer.is_python else consumer.beat
        return beat is not None and self.now - beat > RUBY_SILENCE

    def silence(self, member: str) -> float | None:
        """Seconds since the last heartbeat of a member; None if it is not registered."""
        beat = self.around.beats.get(member)
        return None if beat is None else self.now - beat

    def known_names(self) -> set[str]:
        """All names of actors and classes that some process has, or has published."""
        published = (names for names in self.around.classes.values() if names)
        actors = (each.actors for each in self.by_identity.values() if each.actors)
        return set().union(*published, *actors)

    def actors_for(self, queue: str) -> frozenset[str] | None:
        """The actors of the Python processes that consume a queue; None if one of them does not say."""
        found: set[str] = set()
        for each in self.of(queue):
            if each.is_python and each.actors is None:
                return None
            found |= each.actors or frozenset()
        return frozenset(found)


class Surveyor:
    """Reads the worker processes, and remembers them for a second: a doctor looks at many runs.

    Parameters:
      timeout: Seconds without a heartbeat after which a Python process is dead.
    """

    def __init__(self, connection: Connection, timeout: float) -> None:
        self.connection = connection
        self.timeout = timeout
        self._read: tuple[float, Consumers] | None = None

    def look(self) -> Consumers:
        """The worker processes.

        Raises:
          redis.RedisError: if Redis cannot be reached.
        """
        if self._read is None or time.monotonic() - self._read[0] > MAX_AGE:
            around = surroundings.read(self.connection, LANGUAGES)
            self._read = (time.monotonic(), consumers_of(around, self.timeout))
        return self._read[1]


def consumers_of(around: Surroundings, timeout: float) -> Consumers:
    """Make the processes from what Redis holds of them."""
    found: dict[str, Consumer] = {}
    for identity, record in around.processes.items():
        info = read_info(record.info)
        if info:
            found[identity] = _recorded(identity, info, record)
    beating: dict[str, set[str]] = {}
    for member, beat in around.beats.items():
        if keys.is_member(member) and around.now - beat <= timeout:
            beating.setdefault(keys.identity_of(member), set()).add(keys.queue_of(member))
    for identity, queues in beating.items():
        # Python's, unless it has a record: one that the Web UI does not show has none.
        known = found.get(identity, Consumer(identity, True, frozenset()))
        found[identity] = attrs.evolve(known, queues=known.queues | queues)
    return Consumers(around, found, timeout)


def _recorded(identity: str, info: Mapping[str, Any], record: ProcessRecord) -> Consumer:
    return Consumer(
        name_of({"identity": identity, **info}),
        is_python(info),
        frozenset(queues_of([info])),
        _actors(record.actors),
        _beat(record.beat),
    )


def _actors(raw: bytes | None) -> frozenset[str] | None:
    """The names of actors; None if the process does not say them."""
    try:
        names = codec.decode_value(raw or b"null")
    except PayloadError:
        return None
    return frozenset(name for name in names if type(name) is str) if type(names) is list else None


def _beat(raw: bytes | None) -> float | None:
    try:
        return float(raw or b"")
    except ValueError:
        return None
