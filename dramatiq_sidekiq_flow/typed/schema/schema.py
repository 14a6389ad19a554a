"""The schema of a typed actor's input or output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ...errors import FlowError, InvalidArguments, InvalidInput
from ...wire import codec
from .adapters import TypeAdapter
from .compiler import Compiler
from .json_form import dump
from .json_schema import Field
from .validation_errors import ValidationError, path_part, prefixed, unknown_field

#: Maximum validation errors that one message names; the rest are counted.
_MOST = 50


@attrs.frozen(eq=False)
class Schema:
    """The JSON of an attrs class, a mapping, or a union of classes.

    Attributes:
      cls: The class, mapping or union.
      fields: The keys of a class on the wire; empty for a mapping or union.
      json: The JSON Schema (2020-12).
    """

    cls: Any
    fields: Mapping[str, Field]
    json: dict[str, Any]
    _adapter: TypeAdapter

    @classmethod
    def of(cls, kind: Any, names: Mapping[str, Any] | None = None) -> Schema:
        """Make the schema of a class from its annotations.

        Parameters:
          names: Names for string annotations, in addition to those of the
            class's module.

        Raises:
          ConfigurationError: if JSON cannot carry the type of a field without
            guessing; the message names the field.
        """
        compiler = Compiler(kind, names)
        adapter = compiler.adapter(kind, getattr(kind, "__name__", str(kind)))
        fields = {field.name: field for field in compiler.fields.get(kind, ())}
        return cls(kind, fields, compiler.definitions.document(adapter.schema), adapter)

    @property
    def name(self) -> str:
        """The name of the class, for errors."""
        return self._adapter.name

    def dump(self, value: Any, path: str = "input", error: type[FlowError] = InvalidInput) -> Any:
        """Convert a value to its JSON form.

        Raises:
          error: if the value has no JSON form.
        """
        try:
            dumped = dump(value)
            codec.check(dumped, path)
            return dumped
        except Exception as e:
            raise _refusal(e, value, path, error) from None

    def load(self, value: Any, path: str = "input", error: type[FlowError] = InvalidInput) -> Any:
        """Convert a JSON form to its value.

        Raises:
          error: if the value does not fit; the message names each path.
        """
        try:
            codec.check(value, path)
            return self._adapter.load(value)
        except Exception as e:
            raise _refusal(e, value, path, error) from None

    def check(self, values: Mapping[str, Any], path: str = "input", error: type[FlowError] = InvalidInput) -> None:
        """Check the given fields of a class; other fields may be missing.

        Raises:
          error: if a field does not fit; the message names each path.
        """
        errors: list[ValidationError] = []
        for name, value in values.items():
            errors += self._check_field(name, value, path + path_part(name))
        if errors:
            raise failure(errors, values, error)

    def _check_field(self, name: str, value: Any, path: str) -> list[ValidationError]:
        field = self.fields.get(name)
        if field is None:
            return [unknown_field(path, self.name, self.fields)]
        try:
            field.adapter.load(value)
        except Exception as e:
            return prefixed(path, e)
        return []


def _refusal(cause: Exception, value: Any, path: str, error: type[FlowError]) -> FlowError:
    if isinstance(cause, InvalidArguments):
        return error(cause.message, value)
    return failure(prefixed(path, cause), value, error)


def failure(errors: list[ValidationError], value: Any, error: type[FlowError]) -> FlowError:
    """Make the exception that names validation errors."""
    named = [f"{one.path}: {one.text}" for one in errors[:_MOST]]
    if len(errors) > _MOST:
        named.append(f"and {len(errors) - _MOST} more")
    return error("; ".join(named), value)
