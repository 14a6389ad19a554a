"""The JSON form of values, as Ruby's jobs read them.

Written by hand: the form depends on the value, not on a declared type, so that
equal values give equal bytes.  cattrs does not sort a set.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs
import msgspec

from .adapters import INTEGER, NUMBER, STRING, kind_of

_UNCHANGED = frozenset((str, int, bool, float, type(None)))
_ORDERED = frozenset((INTEGER, NUMBER, STRING))


def dump(value: Any) -> Any:
    """Convert a value to its JSON form; return a value without one unchanged."""
    kind = type(value)
    if kind in _UNCHANGED:
        return value
    if attrs.has(kind):
        return _dump_instance(value)
    if kind in (list, tuple):
        return [dump(item) for item in value]
    if kind in (set, frozenset):
        # Sorted, so that equal sets give equal bytes: a lock of unique jobs compares them.
        return sorted(map(dump, value), key=_order)
    return _dump_by_base(value)


def _dump_instance(value: Any) -> dict[str, Any]:
    fields = attrs.fields(type(value))
    return {field.alias or field.name: dump(getattr(value, field.name)) for field in fields if field.init}


def _dump_enum(value: enum.Enum) -> Any:
    return value.value


def _dump_mapping(value: Mapping[Any, Any]) -> dict[Any, Any]:
    return {dump(name): dump(item) for name, item in value.items()}


def _dump_moment(value: date | time) -> str:
    return value.isoformat()


#: Base classes and the functions that dump their values; the first match is used.
_BASES: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (enum.Enum, _dump_enum),
    (Mapping, _dump_mapping),
    ((date, time), _dump_moment),
    (timedelta, msgspec.to_builtins),
    ((UUID, Decimal), str),
)


def _dump_by_base(value: Any) -> Any:
    for base, dump_as in _BASES:
        if isinstance(value, base):
            return dump_as(value)
    return value


def _order(item: Any) -> tuple[str, Any]:
    kind = kind_of(item) or ""
    return kind, item if kind in _ORDERED else repr(item)
