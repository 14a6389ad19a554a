"""The input of a typed actor, as a caller gives it: an instance, keyword arguments, one mapping, or nothing."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

import attrs

from ..errors import InvalidInput
from .schema import Schema

#: Field of the input of a callback, which holds the mapping of the run.
RUN_FIELD = "run"


@attrs.frozen
class CallInput:
    """Reader of the input from the arguments of a call.

    Attributes:
      actor_name: Name that errors give.
      parameter: Name of the function's only parameter; "" if it has none.
      schema: The schema of the input; None if the actor takes nothing.
    """

    actor_name: str
    parameter: str
    schema: Schema | None

    def read(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Read the input as the caller gave it: an instance, a dict, or None for nothing.

        Raises:
          InvalidInput: if the arguments are not exactly one input, or none.
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
        """Read the input from the only positional argument."""
        if value is None:
            return None  # the gem's typed jobs, too, take nil for no argument
        if isinstance(value, Mapping):
            return dict(value)
        if not is_instance(value, self.schema):
            raise InvalidInput(f"{self.actor_name} takes {self._takes}: input: got {value!r:.100}.", value)
        return value

    def _is_call_by_name(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Return True if an instance is given by the parameter's name, as in a call of the function itself."""
        if self.schema is None or args or kwargs.keys() != {self.parameter}:
            return False
        return is_instance(kwargs[self.parameter], self.schema) and self.parameter not in self.schema.fields

    def _is_one_input(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Return True if the arguments are at most one input: positional or by name."""
        if self.schema is None:
            return not args and not kwargs
        return len(args) <= 1 and not (args and kwargs)

    @property
    def _takes(self) -> str:
        """Description of the expected arguments, for errors."""
        if self.schema is None:
            return "nothing"
        return f"one {self.schema.name}, its fields by name, or one mapping of them"


def with_run(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Make one input of the two arguments of a callback of a run: the second, a mapping, is its field ``run``."""
    if len(args) == 2 and all(isinstance(each, Mapping) for each in args) and "run_id" in args[1]:
        return ({**args[0], RUN_FIELD: args[1]},)
    return args


def or_empty(given: Any) -> Any:
    """Return the given input; an empty object if there is none."""
    return {} if given is None else given


def is_instance(value: Any, schema: Schema | None) -> bool:
    """Return True if a value is an instance of a schema's class."""
    return schema is not None and isinstance(value, typing.get_origin(schema.cls) or schema.cls)
