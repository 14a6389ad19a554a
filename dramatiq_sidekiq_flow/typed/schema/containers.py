"""Adapters of lists, sets, tuples and mappings.

Written by hand, since the hooks of cattrs accept any iterable as a list (a
string, the keys of a dict), and drop equal items of a set without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .adapters import ARRAY, OBJECT, STRING, TypeAdapter, kind_of
from .validation_errors import InvalidValue, ValidationError, path_part, prefixed

#: One part of a value: its path, its adapter, and its JSON value.
_Part = tuple[str, TypeAdapter, Any]


def array(name: str, item: TypeAdapter, make: Callable[[list[Any]], Any], *, distinct: bool = False) -> TypeAdapter:
    """Make the adapter of any number of items of one type.

    Parameters:
      make: List of items -> Python value.
      distinct: True refuses equal items.
    """

    def load(value: Any) -> Any:
        if kind_of(value) != ARRAY:
            raise InvalidValue.of(name, value)
        items = _load_each([(f"[{index}]", item, part) for index, part in enumerate(value)])
        try:
            made = make(items)
        except TypeError as e:  # an item of a set is not hashable
            raise InvalidValue.at("", str(e)) from None
        if distinct and len(made) != len(items):
            raise InvalidValue.of("distinct items", value)
        return made

    schema: dict[str, Any] = {"type": ARRAY, "items": item.schema}
    if distinct:
        schema["uniqueItems"] = True
    return TypeAdapter(name, load, schema, frozenset((ARRAY,)))


def fixed_tuple(items: list[TypeAdapter]) -> TypeAdapter:
    """Make the adapter of a tuple in which each item has its own type."""
    name = f"{len(items)} items"
    paths = [f"[{index}]" for index in range(len(items))]

    def load(value: Any) -> Any:
        if kind_of(value) != ARRAY or len(value) != len(items):
            raise InvalidValue.of(name, value)
        return tuple(_load_each(zip(paths, items, value)))

    schema: dict[str, Any] = {"type": ARRAY, "minItems": len(items), "maxItems": len(items)}
    if items:
        schema["prefixItems"] = [item.schema for item in items]
    return TypeAdapter(name, load, schema, frozenset((ARRAY,)))


def mapping(name: str, keys: TypeAdapter, values: TypeAdapter) -> TypeAdapter:
    """Make the adapter of a dict whose keys are strings, or strings in JSON."""

    def load(value: Any) -> Any:
        if kind_of(value) != OBJECT:
            raise InvalidValue.of(name, value)
        paths = [path_part(raw) for raw in value]
        loaded_keys = _load_each([(path, keys, raw) for path, raw in zip(paths, value)])
        loaded_values = _load_each([(path, values, raw) for path, raw in zip(paths, value.values())])
        return dict(zip(loaded_keys, loaded_values))

    schema: dict[str, Any] = {"type": OBJECT, "additionalProperties": values.schema}
    if keys.schema != {"type": STRING} and keys.schema:
        schema["propertyNames"] = keys.schema
    return TypeAdapter(name, load, schema, frozenset((OBJECT,)))


def _load_each(parts: Iterable[_Part]) -> list[Any]:
    """Load all parts.

    Raises:
      InvalidValue: if a part does not fit; it has the errors of all such parts.
    """
    loaded: list[Any] = []
    errors: list[ValidationError] = []
    for path, adapter, value in parts:
        try:
            loaded.append(adapter.load(value))
        except Exception as e:
            errors += prefixed(path, e)
    if errors:
        raise InvalidValue(errors)
    return loaded
