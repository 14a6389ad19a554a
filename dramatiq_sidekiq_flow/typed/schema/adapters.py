"""Type adapters: what a type takes from JSON, and its JSON Schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

#: The types that JSON has, by the names that JSON Schema gives them.
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
    """What a type takes from JSON.

    Attributes:
      name: For errors: ``expected NAME``.
      load: JSON value -> Python value; raises for a value that does not fit.
      schema: The JSON Schema.
      kinds: The types of JSON that it takes.
      values: All values that it takes, each with its type, if these are listed
        (enums, literals).
      cls: The attrs class that it makes, with type arguments if there are any.
    """

    name: str
    load: Callable[[Any], Any]
    schema: Mapping[str, Any]
    kinds: frozenset[str]
    values: frozenset[tuple[type, Any]] | None = None
    cls: Any = None


def kind_of(value: Any) -> str | None:
    """The type of JSON that a value has; None if JSON does not have it."""
    return KINDS.get(type(value))


def typed(value: Any) -> tuple[type, Any]:
    """A value with its type: 1, 1.0 and True are equal, and not the same."""
    return type(value), value


ANY = TypeAdapter("a JSON value", lambda value: value, {}, ALL)
