"""Jobs next to each other in a tree whose payloads differ in their arguments and ids only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter

from ..wire.nodes import Wire
from ..wire.payload_fields import STEP_KEY

#: Keys in which they may differ.
_OWN = frozenset(("args", "jid", STEP_KEY))

#: Jobs without a sibling after which no more siblings are looked for.
_MOST_ALONE = 10


def siblings(nodes: Sequence[Wire]) -> Iterator[Sequence[Wire]]:
    """Divide nodes, in their order, into sequences of such jobs; any other node is one by itself."""
    start = alone = 0
    while start < len(nodes):
        end = start + 1
        if alone < _MOST_ALONE and nodes[start]["__type__"] == "job":
            end = _end(nodes, start)
            alone = alone + 1 if end == start + 1 else 0
        yield nodes[start:end]
        start = end


def _end(nodes: Sequence[Wire], start: int) -> int:
    """Find the first node after ``start`` that is not a sibling of the job there."""
    has_common = _common(nodes[start])
    for index in range(start + 1, len(nodes)):
        if not has_common(nodes[index]):
            return index
    return len(nodes)


def _common(job: Wire) -> Callable[[Wire], bool]:
    """Make a function that returns True for a node with the keys of a job, and with the same values of the others."""
    # A job has a type and a class at least, so this reads a tuple.
    read = itemgetter(*(name for name in job if name not in _OWN))
    common = read(job)
    # 1 and True are equal, so a value that is not text must be the same object.
    others = [place for place, value in enumerate(common) if type(value) is not str]
    size, has_jid, has_step = len(job), "jid" in job, STEP_KEY in job

    def has_common(node: Wire) -> bool:
        if len(node) != size or ("jid" in node) != has_jid or (STEP_KEY in node) != has_step:
            return False
        try:
            values = read(node)
        except KeyError:
            return False
        for place in others:
            if values[place] is not common[place]:
                return False
        return bool(values == common)

    return has_common
