"""What a typed actor's function says of its input and output."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, Union

import attrs

from ..errors import ConfigurationError
from .schema import Schema
from .schema.annotations import strip_aliases
from .schema.compiler import MAPPINGS


def read(fn: Callable[..., Any], name: str) -> tuple[str, Schema | None, Schema | None]:
    """The name of the parameter, and the schemas of input and output.

    Raises:
      ConfigurationError: naming the actor, for what a typed actor cannot be.
    """
    names = _names(fn)
    try:
        parameters = list(inspect.signature(fn).parameters.values())
        hints = typing.get_type_hints(fn, localns=names or None, include_extras=True)
    except Exception as e:
        raise ConfigurationError(
            f"{name}: the annotations cannot be read: {e}. What they name must be at the top of the module, or in "
            "the function that declares the actor.",
            fn,
        ) from None
    if len(parameters) > 1 or any(p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters):
        raise ConfigurationError(
            f"{name}: a typed actor takes one parameter, an attrs class, or none. Put what it takes into one class, "
            "or use dramatiq.actor.",
            fn,
        )
    output = strip_aliases(hints.get("return"))
    written = Schema.of(output, names) if _is_object(output) and output not in (None, type(None)) else None
    if not parameters:
        return "", None, written
    parameter = parameters[0].name
    kind = strip_aliases(hints.get(parameter))
    if not attrs.has(typing.get_origin(kind) or kind):
        raise ConfigurationError(
            f"{name}: annotate {parameter!r} with the attrs class that it takes, not "
            f"{'nothing' if kind is None else kind!r}.",
            fn,
        )
    return parameter, Schema.of(kind, names), written


def _is_object(kind: Any) -> bool:
    """Whether a return annotation says what goes to memory."""
    kind = strip_aliases(kind)
    origin = typing.get_origin(kind) or kind
    if origin in (Union, types.UnionType):
        return all(arg is type(None) or _is_object(arg) for arg in typing.get_args(kind))
    return origin in MAPPINGS or attrs.has(origin)


def _names(fn: Callable[..., Any]) -> dict[str, Any]:
    """The local names where an actor is declared: its classes may be local to a function."""
    globals_of = getattr(inspect.unwrap(fn), "__globals__", None)
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals is globals_of:
            return {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)
        if frame.f_back is None:
            break
        frame = frame.f_back
    return {}
