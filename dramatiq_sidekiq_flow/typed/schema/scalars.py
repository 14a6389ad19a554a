"""Adapters of values without parts: numbers, text, dates, enums, literals.

Strict: nothing is coerced.  ``"1"`` is not an int, ``True`` is not an int,
``1.0`` is not an int and ``1`` is not a float, as in the gem's schemas, which
use Ruby's ``type === value`` (``int | float`` accepts both, as Ruby's ``Numeric``
does).  Written by hand, since the hooks of cattrs coerce (``int("1")``) and
compare enums and literals by ``==``, for which ``True`` is ``1``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from .adapters import KINDS, NUMBER, SIMPLE, STRING, TypeAdapter, kind_of, typed
from .validation_errors import InvalidValue

_DECIMAL = r"^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
_decimal = re.compile(_DECIMAL.strip("^$"))


def one_of(name: str, members: Iterable[tuple[Any, Any]]) -> TypeAdapter:
    """Make the adapter of an enum or a literal.

    Parameters:
      members: Pairs of JSON value and Python value.
    """
    table = {typed(raw): member for raw, member in members}

    def load(value: Any) -> Any:
        # Arrays and objects are never members, and are not hashable.
        if kind_of(value) not in SIMPLE or typed(value) not in table:
            raise InvalidValue.of(name, value)
        return table[typed(value)]

    kinds = frozenset(KINDS[kind] for kind, _ in table)
    return TypeAdapter(name, load, {"enum": [raw for _, raw in table]}, kinds, frozenset(table))


def _exactly(kind: type, name: str) -> TypeAdapter:
    def load(value: Any) -> Any:
        if type(value) is not kind:
            raise InvalidValue.of(name, value)
        return value

    return TypeAdapter(name, load, {"type": KINDS[kind]}, frozenset((KINDS[kind],)))


def _load_str(value: Any) -> str:
    if type(value) is not str:
        raise InvalidValue.of("str", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidValue.of("text that UTF-8 can carry", value) from None
    return value


def _load_float(value: Any) -> float:
    if type(value) is not float:
        hint = " (a field of int | float takes either)" if type(value) is int else ""
        raise InvalidValue.of("float", value, hint=hint)
    if not math.isfinite(value):
        raise InvalidValue.of("a finite float", value)
    return value


def _text(name: str, schema: Mapping[str, Any], parse: Callable[[str], Any]) -> TypeAdapter:
    """Make the adapter of a type that is a string in JSON."""

    def load(value: Any) -> Any:
        if type(value) is str:
            try:
                return parse(value)
            except (ValueError, ArithmeticError, msgspec.MsgspecError):
                pass
        raise InvalidValue.of(name, value)

    return TypeAdapter(name, load, {"type": STRING, **schema}, frozenset((STRING,)))


def _converted(kind: type, name: str, schema: Mapping[str, Any]) -> TypeAdapter:
    # By msgspec, which reads these in the same way on each version of Python.
    return _text(name, schema, lambda text: msgspec.convert(text, kind))


def _parse_decimal(text: str) -> Decimal:
    if _decimal.fullmatch(text) is None:
        raise ValueError
    return Decimal(text)


SCALARS: Mapping[Any, TypeAdapter] = {
    str: TypeAdapter("str", _load_str, {"type": STRING}, frozenset((STRING,))),
    int: _exactly(int, "int"),
    bool: _exactly(bool, "bool"),
    type(None): _exactly(type(None), "None"),
    float: TypeAdapter("float", _load_float, {"type": NUMBER}, frozenset((NUMBER,))),
    datetime: _converted(datetime, "datetime (RFC 3339)", {"format": "date-time"}),
    date: _converted(date, "date (YYYY-MM-DD)", {"format": "date"}),
    time: _converted(time, "time (HH:MM:SS)", {"format": "time"}),
    timedelta: _converted(timedelta, "timedelta (ISO 8601, PT1.5S)", {"format": "duration"}),
    UUID: _converted(UUID, "UUID", {"format": "uuid"}),
    Decimal: _text("Decimal (as a string)", {"pattern": _DECIMAL}, _parse_decimal),
}
