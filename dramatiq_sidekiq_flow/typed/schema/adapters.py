"""Type adapters: the conversion of one type from JSON, and its JSON Schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

#: The types of JSON, by their names in JSON Schema.
NULL = "null"
BOOLEAN = "boolean"
INTEGER = "integer"
NUMBER = "number"
STRING = "string"
ARRAY = "array"
OBJECT = "object"
ALL = frozenset((NULL, BOOLEAN, INTEGER, NUMBER, STRING, ARRAY, OBJECT))
SIMPLE = ALL - {ARRAY, OBJECT}

KINDS: Mapping[type, str] = {
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
class TypeAdapter:
    """The conversion of one type from JSON.

    Attributes:
      name: Name of the type in errors: ``expected NAME``.
      load: JSON value -> Python value; raises if the value does not fit.
      schema: The JSON Schema.
      kinds: The JSON types that it accepts.
      values: All values that it accepts, each with its type; None if the type
        does not list them (only enums and literals do).
      cls: The attrs class of its values, with type arguments if there are any.
    """

    name: str
    load: Callable[[Any], Any]
    schema: Mapping[str, Any]
    kinds: frozenset[str]
    values: frozenset[tuple[type, Any]] | None = None
    cls: Any = None


def kind_of(value: Any) -> str | None:
    """Return the JSON type of a value; None if JSON has no such type."""
    return KINDS.get(type(value))


def typed(value: Any) -> tuple[type, Any]:
    """Pair a value with its type, since 1, 1.0 and True are equal but not the same."""
    return type(value), value


ANY = TypeAdapter("a JSON value", lambda value: value, {}, ALL)
