"""All that touches the insides of Dramatiq, so that a new version of it breaks one file."""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq import worker as dramatiq_worker
from dramatiq.common import iter_queue
from dramatiq.errors import ConnectionClosed

from .queue_order import QueueOrder, WorkQueue

#: Whether Dramatiq's own work queue keeps jobs of equal priority in their order: from 2.2 on.
KEEPS_AGE = hasattr(dramatiq_worker, "_WorkQueueItem")


def message_of(item: Any) -> Any:
    """The message of an item of Dramatiq's work queue: a pair until 2.1, an object from 2.2 on."""
    return item[1] if type(item) is tuple else item.message


def priority_of(item: Any) -> Any:
    """The actor's priority of an item of Dramatiq's work queue; lower comes first."""
    return item[0] if type(item) is tuple else item.priority


def explicit_prefetch() -> bool:
    """Whether the environment sets how many messages a consumer prefetches (``dramatiq_queue_prefetch``)."""
    return bool(dramatiq_worker.QUEUE_PREFETCH)


def order_work_queue(worker: dramatiq.Worker, order: QueueOrder) -> None:
    """Replace a worker's queue of waiting messages by one that keeps an order; before its threads start."""
    if order.is_ordered or not KEEPS_AGE:
        worker.work_queue = WorkQueue(order, message_of, priority_of)


def work_queue_of(worker: dramatiq.Worker) -> WorkQueue | None:
    """A worker's queue of waiting messages, if it keeps an order."""
    return worker.work_queue if isinstance(worker.work_queue, WorkQueue) else None


def give_back(worker: dramatiq.Worker) -> None:
    """Put back messages that wait in a worker for a thread.

    If Redis cannot be reached, they stay where they are, and run.
    """
    waiting: dict[str, list[Any]] = {}
    for item in iter_queue(worker.work_queue):
        waiting.setdefault(message_of(item).queue_name, []).append(item)
    for queue_name, items in waiting.items():
        try:
            worker.consumers[queue_name].requeue_messages(message_of(item) for item in items)
        except ConnectionClosed as e:
            worker.logger.warning("Could not put %d jobs back into %r: %s", len(items), queue_name, e)
            for item in items:
                worker.work_queue.put(item)
        for _ in items:
            worker.work_queue.task_done()
