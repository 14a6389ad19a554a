"""The parameter, input schema and output schema of a typed actor's function."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from ..errors import ConfigurationError
from .schema import Schema
from .schema.annotations import class_of, strip_aliases
from .schema.compiler import MAPPINGS, UNIONS


@attrs.frozen
class Signature:
    """The parameter of a typed actor's function, and the schemas of its input and output.

    Attributes:
      parameter: The name of the parameter; "" if there is none.
      input: The schema of the input; None if there is no parameter.
      output: The schema of the output; None if it is not checked.
    """

    parameter: str
    input: Schema | None
    output: Schema | None


def read(fn: Callable[..., Any], name: str) -> Signature:
    """Read the signature of a typed actor's function.

    Raises:
      ConfigurationError: if a typed actor cannot have this signature; the
        message names the actor.
    """
    names = _names(fn)
    parameters, hints = _annotations(fn, name, names)
    if len(parameters) > 1 or not all(map(_is_positional, parameters)):
        raise ConfigurationError(
            f"{name}: a typed actor takes one parameter, an attrs class, or none. Put all values into one class, "
            "or use dramatiq.actor.",
            fn,
        )
    output = _output(strip_aliases(hints.get("return")), names)
    if not parameters:
        return Signature("", None, output)
    parameter = parameters[0].name
    kind = strip_aliases(hints.get(parameter))
    if not attrs.has(class_of(kind)):
        annotated = "nothing" if kind is None else repr(kind)
        raise ConfigurationError(
            f"{name}: annotate {parameter!r} with the attrs class that it takes, not {annotated}.", fn
        )
    return Signature(parameter, Schema.of(kind, names), output)


def _annotations(
    fn: Callable[..., Any], name: str, names: Mapping[str, Any]
) -> tuple[list[inspect.Parameter], dict[str, Any]]:
    try:
        parameters = list(inspect.signature(fn).parameters.values())
        hints = typing.get_type_hints(fn, localns=dict(names) or None, include_extras=True)
    except Exception as e:
        raise ConfigurationError(
            f"{name}: the annotations cannot be read: {e}. Define the names that they use at the top of the module, "
            "or in the function that declares the actor.",
            fn,
        ) from None
    return parameters, hints


def _is_positional(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)


def _output(kind: Any, names: Mapping[str, Any]) -> Schema | None:
    """Make the schema of a return annotation; return None if the output is not checked."""
    if kind in (None, type(None)) or not _is_object(kind):
        return None
    return Schema.of(kind, names)


def _is_object(kind: Any) -> bool:
    """Return True if a return annotation names the fields that go to the run's memory."""
    kind = strip_aliases(kind)
    cls = class_of(kind)
    if cls in UNIONS:
        return all(arg is type(None) or _is_object(arg) for arg in typing.get_args(kind))
    return cls in MAPPINGS or attrs.has(cls)


def _names(fn: Callable[..., Any]) -> dict[str, Any]:
    """Find the local names at the declaration of an actor, since its classes may be local to a function.

    Reads the callers' frames: neither the function nor Dramatiq's decorator, which
    calls the actor's class, passes on the scope of the declaration.
    """
    globals_of = getattr(inspect.unwrap(fn), "__globals__", None)
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals is globals_of:
            return {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)
        if frame.f_back is None:
            break
        frame = frame.f_back
    return {}
