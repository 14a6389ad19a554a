"""Annotations of classes: resolved, and without aliases of types."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any, NewType, TypeVar

import attrs

from ...errors import ConfigurationError


def strip_aliases(kind: Any) -> Any:
    """Replace an alias by its type: NewType, Annotated, ``type X = ...``."""
    while True:
        if isinstance(kind, NewType):
            kind = kind.__supertype__
        elif typing.get_origin(kind) is typing.Annotated:
            kind = typing.get_args(kind)[0]
        elif type(kind).__name__ == "TypeAliasType":
            kind = kind.__value__
        else:
            return kind


def class_of(kind: Any) -> Any:
    """Return the class of a type with or without arguments: ``Box`` of ``Box[int]``."""
    return typing.get_origin(kind) or kind


def arguments_of(kind: Any, path: str) -> dict[Any, Any]:
    """Map the parameters of a generic class to its type arguments.

    Raises:
      ConfigurationError: if arguments are missing.
    """
    cls = class_of(kind)
    parameters = getattr(cls, "__parameters__", ())
    arguments = dict(zip(parameters, typing.get_args(kind)))
    if len(arguments) != len(parameters):
        raise ConfigurationError(f"{path}: {cls.__name__} is generic; give its type, {cls.__name__}[...].")
    return arguments


def bind(kind: Any, arguments: Mapping[Any, Any]) -> Any:
    """Replace the parameters in a field's type by the arguments of its generic class."""
    if not arguments:
        return kind
    if isinstance(kind, TypeVar):
        return arguments.get(kind, kind)
    free = getattr(kind, "__parameters__", ())
    if free and typing.get_origin(kind) is not None:
        return kind[tuple(arguments.get(parameter, parameter) for parameter in free)]
    return kind


def resolve(cls: type, names: Mapping[str, Any]) -> None:
    """Resolve the string annotations of a class, in place.

    Parameters:
      names: Local names, used for a class that is local to a function.

    Raises:
      ConfigurationError: if a name in an annotation is not found.
    """
    # Names in a class at the top of a module are looked up in that module only.
    local = dict(names) if "<locals>" in cls.__qualname__ else None
    try:
        _resolve(cls, local)
    except Exception as e:
        raise ConfigurationError(
            f"The annotations of {cls.__name__} cannot be read: {e}. Define the names that they use at the top of its "
            "module, or in the function that declares the actor.",
            cls,
        ) from None


def _resolve(cls: type, local: dict[str, Any] | None) -> None:
    try:
        attrs.resolve_types(cls, localns=local, include_extras=True)
    except TypeError:
        # A field with the name of its type (`list: list[int]`) hides the type.
        attrs.resolve_types(cls, localns={**_names_in(cls), **(local or {})}, include_extras=True)


def _names_in(cls: type) -> dict[str, Any]:
    """Return the names in the body of a class, without its fields."""
    fields = {attribute.name for attribute in attrs.fields(cls)}
    names: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        names.update((name, value) for name, value in vars(base).items() if name not in fields)
    return names
