"""Types of Python as shapes of JSON: what each takes, and its JSON Schema.

Strict: nothing is coerced.  ``"1"`` is no int, ``True`` is no int, ``1.0`` is
no int and ``1`` is no float, as in the gem's schemas, which ask Ruby's
``type === value`` (``int | float`` takes both, as Ruby's ``Numeric`` does).
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs
import msgspec

from .validation_errors import Mismatch, Problem, below, key

#: What JSON has, and the names under which errors speak of it.
NULL = "null"
BOOLEAN = "boolean"
INTEGER = "integer"
NUMBER = "number"
STRING = "string"
ARRAY = "array"
OBJECT = "object"
ALL = frozenset((NULL, BOOLEAN, INTEGER, NUMBER, STRING, ARRAY, OBJECT))

_KINDS: dict[type, str] = {
    type(None): NULL,
    bool: BOOLEAN,
    int: INTEGER,
    float: NUMBER,
    str: STRING,
    list: ARRAY,
    tuple: ARRAY,
    dict: OBJECT,
}


@attrs.frozen
class Shape:
    """What a type takes from JSON.

    Attributes:
      name: For errors: ``expected NAME``.
      load: JSON value -> Python value; raises for what does not fit.
      schema: The JSON Schema.
      kinds: Which of JSON's types it may be.
      values: All that it may be, where these are listed (enums, literals).
      cls: The attrs class that it makes, with type arguments if there are any.
    """

    name: str
    load: Callable[[Any], Any]
    schema: Mapping[str, Any]
    kinds: frozenset[str]
    values: frozenset[tuple[type, Any]] | None = None
    cls: Any = None


def kind_of(value: Any) -> str | None:
    """Which of JSON's types a value is."""
    return _KINDS.get(type(value))


# -- values without parts -----------------------------------------------------


def _exactly(kind: type, name: str) -> Shape:
    def load(value: Any) -> Any:
        if type(value) is not kind:
            raise Mismatch.of(name, value)
        return value

    return Shape(name, load, {"type": _KINDS[kind]}, frozenset((_KINDS[kind],)))


def _str(value: Any) -> str:
    if type(value) is not str:
        raise Mismatch.of("str", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Mismatch.of("text that UTF-8 can carry", value) from None
    return value


def _float(value: Any) -> float:
    if type(value) is not float:
        also = " (a field of int | float takes either)" if type(value) is int else ""
        raise Mismatch([(path, text + also) for path, text in Mismatch.of("float", value).problems])
    if not math.isfinite(value):
        raise Mismatch.of("a finite float", value)
    return value


def _text(kind: type, name: str, schema: Mapping[str, Any], parse: Callable[[str], Any]) -> Shape:
    """A value that JSON has no type for, and that travels as a string."""

    def load(value: Any) -> Any:
        if type(value) is str:
            try:
                return parse(value)
            except (ValueError, ArithmeticError, msgspec.MsgspecError):
                pass
        raise Mismatch.of(name, value)

    return Shape(name, load, {"type": STRING, **schema}, frozenset((STRING,)))


def _converted(kind: type, name: str, schema: Mapping[str, Any]) -> Shape:
    # msgspec reads these the same way on each version of Python.
    return _text(kind, name, schema, lambda text: msgspec.convert(text, kind))


_DECIMAL = r"^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
_decimal = re.compile(_DECIMAL.strip("^$"))


def _parse_decimal(text: str) -> Decimal:
    if _decimal.fullmatch(text) is None:
        raise ValueError
    return Decimal(text)


ANY = Shape("a JSON value", lambda value: value, {}, ALL)

SCALARS: dict[Any, Shape] = {
    str: Shape("str", _str, {"type": STRING}, frozenset((STRING,))),
    int: _exactly(int, "int"),
    bool: _exactly(bool, "bool"),
    type(None): _exactly(type(None), "None"),
    float: Shape("float", _float, {"type": NUMBER}, frozenset((NUMBER,))),
    datetime: _converted(datetime, "datetime (RFC 3339)", {"format": "date-time"}),
    date: _converted(date, "date (YYYY-MM-DD)", {"format": "date"}),
    time: _converted(time, "time (HH:MM:SS)", {"format": "time"}),
    timedelta: _converted(timedelta, "timedelta (ISO 8601, PT1.5S)", {"format": "duration"}),
    UUID: _converted(UUID, "UUID", {"format": "uuid"}),
    Decimal: _text(Decimal, "Decimal (as a string)", {"pattern": _DECIMAL}, _parse_decimal),
}


def listed(name: str, members: Iterable[tuple[Any, Any]]) -> Shape:
    """One of some values: JSON value -> Python value, for enums and literals."""
    # 1, 1.0 and True are equal, and not the same.
    table = {(type(raw), raw): value for raw, value in members}
    names = [raw for _, raw in table]

    def load(value: Any) -> Any:
        if kind_of(value) in (None, ARRAY, OBJECT) or (type(value), value) not in table:
            raise Mismatch.of(name, value)
        return table[type(value), value]

    kinds = frozenset(_KINDS[kind] for kind, _ in table)
    return Shape(name, load, {"enum": names}, kinds, frozenset(table))


# -- values with parts ----------------------------------------------------------


def array(name: str, item: Shape, make: Callable[[list[Any]], Any], *, distinct: bool = False) -> Shape:
    """Any number of items of one shape."""

    def load(value: Any) -> Any:
        if kind_of(value) != ARRAY:
            raise Mismatch.of(name, value)
        items = _each([(f"[{index}]", item, part) for index, part in enumerate(value)])
        try:
            made = make(items)
        except TypeError as e:  # an unhashable item of a set
            raise Mismatch([("", str(e))]) from None
        if distinct and len(made) != len(items):
            raise Mismatch.of("distinct items", value)
        return made

    schema = {"type": ARRAY, "items": item.schema, **({"uniqueItems": True} if distinct else {})}
    return Shape(name, load, schema, frozenset((ARRAY,)))


def row(items: list[Shape]) -> Shape:
    """A tuple, each item of a shape of its own."""
    name = f"{len(items)} items"

    def load(value: Any) -> Any:
        if kind_of(value) != ARRAY or len(value) != len(items):
            raise Mismatch.of(name, value)
        return tuple(_each([(f"[{index}]", item, part) for index, (item, part) in enumerate(zip(items, value))]))

    schema: dict[str, Any] = {"type": ARRAY, "minItems": len(items), "maxItems": len(items)}
    if items:
        schema["prefixItems"] = [item.schema for item in items]
    return Shape(name, load, schema, frozenset((ARRAY,)))


def mapping(name: str, keys: Shape, values: Shape) -> Shape:
    """A dict; its keys are strings, or travel as strings."""

    def load(value: Any) -> Any:
        if kind_of(value) != OBJECT:
            raise Mismatch.of(name, value)
        loaded_keys = _each([(key(part), keys, part) for part in value])
        return dict(zip(loaded_keys, _each([(key(part), values, value[part]) for part in value])))

    schema: dict[str, Any] = {"type": OBJECT, "additionalProperties": values.schema}
    if keys.schema != {"type": STRING} and keys.schema:
        schema["propertyNames"] = keys.schema
    return Shape(name, load, schema, frozenset((OBJECT,)))


def _each(parts: Iterable[tuple[str, Shape, Any]]) -> list[Any]:
    made: list[Any] = []
    problems: list[Problem] = []
    for path, shape, part in parts:
        try:
            made.append(shape.load(part))
        except Exception as e:
            problems += below(path, e)
    if problems:
        raise Mismatch(problems)
    return made


# -- and back -------------------------------------------------------------------


def dump(value: Any) -> Any:
    """The JSON form of a value, by what it is; what has none is left as it is."""
    kind = type(value)
    if kind in (str, int, bool, float, type(None)):
        return value
    if attrs.has(kind):
        fields = [(field.alias or field.name, field.name) for field in attrs.fields(kind) if field.init]
        return {alias: dump(getattr(value, name)) for alias, name in fields}
    if kind in (list, tuple):
        return [dump(item) for item in value]
    if kind in (set, frozenset):
        # Equal sets, equal bytes: whoever compares jobs (a lock of unique jobs) sees the same.
        return sorted(map(dump, value), key=_order)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {dump(name): dump(item) for name, item in value.items()}
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return msgspec.to_builtins(value)
    if isinstance(value, (UUID, Decimal)):
        return str(value)
    return value


def _order(item: Any) -> tuple[str, Any]:
    kind = kind_of(item) or ""
    return kind, item if kind in (INTEGER, NUMBER, STRING) else repr(item)
