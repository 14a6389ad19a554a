"""From annotations to shapes, once, when an actor is declared.

Classes are structured by cattrs, strictly: unknown keys are refused, and every
error is collected with its place.  What this cannot do without guessing (a
union of two kinds of strings, bytes, a class of another kind) is refused here,
before anything runs.
"""

from __future__ import annotations

import collections.abc as abc
import enum
import types
import typing
from collections.abc import Mapping
from typing import Any, NewType, TypeVar, Union

import attrs
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, override

from ...errors import ConfigurationError, InvalidArguments
from ...wire import codec
from . import unions
from .adapters import ANY, INTEGER, NULL, OBJECT, SCALARS, STRING, Shape, array, dump, kind_of, listed, mapping, row
from .validation_errors import Mismatch

MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)
_LISTS = (list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable)
_SETS = {set: set, abc.MutableSet: set, frozenset: frozenset, abc.Set: frozenset}
_UNIONS = (Union, types.UnionType)

#: Makes the functions that structure classes; what their fields take is ours.
_converter = Converter(detailed_validation=True, forbid_extra_keys=True)


@attrs.frozen
class Field:
    """One key of a class.

    Attributes:
      name: As on the wire: the field's alias.
      shape: What it takes.
      required: Whether it has no default.
    """

    name: str
    shape: Shape
    required: bool


class Compiler:
    """Makes the shapes of one schema; its classes are written to ``$defs``.

    Parameters:
      root: The class that the schema is of; what refers to it refers to ``#``.
      names: Where names in string annotations may be found, beside a class's module.
    """

    def __init__(self, root: Any, names: Mapping[str, Any] | None = None) -> None:
        self.root = root
        self.names = dict(names or {})
        self.definitions: dict[str, Any] = {}
        self.fields: dict[Any, list[Field]] = {}
        self._classes: dict[Any, Shape] = {}

    def shape(self, kind: Any, path: str) -> Shape:
        """The shape of a type.

        Raises:
          ConfigurationError: naming the path, for a type that JSON cannot
            carry without guessing.
        """
        kind = plain(kind)
        origin, args = typing.get_origin(kind) or kind, typing.get_args(kind)
        if kind in (Any, object):
            return ANY
        if kind is None or kind in SCALARS:
            return SCALARS[type(None) if kind is None else kind]
        if origin in _UNIONS:
            return unions.union([self.shape(arg, path) for arg in args], path)
        if origin is typing.Literal:
            members = [(arg.value if isinstance(arg, enum.Enum) else arg, arg) for arg in args]
            return self._listed("one of " + ", ".join(repr(raw) for raw, _ in members), members, path)
        if isinstance(kind, type) and issubclass(kind, enum.Enum) and not issubclass(kind, enum.Flag):
            members = [(member.value, member) for member in kind]
            names = ", ".join(repr(raw) for raw, _ in members)
            return self._listed(f"{kind.__name__} (one of {names})", members, path)
        if origin in MAPPINGS:
            return self._mapping(args or (str, Any), path)
        if origin is tuple and args and args[-1] is not Ellipsis:
            # tuple[()] has no arguments on some versions, and one empty tuple on others.
            return row([self.shape(arg, f"{path}[{index}]") for index, arg in enumerate(args) if arg != ()])
        item = self.shape(args[0], f"{path}[]") if origin in (tuple, *_LISTS, *_SETS) and args else ANY
        if origin is tuple:
            return array("tuple", item, tuple)
        if origin in _LISTS:
            return array("list", item, list)
        if origin in _SETS:
            return array("list of distinct items", item, _SETS[origin], distinct=True)
        if isinstance(origin, type) and attrs.has(origin):
            return self._class(kind, path)
        raise ConfigurationError(f"{path}: {_refusal(kind)}", kind)

    def _listed(self, name: str, members: list[tuple[Any, Any]], path: str) -> Shape:
        for raw, member in members:
            if kind_of(raw) not in (NULL, "boolean", INTEGER, "number", STRING):
                raise ConfigurationError(
                    f"{path}: the value of {member!r} is not a string, number, bool or None.", member
                )
        return listed(name, members)

    def _mapping(self, args: tuple[Any, ...], path: str) -> Shape:
        keys = self.shape(args[0], f"{path} (its keys)")
        keys = SCALARS[str] if keys is ANY else keys
        if keys.kinds != {STRING}:
            raise ConfigurationError(f"{path}: JSON has string keys only, and {args[0]!r} is none.", args[0])
        return mapping("dict", keys, self.shape(args[1], f"{path}[]"))

    # -- classes ----------------------------------------------------------------

    def _class(self, kind: Any, path: str) -> Shape:
        if kind in self._classes:
            return self._classes[kind]
        origin = typing.get_origin(kind) or kind
        parameters = getattr(origin, "__parameters__", ())
        bound = dict(zip(parameters, typing.get_args(kind)))
        if len(bound) != len(parameters):
            raise ConfigurationError(f"{path}: {origin.__name__} is generic; say of what, {origin.__name__}[...].")
        reference = "#" if kind == self.root else f"#/$defs/{self._name(origin.__name__)}"
        structure: Any = None

        def load(value: Any) -> Any:
            if type(value) is not dict:
                raise Mismatch.of(f"{origin.__name__} (an object)", value)
            return structure(value, origin)

        # Known before its fields are: one of them may hold the class itself.
        shape = Shape(origin.__name__, load, {"$ref": reference}, frozenset((OBJECT,)), cls=kind)
        self._classes[kind] = shape
        if reference != "#":
            self.definitions[reference.removeprefix("#/$defs/")] = {}
        fields: list[Field] = []
        hooks: dict[str, Any] = {}
        properties: dict[str, Any] = {}
        self._resolve(origin)
        for attribute in attrs.fields(origin):
            if not attribute.init:
                continue
            declared = Any if attribute.type is None else _bind(attribute.type, bound)
            inner = self.shape(declared, f"{origin.__name__}.{attribute.name}")
            name = attribute.alias or attribute.name
            hooks[attribute.name] = override(struct_hook=_hook(inner))
            fields.append(Field(name, inner, attribute.default is attrs.NOTHING))
            properties[name] = {**inner.schema, **_default(attribute.default)}
        self.fields[kind] = fields
        structure = make_dict_structure_fn(
            kind,
            _converter,
            _cattrs_forbid_extra_keys=True,
            _cattrs_detailed_validation=True,
            _cattrs_use_alias=True,
            **hooks,
        )
        definition: dict[str, Any] = {"title": origin.__name__, "type": OBJECT, "properties": properties}
        if required := [field.name for field in fields if field.required]:
            definition["required"] = required
        definition["additionalProperties"] = False
        self.definitions["#" if reference == "#" else reference.removeprefix("#/$defs/")] = definition
        return shape

    def _name(self, name: str) -> str:
        number, free = 2, name
        while free in self.definitions:
            free, number = f"{name}{number}", number + 1
        return free

    def _resolve(self, cls: type) -> None:
        # What a class at the top of a module names is not looked for elsewhere.
        local = self.names if "<locals>" in cls.__qualname__ else None
        try:
            try:
                attrs.resolve_types(cls, localns=local, include_extras=True)
            except TypeError:
                # A field of the name of its type (`list: list[int]`) hides it.
                attrs.resolve_types(cls, localns={**_names_in(cls), **(local or {})}, include_extras=True)
        except Exception as e:
            raise ConfigurationError(
                f"The annotations of {cls.__name__} cannot be read: {e}. What they name must be at the top of its "
                "module, or in the function that declares the actor.",
                cls,
            ) from None


def _names_in(cls: type) -> dict[str, Any]:
    """What the body of a class names, but for its fields."""
    fields = {attribute.name for attribute in attrs.fields(cls)}
    names: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        names.update((name, value) for name, value in vars(base).items() if name not in fields)
    return names


def plain(kind: Any) -> Any:
    """A type without the names that were given to it: NewType, Annotated, ``type X = ...``."""
    while True:
        if isinstance(kind, NewType):
            kind = kind.__supertype__
        elif typing.get_origin(kind) is typing.Annotated:
            kind = typing.get_args(kind)[0]
        elif type(kind).__name__ == "TypeAliasType":
            kind = kind.__value__
        else:
            return kind


def _hook(shape: Shape) -> Any:
    load = shape.load
    return lambda value, _: load(value)


def _bind(kind: Any, bound: Mapping[Any, Any]) -> Any:
    """A field's type, with the arguments of its generic class put in."""
    if not bound:
        return kind
    if isinstance(kind, TypeVar):
        return bound.get(kind, kind)
    free = getattr(kind, "__parameters__", ())
    if free and typing.get_origin(kind) is not None:
        return kind[tuple(bound.get(parameter, parameter) for parameter in free)]
    return kind


def _default(default: Any) -> dict[str, Any]:
    if default is attrs.NOTHING or isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        return {}
    try:
        value = dump(default)
        codec.check(value)
    except (InvalidArguments, RecursionError, TypeError):
        return {}
    return {"default": value}


def _refusal(kind: Any) -> str:
    if kind in (bytes, bytearray):
        return "JSON has no bytes; use str, e.g. in base64."
    if isinstance(kind, TypeVar):
        return f"{kind} stands for no type here."
    if isinstance(kind, str):
        return f"{kind!r} is the name of a type, and it is not known which."
    return (
        f"{getattr(kind, '__name__', kind)} has no one form in JSON. Use an attrs class, or a type "
        "that docs/typed-actors.md names."
    )
