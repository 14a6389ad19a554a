"""Parts of many values: what one script call takes, so that it does not block the server for long."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

#: Elements, and bytes, of one part.
PART_ELEMENTS = 1000
PART_BYTES = 1024 * 1024

#: Parts sent in one round trip.
PARTS_AT_ONCE = 4


def slices(elements: Sequence[bytes]) -> list[slice]:
    """Divide elements into parts; where each one is.  A part may exceed :data:`PART_BYTES` with its last element."""
    if 0 < len(elements) <= PART_ELEMENTS and sum(map(len, elements)) <= PART_BYTES:
        return [slice(0, len(elements))]
    found: list[slice] = []
    #: Bytes before each element.
    before = list(accumulate(map(len, elements), initial=0))
    start = 0
    while start < len(elements):
        full = bisect_left(before, before[start] + PART_BYTES, start + 1)
        end = min(full, start + PART_ELEMENTS, len(elements))
        found.append(slice(start, end))
        start = end
    return found
