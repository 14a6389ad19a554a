"""In which order one process serves its queues.

Dramatiq has a thread that fetches for each queue, and one priority queue in
the process from which its threads take jobs.  So order is kept at two places:
what waits in the process is taken in order (:class:`WorkQueue`), and, where
the order is strict, a queue is not fetched from while one before it has jobs.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Mapping, Sequence
from queue import PriorityQueue
from typing import TYPE_CHECKING, Any

from dramatiq import worker

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from .broker import SidekiqBroker

Order = Sequence[str] | Mapping[str, int]


class QueueOrder:
    """Sidekiq's modes (``capsule.rb``): ``strict``, ``weighted``, or ``random`` for all alike.

    Parameters:
      order: Names, the first one first; or name -> weight, 1 or more; None
        for all alike.  Queues that are not named come last, or weigh 1.

    Raises:
      ConfigurationError: for a name said twice, or a weight below 1.
    """

    def __init__(self, order: Order | None = None) -> None:
        self.weights: dict[str, int] = {}
        self._ranks: dict[str, int] = {}
        if order is None:
            self.mode = "random"
        elif isinstance(order, Mapping):
            self.weights = dict(order)
            for name, weight in self.weights.items():
                if type(weight) is not int or weight < 1:
                    raise ConfigurationError(f"The weight of queue {name!r} must be an integer of 1 or more.", weight)
            self.mode = "random" if set(self.weights.values()) == {1} else "weighted"
        else:
            names = list(order)
            if isinstance(order, str) or not all(isinstance(name, str) for name in names):
                raise ConfigurationError(
                    "An order of queues is a list of names, or a mapping of names to weights.", order
                )
            if len(set(names)) < len(names):
                raise ConfigurationError(f"A queue stands twice in the order of queues: {names!r}.", names)
            self.mode = "strict"
            self._ranks = {name: rank for rank, name in enumerate(names)}

    @property
    def kept(self) -> bool:
        """Whether there is any order to keep."""
        return self.mode != "random"

    @property
    def strict(self) -> bool:
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


#: Whether Dramatiq's own work queue keeps jobs of equal priority in their order: from 2.2 on.
KEEPS_AGE = hasattr(worker, "_WorkQueueItem")


def message_of(item: Any) -> Any:
    """The message of what stands in Dramatiq's work queue: a pair until 2.1, an object from 2.2 on."""
    return item[1] if type(item) is tuple else item.message


def priority_of(item: Any) -> Any:
    """The actor's priority of what stands in Dramatiq's work queue; lower comes first."""
    return item[0] if type(item) is tuple else item.priority


class WorkQueue(PriorityQueue[Any]):
    """What waits in the process: Dramatiq's work queue, by queue.

    Within a queue, Dramatiq's order: priority of the actor, then age.
    """

    def __init__(self, order: QueueOrder) -> None:
        self.order = order
        super().__init__()

    def waiting(self, queue_name: str) -> bool:
        """Whether jobs of a queue wait for a thread."""
        return bool(self._heaps.get(queue_name))

    # What queue.Queue lets a subclass say; all are called under its lock.

    def _init(self, maxsize: int) -> None:
        self._heaps: dict[str, list[Any]] = {}
        self._passes: dict[str, float] = {}
        self._now = 0.0
        self._count = 0
        self._age = itertools.count()

    def _qsize(self) -> int:
        return self._count

    def _put(self, item: Any) -> None:
        name = message_of(item).queue_name
        heap = self._heaps.setdefault(name, [])
        if not heap:
            # A queue that had nothing to do has saved nothing up.
            self._passes[name] = max(self._passes.get(name, 0.0), self._now)
        # Before 2.2, Dramatiq's items of equal priority have no order of their own.
        heapq.heappush(heap, (priority_of(item), next(self._age), item))
        self._count += 1

    def _get(self) -> Any:
        filled = [name for name, heap in self._heaps.items() if heap]
        if self.order.strict:
            name = min(filled, key=lambda name: (self.order.rank(name), self._heaps[name][0]))
        else:
            # Stride scheduling: each turn costs a queue one over its weight.
            name = min(filled, key=lambda name: self._passes[name])
            self._now = self._passes[name]
            self._passes[name] += 1 / self.order.weight(name)
        self._count -= 1
        return heapq.heappop(self._heaps[name])[-1]


def held_back(broker: SidekiqBroker, queue_name: str) -> bool:
    """Whether a queue is not to be fetched from now: one before it may have jobs."""
    order = broker.order
    rank = order.rank(queue_name)
    return order.strict and any(_goes_first(broker, name) for name in _consumed(broker) if order.rank(name) < rank)


def _consumed(broker: SidekiqBroker) -> set[str]:
    """The queues that this process consumes, those that it is about to as well."""
    if not broker.workers:
        return set(broker.windows)
    return {
        name
        for worker in broker.workers
        for name in broker.queues
        if not worker.consumer_whitelist or name in worker.consumer_whitelist
    }


def _goes_first(broker: SidekiqBroker, queue_name: str) -> bool:
    window = broker.windows.get(queue_name)
    if window is None or window.fetched:
        return True
    if any(isinstance(w.work_queue, WorkQueue) and w.work_queue.waiting(queue_name) for w in broker.workers):
        return True
    return not window.drained and not window.unavailable and window.room() > 0
