"""What a client of the tests reads from Redis, with the type that it has: bytes.

redis-py annotates each reply as the union of what all settings of a client
could give.  These functions look at the value, and say which of these it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def as_bytes(value: object) -> bytes:
    """One value."""
    assert isinstance(value, bytes), value
    return value


def raws(values: Iterable[object]) -> list[bytes]:
    """The members of a list, a set or a sorted set."""
    return [as_bytes(value) for value in values]


def as_text(value: object) -> str:
    """One value, decoded."""
    return as_bytes(value).decode()


def texts(values: Iterable[object]) -> list[str]:
    """The members of a list, a set or a sorted set, decoded."""
    return [as_text(value) for value in values]


def fields(found: Mapping[Any, object]) -> dict[str, bytes]:
    """A hash; its names decoded."""
    return {as_text(name): as_bytes(value) for name, value in found.items()}


def scored(found: Iterable[Any]) -> list[tuple[bytes, float]]:
    """Members of a sorted set, and their scores."""
    return [(as_bytes(member), float(score)) for member, score in found]
