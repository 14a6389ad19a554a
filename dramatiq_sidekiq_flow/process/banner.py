"""The lines that a worker logs when it starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..wire.near_names import hint


def banner(url: str, *, queues: Iterable[str], actors: int, threads: int) -> str:
    """One line: which Redis, which queues, how many actors and threads."""
    names = sorted(queues)
    return (
        f"Worker on {url}, {_count(len(names), 'queue')} ({', '.join(names) or 'none'}), "
        f"{_count(actors, 'actor')}, {_count(threads, 'thread')}."
    )


def boot_warnings(wanted: Iterable[str], declared: set[str]) -> Iterator[str]:
    """Warnings of queues that a worker was told to consume, and that no actor declares."""
    for name in sorted(set(wanted) - declared):
        yield (
            f"Queue {name!r} is not consumed: no actor of this process has queue_name={name!r}."
            f"{hint(name, declared)} Declared are: {', '.join(sorted(declared)) or 'none'}. Check -Q (--queues), "
            "and that the module of the actors is imported."
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
