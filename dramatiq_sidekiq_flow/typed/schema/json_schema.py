"""JSON Schema (2020-12) of classes, for Ruby and the registry.  cattrs does not write one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from ...errors import InvalidArguments
from ...wire import codec
from .adapters import OBJECT, TypeAdapter
from .json_form import dump

#: A reference to the schema as a whole.
ROOT = "#"
_PREFIX = "#/$defs/"


@attrs.frozen
class Field:
    """A key of a class in JSON.

    Attributes:
      name: The key on the wire, which is the field's alias.
      adapter: The adapter of its type.
      default: The attrs default; ``attrs.NOTHING`` if there is none.
    """

    name: str
    adapter: TypeAdapter
    default: Any

    @property
    def required(self) -> bool:
        """True if the field has no default."""
        return self.default is attrs.NOTHING


class Definitions:
    """The schemas of the classes that one schema refers to, by reference."""

    def __init__(self) -> None:
        self._by_reference: dict[str, dict[str, Any]] = {}

    def reserve(self, cls: type) -> str:
        """Make a reference to a class before its schema exists, since a field may hold the class itself."""
        reference, number = f"{_PREFIX}{cls.__name__}", 2
        while reference in self._by_reference:
            reference, number = f"{_PREFIX}{cls.__name__}{number}", number + 1
        self._by_reference[reference] = {}
        return reference

    def define(self, reference: str, cls: type, fields: Iterable[Field]) -> None:
        """Set the schema of a class."""
        fields = list(fields)
        schema: dict[str, Any] = {"title": cls.__name__, "type": OBJECT}
        schema["properties"] = {field.name: {**field.adapter.schema, **_default(field.default)} for field in fields}
        required = [field.name for field in fields if field.required]
        if required:
            schema["required"] = required
        schema["additionalProperties"] = False
        self._by_reference[reference] = schema

    def document(self, otherwise: Mapping[str, Any]) -> dict[str, Any]:
        """Make the whole schema.

        Parameters:
          otherwise: The schema if the root is not a class.
        """
        document = dict(self._by_reference.get(ROOT, otherwise))
        definitions = {
            reference.removeprefix(_PREFIX): schema
            for reference, schema in self._by_reference.items()
            if reference != ROOT
        }
        if definitions:
            document["$defs"] = definitions
        return document


def _default(default: Any) -> dict[str, Any]:
    """Make JSON Schema's ``default``; empty if a factory makes the default, or JSON cannot carry it."""
    if default is attrs.NOTHING or isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        return {}
    try:
        value = dump(default)
        codec.check(value)
    except (InvalidArguments, RecursionError, TypeError):
        return {}
    return {"default": value}
