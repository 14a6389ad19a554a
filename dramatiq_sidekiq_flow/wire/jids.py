"""Ids of many jobs at once: UUIDs, as Dramatiq makes the id of each message."""

from __future__ import annotations

#: Random bytes that one id needs.
BYTES = 16

#: Characters of one id.
LENGTH = 36

#: Places in an id that hold a hex digit: all but those of its dashes.
_DIGITS = tuple(place for place in range(LENGTH) if place not in (8, 13, 18, 23))

#: The digit that names the version of a UUID, and the one that names its variant (RFC 9562, 4.1 and 4.2).
_VERSION, _VARIANT = 14, 19

#: Any hex digit to one of those that name the variant.
_VARIANTS = bytes.maketrans(b"0123456789abcdef", b"89ab" * 4)


def jids(random: bytes) -> list[bytes]:
    """Make an id of each 16 random bytes: a UUID of version 4, as 36 characters."""
    digits = random.hex().encode()
    count = len(random) // BYTES
    text = bytearray(b"-") * (LENGTH * count)
    for index, place in enumerate(_DIGITS):
        text[place::LENGTH] = digits[index :: len(_DIGITS)]
    text[_VERSION::LENGTH] = b"4" * count
    text[_VARIANT::LENGTH] = text[_VARIANT::LENGTH].translate(_VARIANTS)
    joined = bytes(text)
    return [joined[start : start + LENGTH] for start in range(0, len(joined), LENGTH)]
