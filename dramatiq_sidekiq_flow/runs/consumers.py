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
      recovers: True if it sends heartbeats: it recovers the jobs of dead workers.
    """

    name: str
    is_python: bool
    queues: frozenset[str]
    actors: frozenset[str] | None = None
    beat: float | None = None
    recovers: bool = False


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
    def live(self) -> list[Consumer]:
        """The processes, without those of Ruby that have not beaten for too long."""
        return [each for each in self.by_identity.values() if not self.is_silent(each)]

    @property
    def queues(self) -> set[str]:
        """The queues that are consumed."""
        return set().union(*(each.queues for each in self.live))

    def of(self, queue: str) -> list[Consumer]:
        """The processes that consume a queue."""
        return [each for each in self.live if queue in each.queues]

    def names(self, queue: str) -> list[str]:
        """The names of the processes that consume a queue."""
        return [each.name for each in self.of(queue)]

    def is_silent(self, consumer: Consumer) -> bool:
        """Return True if a Ruby process has not beaten for too long: its record stays for a minute after its end."""
        beat = None if consumer.is_python else consumer.beat
        return beat is not None and self.now - beat > RUBY_SILENCE

    def silence(self, member: str) -> float:
        """Seconds since the last heartbeat of a member; 0.0 if it is not registered."""
        return self.now - self.around.beats.get(member, self.now)

    def any_python(self) -> bool:
        """Return True if a Python process is alive."""
        return any(each.is_python for each in self.live)

    def has_rescuer(self, identity: str) -> bool:
        """Return True if another process than this one beats, and recovers the jobs of dead ones."""
        return any(other != identity and each.recovers for other, each in self.by_identity.items())

    def known_names(self) -> set[str]:
        """All names of actors and classes that some process has, or has published."""
        published = (names or frozenset() for names in self.around.classes.values())
        return set().union(*published, *(each.actors or frozenset() for each in self.live))

    def actors_for(self, queue: str) -> frozenset[str]:
        """The actors of the processes that consume a queue; empty if one of them does not say, or is Ruby's."""
        found = [each.actors for each in self.of(queue)]
        return frozenset() if None in found else frozenset().union(*filter(None, found))


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
    for identity, queues in _beating(around, timeout).items():
        # Python's, unless it has a record: one that the Web UI does not show has none.
        known = found.get(identity, Consumer(identity, True, frozenset()))
        found[identity] = attrs.evolve(known, queues=known.queues | queues, recovers=True)
    return Consumers(around, found, timeout)


def _beating(around: Surroundings, timeout: float) -> dict[str, set[str]]:
    """Identity -> queues of the processes that beat."""
    queues: dict[str, set[str]] = {}
    for member in filter(keys.is_member, around.beats):
        if around.now - around.beats[member] <= timeout:
            queues.setdefault(keys.identity_of(member), set()).add(keys.queue_of(member))
    return queues


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
