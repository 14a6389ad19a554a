"""Steps of one node of the tree, in all its repetitions, and their states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import attrs

from ..runs.step_list import STATES, StepList

#: States, the most urgent one first.
URGENT = (
    *("dead", "lost", "retry", "running", "unknown", "queued", "scheduled", "signal", "parked"),
    *("cancelled", "pending", "done", "skipped"),
)


@attrs.frozen
class StepRange:
    """Steps of a node, by their positions in the tree (``wire.grown_tree``).

    Attributes:
      first: Position of its first step.
      count: Its number of steps in one repetition.
      spans: Distance and number of its repetitions, the outermost ones first.
    """

    first: int
    count: int
    spans: tuple[tuple[int, int], ...] = ()

    def part(self, start: int, count: int) -> StepRange:
        """The steps of a child that starts so many steps after this node."""
        return attrs.evolve(self, first=self.first + start, count=count)

    def repeated(self, count: int, times: int) -> StepRange:
        """The steps of the node that this one repeats."""
        return attrs.evolve(self, count=count, spans=(*self.spans, (count, times)))

    def codes(self, codes: bytes | bytearray) -> bytes:
        """The codes of all these steps, of the codes of the run."""
        return _codes(bytes(codes), self.first, self.count, self.spans)


def _codes(codes: bytes, first: int, count: int, spans: tuple[tuple[int, int], ...]) -> bytes:
    if not spans:
        return codes[first : first + count]
    (stride, times), *others = spans
    if count == 1 and not others:
        return codes[first : first + stride * times : stride]
    return b"".join(_codes(codes, first + stride * index, count, tuple(others)) for index in range(times))


def state_counts(steps: StepList, numbers: StepRange) -> Mapping[str, int]:
    """Number of steps in each state, the most urgent one first."""
    counts: Counter[str] = Counter()
    for code, times in Counter(numbers.codes(steps.codes.codes)).items():
        counts[STATES[code]] += times
    return dict(sorted(counts.items(), key=lambda item: urgency(item[0])))


def urgency(state: str) -> int:
    """Place of a state among :data:`URGENT`; others are as urgent as a pending one."""
    return URGENT.index(state if state in URGENT else "pending")
