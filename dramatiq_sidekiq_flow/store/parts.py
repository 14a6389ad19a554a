"""Parts of many values: what one script call takes, so that it does not block the server for long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

#: Elements, and bytes, of one part.
PART_ELEMENTS = 1000
PART_BYTES = 1024 * 1024

#: Parts sent in one round trip.
PARTS_AT_ONCE = 4


def parts(elements: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Divide elements into parts; a part may exceed :data:`PART_BYTES` with its last element."""
    part: list[bytes] = []
    size = 0
    for element in elements:
        part.append(element)
        size += len(element)
        if len(part) == PART_ELEMENTS or size >= PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def slices(payloads: Sequence[bytes]) -> list[slice]:
    """Divide payloads into parts, as :func:`parts` does; where each one is."""
    if len(payloads) <= PART_ELEMENTS and sum(map(len, payloads)) <= PART_BYTES:
        return [slice(0, len(payloads))] if payloads else []
    found: list[slice] = []
    start = 0
    for part in parts(payloads):
        found.append(slice(start, start + len(part)))
        start += len(part)
    return found
