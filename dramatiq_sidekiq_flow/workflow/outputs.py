"""Outputs of steps: the fields that they set in the memory of their run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dramatiq import Broker

from ..context import namespaced
from ..protocols import Memory
from ..store.memory import RedisHashMemory
from ..store.runs import NO_MEMORY, MemoryKey, Output
from ..wire.payload import Payload
from .dropped_output import DroppedOutput


class Outputs:
    """Turns returned values into what an advance writes.

    Parameters:
      memory: The memory of runs; None for none.
      broker: Where the actors are declared.
    """

    def __init__(self, memory: Memory | None, broker: Broker) -> None:
        self.memory = memory
        self._dropped = DroppedOutput(broker, memory is not None)

    def of(self, payload: Payload, value: Any) -> Output:
        """The output of a job that returned ``value``.

        A memory other than RedisHashMemory cannot be part of the advance: it is
        written here, before it, and written again after a crash in between.

        Raises:
          InvalidOutput: if JSON cannot carry the value exactly.
        """
        memory = self.memory_key(payload)
        if payload.run_id is None or value is None:
            return Output(memory)
        self._dropped.warn(payload.actor_name, value)
        if self.memory is None or not isinstance(value, Mapping):
            return Output(memory)
        values = namespaced(value, payload.namespace)
        if isinstance(self.memory, RedisHashMemory):
            return Output(memory, self.memory.encode(values))
        self.memory.write(payload.run_id, values)
        return Output(memory)

    def memory_key(self, payload: Payload) -> MemoryKey:
        """The key of the memory of a job's run."""
        if not isinstance(self.memory, RedisHashMemory) or payload.run_id is None:
            return NO_MEMORY
        return MemoryKey(self.memory.for_dialect(payload.dialect).key(payload.run_id), self.memory.ttl_seconds)
