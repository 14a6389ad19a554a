"""Search for runs by the beginning of their ids."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import dramatiq

from ..store import run_ids, run_lists, run_records
from ..workflow.engine_lookup import engine_of
from .run_reader import head_run
from .snapshot import Run


class IdSearch:
    """Finds runs of a broker by their ids.

    Raises:
      ConfigurationError: if the broker cannot run workflows.
    """

    def __init__(self, broker: dramatiq.Broker) -> None:
        self._connection = engine_of(broker).broker.connection

    def has(self, run_id: str) -> bool:
        """Return True if a run of exactly this id has a record."""
        return run_records.state_of(self._connection, run_id) is not None

    def beginning_with(self, prefix: str, limit: int) -> Sequence[Run]:
        """Find the newest runs whose ids begin so, as they are recorded.

        Raises:
          WrongType: if a key that is read holds another type.
          redis.RedisError: if Redis cannot be reached, or refuses.
        """
        found = set(run_ids.beginning_with(self._connection, prefix))
        newest = heapq.nlargest(limit, found, key=run_lists.order)
        heads = run_records.read_heads(self._connection, [position.run_id for position in newest])
        return [head_run(head) for head in heads if head is not None]
