"""What a worker says of itself when it starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..wire.dialect import NOOP_CLASSES
from ..wire.near_names import hint

if TYPE_CHECKING:
    from .broker import SidekiqBroker


def banner(broker: SidekiqBroker) -> str:
    """One line: which Redis, which queues, how many actors and threads."""
    queues = sorted({name for worker in broker.workers for name in list(worker.consumers)})
    actors = len(broker.actors.keys() - NOOP_CLASSES)
    threads = sum(worker.worker_threads for worker in broker.workers)
    return (
        f"Worker on {broker.connection.url}, {_count(len(queues), 'queue')} ({', '.join(queues) or 'none'}), "
        f"{_count(actors, 'actor')}, {_count(threads, 'thread')}."
    )


def boot_warnings(broker: SidekiqBroker) -> Iterator[str]:
    """What is wrong with the queues that this worker was told to consume."""
    declared = broker.get_declared_queues()
    for worker in broker.workers:
        for name in sorted((worker.consumer_whitelist or set()) - declared):
            yield (
                f"Queue {name!r} is not consumed: no actor of this process has queue_name={name!r}."
                f"{hint(name, declared)} Declared are: {', '.join(sorted(declared)) or 'none'}. Check -Q (--queues), "
                "and that the module of the actors is imported."
            )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
