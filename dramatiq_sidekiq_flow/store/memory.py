"""Memory of a run: a Redis hash that all its steps read and write.

``PREFIX:RUN_ID`` holds field -> JSON of the value, and expires; it is the
gem's ``Memory::RedisHashMemory``, byte for byte.  Unlike the gem's, it lives as
long as its run: each step that Python runs extends its TTL (``advance.lua``).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from ..errors import ConfigurationError, InvalidArguments, InvalidOutput, cut, shortened
from ..wire import codec
from ..wire.dialect import WORKFLOW, Dialect
from ..wire.lifetimes import RETRY_HORIZON
from . import scripts
from .connection import Connection
from .keys import memory_lease


class RedisHashMemory:
    """Memory in a Redis hash, shared with the gem's workers.

    Parameters:
      ttl: Lifetime of a hash after the last step of its run (a day by default;
        an int is milliseconds).  While more steps are due, it lives as long as
        they may need it, even if that is longer.
      key_prefix: By default the gem's: ``swf:mem``, or ``sl:mem`` if the
        middleware or a job uses the dialect ``sideline``.

    Raises:
      ConfigurationError: if the ttl is shorter than a second.
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
        """Set the Redis, and the default prefix by the dialect.  Called by the middleware."""
        self._connection = connection
        if not self._given:
            self.key_prefix = dialect.memory_prefix

    def for_dialect(self, dialect: Dialect) -> RedisHashMemory:
        """This memory with the key prefix of a run's dialect."""
        if self._given or self.key_prefix == dialect.memory_prefix:
            return self
        other = copy.copy(self)
        other.key_prefix = dialect.memory_prefix
        other._for_steps = {}
        return other

    def for_running_step(self, dialect: Dialect) -> RedisHashMemory:
        """This memory for a running step: its writes live at least as long as the step may be retried."""
        memory = self._for_steps.get(dialect.name)
        if memory is None or memory._connection is not self._connection:
            memory = copy.copy(self.for_dialect(dialect))
            memory._least = max(memory.ttl_seconds, RETRY_HORIZON)
            self._for_steps[dialect.name] = memory
        return memory

    @property
    def connection(self) -> Connection:
        """Connection to the Redis of the broker.

        Raises:
          ConfigurationError: if no broker was set up with this memory.
        """
        if self._connection is None:
            raise ConfigurationError("This memory is not bound to a broker: pass it to WorkflowMiddleware(memory=...).")
        return self._connection

    def key(self, run_id: str) -> str:
        """Redis key of a run."""
        return f"{self.key_prefix}:{run_id}"

    @property
    def ttl_seconds(self) -> int:
        """The ttl in seconds, for Redis."""
        return int(self.ttl.total_seconds())

    def encode(self, values: Mapping[str, Any]) -> dict[str, bytes]:
        """Encode the values of fields as JSON.

        Raises:
          InvalidOutput: if a key is not a string, if JSON cannot carry a value
            exactly, or if the sum is larger than a payload may be: Redis would
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
                raise InvalidOutput(f"This cannot be stored in the run's memory: {cut(e)}", values) from None
        if size > codec.MAX_SIZE:
            raise InvalidOutput(
                f"This cannot be stored in the run's memory: it has {size} bytes of JSON, more than {codec.MAX_SIZE}. "
                "Store the data elsewhere, and return its location.",
                values,
            )
        return fields

    def write(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Write fields; renews the TTL of the hash, and never shortens it.

        Raises:
          InvalidOutput: as :meth:`encode`; nothing is written.
          redis.RedisError: if Redis cannot be reached, or refuses.
        """
        fields = self.encode(values)
        if fields:
            flat: list[scripts.Argument] = []
            for pair in fields.items():
                flat += pair
            self.connection.call(*scripts.REMEMBER.command((self.key(run_id),), (self._least, *flat)))

    def read(self, run_id: str, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """Read all fields, or those of ``keys`` that exist.

        Names that are not UTF-8 are decoded with ``surrogateescape``.
        """
        if keys is None:
            return self._read_all(run_id)
        names = list(keys)
        if not names:
            return {}
        values = self.connection.call("HMGET", self.key(run_id), *map(_bytes, names))
        return {name: codec.decode_value(value) for name, value in zip(names, values) if value is not None}

    def _read_all(self, run_id: str) -> dict[str, Any]:
        reply = self.connection.call("HGETALL", self.key(run_id))
        # A dict over RESP3, a flat list over RESP2.
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2])
        return {_text(name): codec.decode_value(value) for name, value in pairs}

    def clear(self, run_id: str) -> None:
        """Delete the memory of a run."""
        self.connection.call("UNLINK", self.key(run_id), memory_lease(self.key(run_id)))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
