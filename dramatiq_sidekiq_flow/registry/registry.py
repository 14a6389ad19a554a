"""The registry: job classes of Ruby and actors of Python, each known to the other language.

Ruby writes a class's own options (its queue, its retries) into a job when it
pushes; a serialized step holds only the options given for that step.  So a
process that advances onto a class of the other language needs that class's
options.  Workers of either language publish theirs to Redis, and read the
other's from there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import attrs
from dramatiq.logging import get_logger

from ..errors import FlowError, InvalidOptions
from ..store import class_registry as store
from ..store.connection import LOST, Connection
from ..wire import codec
from ..wire.dialect import NOOP_CLASSES
from ..wire.option_rules import check_options

if TYPE_CHECKING:
    from ..broker import SidekiqBroker

#: In the order in which a name is looked for: Ruby's list may also hold the
#: stubs of Python actors.
LANGUAGES = ("python", "ruby")

#: How old the copy of the registry may be, in seconds.
MAX_AGE = 30.0

#: A name that is not in a copy of this age is looked for in a new one at once.
MIN_AGE = 1.0

#: How often a worker publishes its actors, in seconds; and again after an error.
PUBLISH_EVERY = 600.0
PUBLISH_AGAIN = 60.0

#: Names remembered as looked for and not found.
_MOST_MISSED = 10_000


@attrs.frozen
class Entry:
    """A Ruby job class, or a Python actor.

    Attributes:
      name: The name of the class or actor.
      options: As in ``sidekiq_options``: ``queue``, ``retry``, ...
      input, output: JSON Schemas of its arguments and of its result; None if
        they are not declared.
    """

    name: str
    options: Mapping[str, Any]
    input: Mapping[str, Any] | None = None
    output: Mapping[str, Any] | None = None

    @classmethod
    def load(cls, name: str, value: Any) -> Entry:
        """Read the JSON form.

        Raises:
          InvalidOptions: if the entry is invalid; the message names the class.
        """
        if type(value) is not dict:
            raise InvalidOptions(f"{name}: a JSON object of options is needed, not {value!r:.100}.", value)
        options = dict(value)
        schemas = [options.pop(key, None) for key in ("input", "output")]
        if not all(map(_may_be_schema, schemas)):
            raise InvalidOptions(f"{name}: input and output must be JSON Schemas.", value)
        try:
            check_options(options)
        except FlowError as e:
            raise InvalidOptions(f"{name}: {e}", value) from None
        return cls(name, options, *schemas)

    def dump(self) -> dict[str, Any]:
        """The JSON form."""
        value = dict(self.options)
        if self.input is not None:
            value["input"] = self.input
        if self.output is not None:
            value["output"] = self.output
        return value


def _may_be_schema(value: Any) -> bool:
    """Whether an entry's input or output is a JSON Schema, or is not declared."""
    return value is None or type(value) is dict


def actors(broker: SidekiqBroker) -> dict[str, Entry]:
    """The entry of each actor of a broker; with JSON Schemas if it is a typed actor."""
    return {
        name: Entry(
            name,
            broker.options_of(name) or {},
            getattr(actor, "input_schema", None),
            getattr(actor, "output_schema", None),
        )
        for name, actor in broker.actors.items()
        if name not in NOOP_CLASSES
    }


def publish(broker: SidekiqBroker) -> None:
    """Publish the actors of a broker, for Ruby and other Python programs."""
    entries = {name: codec.encode(entry.dump()) for name, entry in actors(broker).items()}
    store.publish(broker.connection, "python", entries)


def published(connection: Connection) -> dict[str, dict[str, Entry]]:
    """All entries that Redis holds now, by language; invalid ones are left out.

    Raises:
      redis.ResponseError: if Redis refuses to read them.
    """
    found: dict[str, dict[str, Entry]] = {}
    for language, entries in zip(LANGUAGES, store.read(connection, LANGUAGES)):
        if isinstance(entries, Exception):
            raise entries
        found[language] = _valid_entries(entries)
    return found


def _valid_entries(stored: Mapping[str, bytes]) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for name, raw in stored.items():
        entry = _load(name, raw)
        if entry is not None:
            entries[name] = entry
    return entries


class _Copy:
    """A copy of the registry.  It is replaced as a whole, never changed."""

    def __init__(self, at: float, raw: Mapping[str, bytes], python: Collection[str] = ()) -> None:
        self.at = at
        self.raw = raw
        self.python = python
        self._entries: dict[str, Entry | None] = {}

    def find(self, name: str) -> Entry | None:
        raw = self.raw.get(name)
        if raw is None:
            return None
        try:
            return self._entries[name]
        except KeyError:
            entry = self._entries[name] = _load(name, raw)
            return entry


class Registry:
    """Looks up classes that this process does not have.

    A copy is kept, so that a step costs no round trip.  In a worker the
    heartbeat renews it; elsewhere a look-up does, when the copy is too old.

    Parameters:
      file: Entries of a file (see ``registry.file``), which come first.
    """

    def __init__(self, connection: Connection, file: Mapping[str, Mapping[str, Entry]] | None = None) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = connection
        self._file: dict[str, Entry] = {}
        for language in reversed(LANGUAGES):
            self._file.update((file or {}).get(language, {}))
        self._filed_python = frozenset((file or {}).get("python", {}))
        self._copy = _Copy(float("-inf"), {})
        self._missed: set[str] = set()
        self._asked = False
        self._refused: set[str] = set()
        self._publish_at = float("-inf")
        self._lock = threading.Lock()

    def find(self, name: str) -> Entry | None:
        """The entry of a class.

        Raises:
          redis.ConnectionError, redis.TimeoutError: if the class is not
            known yet and Redis cannot be reached.
        """
        entry = self._file.get(name)
        if entry is not None:
            return entry
        self._asked = True
        seen = self._copy
        if self._is_outdated(seen, name):
            self._renew_for(name, seen)
        return self._copy.find(name)

    def _is_outdated(self, seen: _Copy, name: str) -> bool:
        age = time.monotonic() - seen.at
        if age > MAX_AGE:
            return True
        return age > MIN_AGE and name not in seen.raw and name not in self._missed

    def _renew_for(self, name: str, seen: _Copy) -> None:
        known = name in seen.raw
        try:
            self._renew(seen, wait=not known)
        except LOST:
            if not known:
                raise
        if name not in self._copy.raw:
            self._add_missed(name)

    def _add_missed(self, name: str) -> None:
        if len(self._missed) >= _MOST_MISSED:
            self._missed.clear()
        self._missed.add(name)

    def is_python(self, name: str) -> bool:
        """Whether a Python actor has this name.

        Raises:
          redis.ConnectionError, redis.TimeoutError: as :meth:`find`.
        """
        if name in self._file:
            return name in self._filed_python
        return self.find(name) is not None and name in self._copy.python

    def filed(self, name: str) -> Entry | None:
        """The entry of a class in the file."""
        return self._file.get(name)

    def names(self) -> set[str]:
        """The names in the file and in the current copy; Redis is not asked."""
        return {*self._file, *self._copy.raw}

    def beat(self, broker: SidekiqBroker) -> None:
        """Publish this process's actors and renew the copy, each if it is due."""
        now = time.monotonic()
        if now >= self._publish_at:
            self._publish_at = now + PUBLISH_AGAIN
            publish(broker)
            self._publish_at = now + PUBLISH_EVERY
        if self._asked and now - self._copy.at > MAX_AGE / 2:
            self._renew(self._copy, wait=False)

    def _renew(self, seen: _Copy, *, wait: bool) -> None:
        if not self._lock.acquire(blocking=wait):
            return
        try:
            # Otherwise another thread has renewed it meanwhile.
            if self._copy is seen:
                self._copy = self._read()
        finally:
            self._lock.release()

    def _read(self) -> _Copy:
        at = time.monotonic()
        raw: dict[str, bytes] = {}
        python: Collection[str] = ()
        replies = [*zip(LANGUAGES, store.read(self.connection, LANGUAGES))]
        # The first language last: its entries replace the stubs of the others.
        for language, entries in reversed(replies):
            if isinstance(entries, Exception):
                self._warn_once(language, entries)
                continue
            raw.update(entries)
            if language == "python":
                python = entries
        return _Copy(at, raw, python)

    def _warn_once(self, language: str, error: Exception) -> None:
        if language not in self._refused:
            self._refused.add(language)
            self.logger.warning("The registry of %s's classes cannot be read: %s", language, error)


def _load(name: str, raw: bytes) -> Entry | None:
    try:
        return Entry.load(name, codec.decode(raw))
    except FlowError as e:
        get_logger(__name__, Entry).warning("The registry's entry for %s is passed over: %s", name, e)
        return None
