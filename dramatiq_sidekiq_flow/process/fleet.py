"""Which live process consumes which queue, of either language."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import attrs
from dramatiq.logging import get_logger

from ..errors import PayloadError
from ..store import keys, processes
from ..store.connection import Connection
from ..wire import codec

#: How old the copy may be, in seconds.
MAX_AGE = 10.0

#: Value of ``language`` in a process record that Python wrote.
LANGUAGE = "python"


@attrs.frozen
class Fleet:
    """The processes that are alive.

    Attributes:
      ruby: Queue -> a Ruby process that consumes it.
      python: Queues that Python processes consume.
    """

    ruby: Mapping[str, str] = {}
    python: frozenset[str] = frozenset()

    @property
    def queues(self) -> set[str]:
        """The queues that any process consumes; empty if no process is known."""
        return {*self.ruby, *self.python}


class FleetView:
    """A cached Fleet, refreshed on access when it is too old."""

    def __init__(self, connection: Connection) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = connection
        self._at = float("-inf")
        self._fleet = Fleet()
        self._lock = threading.Lock()

    def look(self, max_age: float = MAX_AGE) -> Fleet:
        """The fleet as it was at most ``max_age`` seconds ago; an older copy if Redis cannot be read."""
        # One thread reads; others, and a child forked in the meantime, use the copy.
        if time.monotonic() - self._at > max_age and self._lock.acquire(blocking=False):
            try:
                self._fleet = _fleet(*processes.fleet(self.connection))
            except Exception as e:
                self.logger.debug("The process records could not be read: %s", e)
            finally:
                self._at = time.monotonic()
                self._lock.release()
        return self._fleet


def plain_ruby(connection: Connection) -> dict[str, bytes | None]:
    """Identity -> last beat, as it wrote it, of each Ruby process without the companion.

    Raises:
      redis.RedisError: if Redis cannot be reached, or refuses.
    """
    infos, members = processes.fleet(connection)
    with_companion = {keys.identity_of(member) for member in members if keys.is_member(member)}
    plain = [identity for identity, info in _records(infos).items() if not is_python(info)]
    return processes.beats(connection, [identity for identity in plain if identity not in with_companion])


def ruby_infos(infos: Iterable[bytes | None]) -> list[dict[str, Any]]:
    """Decode the records of processes that are not Python's."""
    return [info for info in map(read_info, infos) if info and not is_python(info)]


def queues_of(infos: Iterable[Mapping[str, Any]]) -> set[str]:
    """The queues that these processes consume."""
    return {name for info in infos for name in _queues(info)}


def name_of(info: Mapping[str, Any]) -> str:
    """The name of a process in messages: its identity, and its tag."""
    tag = info.get("tag")
    identity = info.get("identity") or f"{info.get('hostname')}:{info.get('pid')}"
    return f"{identity} ({tag})" if type(tag) is str and tag not in ("", "/") else str(identity)


def _fleet(infos: Mapping[str, bytes | None], members: Iterable[str]) -> Fleet:
    records = _records(infos)
    python = queues_of(info for info in records.values() if is_python(info))
    others = {identity: info for identity, info in records.items() if not is_python(info)}
    beating = _beating_queues(members, others.keys())
    return Fleet(_ruby_consumers(others), frozenset(python | beating))


def _records(infos: Mapping[str, bytes | None]) -> dict[str, dict[str, Any]]:
    """Identity -> record of the processes that have one that can be read."""
    records = {}
    for identity, raw in infos.items():
        info = read_info(raw)
        if info:
            records[identity] = info
    return records


def is_python(info: Mapping[str, Any]) -> bool:
    return info.get("language") == LANGUAGE


def _ruby_consumers(records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Queue -> the first Ruby process that consumes it."""
    consumers: dict[str, str] = {}
    for identity, info in records.items():
        for queue in _queues(info):
            consumers.setdefault(queue, name_of({"identity": identity, **info}))
    return consumers


def _beating_queues(members: Iterable[str], others: Collection[str]) -> set[str]:
    """The queues of Python processes that beat: one that the Web UI does not show has no record.

    Parameters:
      others: Identities that are not Python's: those with the companion beat, too.
    """
    named = [member for member in members if member.count(":") >= 3]
    return {keys.queue_of(member) for member in named if keys.identity_of(member) not in others}


def read_info(raw: bytes | None) -> dict[str, Any] | None:
    try:
        return codec.decode(raw or b"{}")
    except PayloadError:
        return None


def _queues(info: Mapping[str, Any]) -> set[str]:
    """The queues of a process record: its capsules', else as Sidekiq 7 wrote them (9 leaves these out)."""
    found: set[str] = set()
    capsules = info.get("capsules")
    for capsule in capsules.values() if type(capsules) is dict else ():
        if type(capsule) is dict:
            found |= _names(capsule.get("weights")) | _names(capsule.get("queues"))
    return found or _names(info.get("queues"))


def _names(value: Any) -> set[str]:
    """The names in a list, or among the keys of an object; none in any other value."""
    if type(value) is not dict and type(value) is not list:
        return set()
    return {name for name in value if type(name) is str}
