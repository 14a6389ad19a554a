"""Outputs of steps: the values that they set in the memory of their run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dramatiq import Broker

from ..context import namespaced
from ..protocols import Memory
from ..store.memory import RedisHashMemory
from ..store.runs import NO_MEMORY, MemoryKey, Output
from ..wire.dialect import WORKFLOW, Dialect
from ..wire.payload import Payload
from .dropped_output import DroppedOutput


class Outputs:
    """Converter of return values to the values that an advance writes.

    Parameters:
      memory: The memory of runs; None if there is none.
      broker: The broker that the actors are declared on.
    """

    def __init__(self, memory: Memory | None, broker: Broker) -> None:
        self.memory = memory
        self._dropped = DroppedOutput(broker, memory is not None)
        #: Of the last step: its run and dialect, and the output without values, the same for each step of the run.
        self._last: tuple[str, Dialect, Output] = ("", WORKFLOW, _NOTHING)

    def of(self, payload: Payload, value: Any) -> Output:
        """Make the output of a job that returned ``value``.

        A memory other than RedisHashMemory cannot be part of the advance: it is
        written here, before the advance, and again if a crash comes in between.

        Raises:
          InvalidOutput: if JSON cannot carry the value exactly.
        """
        empty = self._empty(payload)
        if payload.run_id is None or value is None:
            return empty
        self._dropped.warn(payload.actor_name, value)
        if self.memory is None or not isinstance(value, Mapping):
            return empty
        values = namespaced(value, payload.namespace)
        if isinstance(self.memory, RedisHashMemory):
            return Output(empty.memory, self.memory.encode(values))
        self.memory.write(payload.run_id, values)
        return empty

    def memory_key(self, payload: Payload) -> MemoryKey:
        """Get the key of the memory of a job's run; NO_MEMORY if it has no RedisHashMemory or no run."""
        return self._empty(payload).memory

    def _empty(self, payload: Payload) -> Output:
        """The output of a job that sets no values."""
        run_id, dialect, memory = payload.run_id, payload.dialect, self.memory
        if run_id is None or not isinstance(memory, RedisHashMemory):
            return _NOTHING
        last_run, last_dialect, output = self._last
        if last_run != run_id or last_dialect is not dialect:
            output = Output(MemoryKey(memory.for_dialect(dialect).key(run_id), memory.ttl_seconds))
            self._last = (run_id, dialect, output)
        return output


_NOTHING = Output(NO_MEMORY)
