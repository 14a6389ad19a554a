"""What goes in and out of a typed actor: an attrs class, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ...errors import FlowError, InvalidArguments, InvalidInput
from ...wire import codec
from .adapters import Shape, dump
from .compiler import Compiler, Field
from .validation_errors import Problem, below, found, key

#: Problems that one error names; the rest is counted.
_MOST = 50


@attrs.frozen(eq=False)
class Schema:
    """A class (or a mapping, or a union of classes) and its JSON.

    Attributes:
      cls: What it was made of.
      fields: For one class, its keys on the wire.
      json: The JSON Schema (2020-12).
    """

    cls: Any
    fields: Mapping[str, Field]
    json: dict[str, Any]
    _shape: Shape

    @classmethod
    def of(cls, kind: Any, names: Mapping[str, Any] | None = None) -> Schema:
        """Read a class's annotations.

        Parameters:
          names: Where names in string annotations may be found, beside the
            module of the class.

        Raises:
          ConfigurationError: naming the field whose type JSON cannot carry
            without guessing.
        """
        compiler = Compiler(kind, names)
        shape = compiler.shape(kind, getattr(kind, "__name__", str(kind)))
        schema = dict(compiler.definitions.pop("#", shape.schema))
        if compiler.definitions:
            schema["$defs"] = compiler.definitions
        fields = {field.name: field for field in compiler.fields.get(kind, ())}
        return cls(kind, fields, schema, shape)

    @property
    def name(self) -> str:
        """For errors."""
        return self._shape.name

    def missing(self, values: Mapping[str, Any]) -> list[str]:
        """The fields that must be there and are not."""
        return [name for name, field in self.fields.items() if field.required and name not in values]

    def dump(self, value: Any, path: str = "input", error: type[FlowError] = InvalidInput) -> Any:
        """The JSON form of a value.

        Raises:
          error: for what has none.
        """
        try:
            dumped = dump(value)
            codec.check(dumped, path)
            return dumped
        except InvalidArguments as e:
            raise error(e.message, value) from None
        except Exception as e:
            raise failure(below(path, e), value, error) from None

    def load(self, value: Any, path: str = "input", error: type[FlowError] = InvalidInput) -> Any:
        """The value of a JSON form.

        Raises:
          error: naming each path at which it does not fit.
        """
        try:
            codec.check(value, path)
            return self._shape.load(value)
        except InvalidArguments as e:
            raise error(e.message, value) from None
        except Exception as e:
            raise failure(below(path, e), value, error) from None

    def check(self, values: Mapping[str, Any], path: str = "input", error: type[FlowError] = InvalidInput) -> None:
        """See that some of a class's fields fit, whatever becomes of the others.

        Raises:
          error: naming each path at which they do not.
        """
        problems: list[Problem] = []
        for name, value in values.items():
            field = self.fields.get(name)
            if field is None:
                known = ", ".join(self.fields) or "none"
                problems.append((path + key(name), f"is no field of {self.name}, which has: {known}"))
                continue
            try:
                field.shape.load(value)
            except Exception as e:
                problems += below(path + key(name), e)
        if problems:
            raise failure(problems, values, error)


def failure(problems: list[Problem], value: Any, error: type[FlowError]) -> FlowError:
    """The error that names these problems."""
    named = [f"{path}: {text}" for path, text in problems[:_MOST]]
    if len(problems) > _MOST:
        named.append(f"and {len(problems) - _MOST} more")
    return error("; ".join(named), value)


__all__ = ["Schema", "failure", "found"]
