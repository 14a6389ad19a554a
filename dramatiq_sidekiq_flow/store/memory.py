"""The memory of a run: a hash that all its steps read and write.

``PREFIX:RUN_ID`` holds field -> JSON of the value, and expires; it is the
gem's ``Memory::RedisHashMemory``, byte for byte.  Unlike the gem's, it lives as
long as its run: each step that Python takes keeps it alive (``advance.lua``).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from ..errors import ConfigurationError, InvalidArguments, InvalidOutput, cut, shortened
from ..wire import codec
from ..wire.dialect import WORKFLOW, Dialect
from ..wire.payload import RETRY_HORIZON
from . import scripts
from .connection import Connection
from .keys import memory_lease


class RedisHashMemory:
    """Memory in a Redis hash, shared with the gem's workers.

    Parameters:
      ttl: How long a hash lives after the last that happened in its run (a
        day by default; an int is milliseconds).  While steps are still to
        come, it lives as long as they may need it, whatever this says.
      key_prefix: The gem's default unless given: ``swf:mem``, or ``sl:mem``
        where the middleware or a job speaks the dialect ``sideline``.
    """

    def __init__(self, ttl: timedelta | int = timedelta(days=1), key_prefix: str | None = None) -> None:
        if isinstance(ttl, int):
            ttl = timedelta(milliseconds=ttl)
        if ttl < timedelta(seconds=1):
            raise ConfigurationError(f"The ttl of a memory must be a second or more (an int is milliseconds): {ttl}.")
        self.ttl = ttl
        self.key_prefix = key_prefix or WORKFLOW.memory_prefix
        self._given = key_prefix is not None
        self._connection: Connection | None = None
        self._least = self.ttl_seconds
        self._for_steps: dict[str, RedisHashMemory] = {}

    def bind(self, connection: Connection, dialect: Dialect = WORKFLOW) -> None:
        """Use this Redis, and this dialect's prefix unless one was given.  Called by the middleware."""
        self._connection = connection
        if not self._given:
            self.key_prefix = dialect.memory_prefix

    def for_dialect(self, dialect: Dialect) -> RedisHashMemory:
        """This memory for a run that began in a dialect."""
        if self._given or self.key_prefix == dialect.memory_prefix:
            return self
        other = copy.copy(self)
        other.key_prefix = dialect.memory_prefix
        other._for_steps = {}
        return other

    def for_running_step(self, dialect: Dialect) -> RedisHashMemory:
        """This memory for a step at work: what it writes lives at least as long as the step may be retried."""
        memory = self._for_steps.get(dialect.name)
        if memory is None or memory._connection is not self._connection:
            memory = copy.copy(self.for_dialect(dialect))
            memory._least = max(memory.ttl_seconds, RETRY_HORIZON)
            self._for_steps[dialect.name] = memory
        return memory

    @property
    def connection(self) -> Connection:
        """The Redis in use.

        Raises:
          ConfigurationError: before a broker was set up with this memory.
        """
        if self._connection is None:
            raise ConfigurationError("This memory is not bound to a broker: pass it to WorkflowMiddleware(memory=...).")
        return self._connection

    def key(self, run_id: str) -> str:
        """The Redis key of a run."""
        return f"{self.key_prefix}:{run_id}"

    @property
    def ttl_seconds(self) -> int:
        """The ttl as Redis takes it."""
        return int(self.ttl.total_seconds())

    def encode(self, values: Mapping[str, Any]) -> dict[str, bytes]:
        """Field -> JSON.

        Raises:
          InvalidOutput: if a key is not a string, if JSON cannot carry a value
            exactly, and if all is larger than a payload may be: Redis would
            refuse values above its ``proto-max-bulk-len``.
        """
        fields = {}
        size = 0
        for key, value in values.items():
            if type(key) is not str:
                raise InvalidOutput(
                    f"The memory's keys are strings; {shortened(key)} is a {type(key).__name__}.", values
                )
            try:
                codec.check(value, key)
                fields[key] = codec.encode(value)
                size += len(fields[key]) + len(key.encode())
            except (InvalidArguments, UnicodeEncodeError) as e:
                raise InvalidOutput(f"This cannot be kept in the run's memory: {cut(e)}", values) from None
        if size > codec.MAX_SIZE:
            raise InvalidOutput(
                f"This cannot be kept in the run's memory: it has {size} bytes of JSON, more than {codec.MAX_SIZE}. "
                "Store the data elsewhere, and return where it is.",
                values,
            )
        return fields

    def write(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Write fields; each write renews the ttl of all, and never makes it shorter.

        Raises:
          InvalidOutput: as :meth:`encode`; nothing is written.
          redis.RedisError: where Redis cannot be reached, or refuses.
        """
        if fields := self.encode(values):
            flat = [part for pair in fields.items() for part in pair]
            self.connection.call(*scripts.REMEMBER.command((self.key(run_id),), (self._least, *flat)))

    def read(self, run_id: str, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """Read all fields, or those of ``keys`` that are there.

        The bytes of a name that is not UTF-8 are in it as ``surrogateescape`` writes them.
        """
        if keys is None:
            reply = self.connection.call("HGETALL", self.key(run_id))
            pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2])
            return {_text(name): codec.decode_value(value) for name, value in pairs}
        names = list(keys)
        values = self.connection.call("HMGET", self.key(run_id), *map(_bytes, names)) if names else []
        return {name: codec.decode_value(value) for name, value in zip(names, values) if value is not None}

    def clear(self, run_id: str) -> None:
        """Forget a run."""
        self.connection.call("UNLINK", self.key(run_id), memory_lease(self.key(run_id)))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
