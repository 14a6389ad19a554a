"""The function that builds a template's workflow: the class of its params, and the place where it is defined."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from ..errors import InvalidTemplate

#: Gives a node, a Dramatiq message or a Workflow.  Its one parameter, which it
#: may leave out, gets the params.
Builder = Callable[..., Any]


def parameter_of(name: str, builder: Builder) -> inspect.Parameter | None:
    """The parameter that gets the params; None where there is none."""
    parameters = _parameters(name, builder)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    needed = list(filter(_is_needed, parameters))
    if needed not in ([], positional[:1]):
        raise InvalidTemplate(
            f"The builder of the template {name!r} must take one parameter, the params, or none; "
            f"it takes {', '.join(p.name for p in needed)}.",
            builder,
        )
    return positional[0] if positional else None


def _parameters(name: str, builder: Builder) -> list[inspect.Parameter]:
    try:
        return [*inspect.signature(builder).parameters.values()]
    except (TypeError, ValueError):
        raise InvalidTemplate(f"The builder of the template {name!r} has no signature to be seen.", builder) from None


def _is_needed(parameter: inspect.Parameter) -> bool:
    """Whether a call must give this parameter."""
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return False
    return parameter.default is parameter.empty


def params_class(name: str, builder: Builder, parameter: inspect.Parameter) -> type[Any] | None:
    """The class that a parameter asks for; None for any mapping."""
    if parameter.annotation is parameter.empty:
        return None
    kind = _annotation(name, builder, parameter)
    if _is_any_mapping(kind):
        return None
    if not isinstance(kind, type) or not attrs.has(kind):
        raise InvalidTemplate(
            f"The params of the template {name!r} must be an attrs class or a mapping, not {kind!r}.", builder
        )
    return kind


def _annotation(name: str, builder: Builder, parameter: inspect.Parameter) -> Any:
    """The annotation of a parameter, resolved where it is a string."""
    try:
        hints = typing.get_type_hints(_function(builder))
    except Exception as e:
        raise InvalidTemplate(
            f"The annotation {parameter.annotation!r} of the template {name!r} cannot be read here ({e}). "
            "Say input=THE_CLASS.",
            builder,
        ) from None
    return hints.get(parameter.name, parameter.annotation)


def _is_any_mapping(kind: Any) -> bool:
    """Whether an annotation leaves open which params a mapping has."""
    origin = typing.get_origin(kind) or kind
    return kind is Any or (isinstance(origin, type) and issubclass(origin, Mapping))


def _function(builder: Builder) -> Callable[..., Any]:
    """The function behind a builder: of a partial, and of an object that can be called."""
    while isinstance(builder, functools.partial):
        builder = builder.func
    return builder if inspect.isroutine(builder) else type(builder).__call__


def folder_of(builder: Builder) -> Path:
    """Where a builder's module is; the current folder where it is nowhere (a prompt)."""
    try:
        return Path(inspect.getfile(inspect.unwrap(_function(builder)))).parent
    except (TypeError, OSError):
        return Path()


def place_of(builder: Builder) -> str:
    """The name of a builder, with its module, for errors."""
    name = getattr(builder, "__qualname__", repr(builder))
    return f"{getattr(builder, '__module__', '?')}.{name}"
