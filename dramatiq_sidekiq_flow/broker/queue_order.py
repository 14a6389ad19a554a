"""The order in which one process serves its queues.

Dramatiq has a thread that fetches for each queue, and one priority queue in
the process from which its threads take jobs.  So the order is kept in two places:
waiting jobs of the process are taken in order (``work_queue``), and in strict
order a queue is not fetched from while one before it has jobs
(``worker_process``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from ..errors import ConfigurationError

Order = Sequence[str] | Mapping[str, int]


class QueueOrder:
    """Sidekiq's modes (``capsule.rb``): ``strict``, ``weighted``, or ``random`` for all alike.

    Parameters:
      order: Names, the first one first; or name -> weight, 1 or more; None
        for all alike.  Queues that are not named come last, or weigh 1.

    Raises:
      ConfigurationError: if a name is there twice, or a weight is below 1.
    """

    def __init__(self, order: Order | None = None) -> None:
        self.mode: Literal["strict", "weighted", "random"] = "random"
        self.weights: dict[str, int] = {}
        self._ranks: dict[str, int] = {}
        if isinstance(order, Mapping):
            self._set_weights(dict(order))
        elif order is not None:
            self._set_ranks(order)

    def _set_weights(self, weights: dict[str, int]) -> None:
        for name, weight in weights.items():
            if type(weight) is not int or weight < 1:
                raise ConfigurationError(f"The weight of queue {name!r} must be an integer of 1 or more.", weight)
        self.weights = weights
        if set(weights.values()) != {1}:
            self.mode = "weighted"

    def _set_ranks(self, order: Sequence[str]) -> None:
        names = list(order)
        if isinstance(order, str) or not all(isinstance(name, str) for name in names):
            raise ConfigurationError("An order of queues is a list of names, or a mapping of names to weights.", order)
        if len(set(names)) < len(names):
            raise ConfigurationError(f"A queue is in the order of queues twice: {names!r}.", names)
        self.mode = "strict"
        self._ranks = {name: rank for rank, name in enumerate(names)}

    @property
    def strict(self) -> bool:
        """True if queues are served strictly in order."""
        return self.mode == "strict"

    def rank(self, queue_name: str) -> int:
        """Queues of a lower rank go first; the same rank has no order."""
        return self._ranks.get(queue_name, len(self._ranks))

    def weight(self, queue_name: str) -> int:
        """As the Web UI shows it: 0 where the order is strict."""
        return 0 if self.strict else self.weights.get(queue_name, 1)

    def sort(self, queue_names: Iterable[str]) -> list[str]:
        """Names in order; those without one by name."""
        return sorted(queue_names, key=lambda name: (self.rank(name), name))
