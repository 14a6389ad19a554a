"""The input of a typed actor, as a caller gives it: an instance, keyword arguments, one mapping, or nothing."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

import attrs

from ..errors import InvalidInput
from .schema import Schema


@attrs.frozen
class CallInput:
    """Reads the input from the arguments of a call.

    Attributes:
      actor_name: For errors.
      parameter: Name of the function's only parameter; empty if it has none.
      schema: The schema of the input; None for an actor that takes nothing.
    """

    actor_name: str
    parameter: str
    schema: Schema | None

    def read(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The input as the caller gave it: an instance, a dict, or None for nothing.

        Raises:
          InvalidInput: if the arguments are not one input.
        """
        if self._is_call_by_name(args, kwargs):
            return kwargs[self.parameter]
        if not self._is_one_input(args, kwargs):
            given = ", ".join([*map(repr, args), *(f"{name}=..." for name in kwargs)])
            raise InvalidInput(f"{self.actor_name} takes {self._takes}, not ({given:.200}).", (args, kwargs))
        if args:
            return self._read_only(args[0])
        return dict(kwargs) or None

    def _read_only(self, value: Any) -> Any:
        """The input that the only positional argument is."""
        if value is None:
            return None  # a nil, which the gem's typed jobs take as no argument
        if isinstance(value, Mapping):
            return dict(value)
        if not is_instance(value, self.schema):
            raise InvalidInput(f"{self.actor_name} takes {self._takes}: input: got {value!r:.100}.", value)
        return value

    def _is_call_by_name(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether an instance is given by the parameter's name, as the function itself may be called."""
        if self.schema is None or args or kwargs.keys() != {self.parameter}:
            return False
        return is_instance(kwargs[self.parameter], self.schema) and self.parameter not in self.schema.fields

    def _is_one_input(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether the arguments are one input at most, in one way."""
        if self.schema is None:
            return not args and not kwargs
        return len(args) <= 1 and not (args and kwargs)

    @property
    def _takes(self) -> str:
        """A description of the arguments, for errors."""
        if self.schema is None:
            return "nothing"
        return f"one {self.schema.name}, its fields by name, or one mapping of them"


def or_empty(given: Any) -> Any:
    """The input that was given; an empty object for none."""
    return {} if given is None else given


def is_instance(value: Any, schema: Schema | None) -> bool:
    """Whether a value is an instance of a schema's class."""
    return schema is not None and isinstance(value, typing.get_origin(schema.cls) or schema.cls)
