"""Compiles annotations into type adapters, once, when an actor is declared.

Classes are structured by cattrs: it calls the constructor, leaves defaults to
attrs, refuses unknown keys and collects the errors of all fields.  The hook of
each field is the adapter of its type.  A type whose JSON would be ambiguous (a
union of two kinds of strings), or that has no JSON form (bytes, a class without
attrs), is refused here, before any job runs.
"""

from __future__ import annotations

import collections.abc as abc
import enum
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, Union

import attrs
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, override

from ...errors import ConfigurationError
from . import containers, unions
from .adapters import ANY, OBJECT, SIMPLE, STRING, TypeAdapter, kind_of
from .annotations import arguments_of, bind, class_of, resolve, strip_aliases
from .json_schema import ROOT, Definitions, Field
from .scalars import SCALARS, one_of
from .validation_errors import InvalidValue

MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)
UNIONS = (Union, types.UnionType)
_LISTS = (list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable)
_SETS: Mapping[Any, type] = {set: set, abc.MutableSet: set, frozenset: frozenset, abc.Set: frozenset}

#: Types without arguments or parts.
_PLAIN: Mapping[Any, TypeAdapter] = {**SCALARS, None: SCALARS[type(None)], Any: ANY, object: ANY}

#: cattrs' converter.  It makes the functions that structure classes; each field has a separate hook.
_converter = Converter(detailed_validation=True, forbid_extra_keys=True)

_Make = Callable[[Any, tuple[Any, ...], str], TypeAdapter]


class Compiler:
    """Compiler of the adapters of one schema.

    Parameters:
      root: The class of the schema; references to it are written as ``#``.
      names: Names for string annotations, in addition to those of a class's module.
    """

    def __init__(self, root: Any, names: Mapping[str, Any] | None = None) -> None:
        self.root = root
        self.names = dict(names or {})
        self.definitions = Definitions()
        self.fields: dict[Any, list[Field]] = {}
        self._classes: dict[Any, TypeAdapter] = {}
        self._makers: dict[Any, _Make] = {
            typing.Literal: self._literal,
            tuple: self._tuple,
            **dict.fromkeys(UNIONS, self._union),
            **dict.fromkeys(MAPPINGS, self._mapping),
            **dict.fromkeys(_LISTS, self._list),
            **dict.fromkeys(_SETS, self._set),
        }

    def adapter(self, kind: Any, path: str) -> TypeAdapter:
        """Make the adapter of a type.

        Raises:
          ConfigurationError: if JSON cannot carry the type without guessing;
            the message names the path.
        """
        kind = strip_aliases(kind)
        if kind in _PLAIN:
            return _PLAIN[kind]
        make = self._makers.get(class_of(kind))
        if make is not None:
            return make(kind, typing.get_args(kind), path)
        return self._adapter_of_class(kind, path)

    def _adapter_of_class(self, kind: Any, path: str) -> TypeAdapter:
        """Make the adapter of an enum or an attrs class; refuse any other class."""
        if _is_enum(kind):
            return self._enum(kind, path)
        cls = class_of(kind)
        if isinstance(cls, type) and attrs.has(cls):
            return self._class(kind, path)
        raise ConfigurationError(f"{path}: {_refusal(kind)}", kind)

    # -- values without parts -----------------------------------------------------

    def _literal(self, _: Any, args: tuple[Any, ...], path: str) -> TypeAdapter:
        members = [(arg.value if isinstance(arg, enum.Enum) else arg, arg) for arg in args]
        return _one_of(f"one of {_listed(members)}", members, path)

    def _enum(self, kind: type[enum.Enum], path: str) -> TypeAdapter:
        members = [(member.value, member) for member in kind]
        return _one_of(f"{kind.__name__} (one of {_listed(members)})", members, path)

    # -- values with parts --------------------------------------------------------

    def _union(self, _: Any, args: tuple[Any, ...], path: str) -> TypeAdapter:
        return unions.union([self.adapter(arg, path) for arg in args], path)

    def _mapping(self, _: Any, args: tuple[Any, ...], path: str) -> TypeAdapter:
        of_keys, of_values = args or (str, Any)
        keys = self.adapter(of_keys, f"{path} (its keys)")
        if keys is ANY:
            keys = SCALARS[str]
        if keys.kinds != {STRING}:
            raise ConfigurationError(
                f"{path}: JSON has string keys only, and {of_keys!r} is not a string in JSON.", of_keys
            )
        return containers.mapping("dict", keys, self.adapter(of_values, f"{path}[]"))

    def _tuple(self, kind: Any, args: tuple[Any, ...], path: str) -> TypeAdapter:
        if not args or args[-1] is Ellipsis:
            return containers.array("tuple", self._item(args, path), tuple)
        # tuple[()] has no arguments on some versions of Python, and one empty tuple on others.
        items = [self.adapter(arg, f"{path}[{index}]") for index, arg in enumerate(args) if arg != ()]
        return containers.fixed_tuple(items)

    def _list(self, _: Any, args: tuple[Any, ...], path: str) -> TypeAdapter:
        return containers.array("list", self._item(args, path), list)

    def _set(self, kind: Any, args: tuple[Any, ...], path: str) -> TypeAdapter:
        item = self._item(args, path)
        return containers.array("list of distinct items", item, _SETS[class_of(kind)], distinct=True)

    def _item(self, args: tuple[Any, ...], path: str) -> TypeAdapter:
        return self.adapter(args[0], f"{path}[]") if args else ANY

    # -- classes ------------------------------------------------------------------

    def _class(self, kind: Any, path: str) -> TypeAdapter:
        if kind in self._classes:
            return self._classes[kind]
        cls = class_of(kind)
        arguments = arguments_of(kind, path)
        reference = ROOT if kind == self.root else self.definitions.reserve(cls)
        structure: Any = None

        def load(value: Any) -> Any:
            if type(value) is not dict:
                raise InvalidValue.of(f"{cls.__name__} (an object)", value)
            return structure(value, cls)

        # Add the class before its fields, since a field may hold the class itself.
        adapter = TypeAdapter(cls.__name__, load, {"$ref": reference}, frozenset((OBJECT,)), cls=kind)
        self._classes[kind] = adapter
        resolve(cls, self.names)
        fields = {attribute.name: self._field(cls, attribute, arguments) for attribute in _init_attributes(cls)}
        self.fields[kind] = list(fields.values())
        structure = _structure(kind, fields)
        self.definitions.define(reference, cls, fields.values())
        return adapter

    def _field(self, cls: type, attribute: attrs.Attribute[Any], arguments: Mapping[Any, Any]) -> Field:
        declared = Any if attribute.type is None else bind(attribute.type, arguments)
        adapter = self.adapter(declared, f"{cls.__name__}.{attribute.name}")
        return Field(attribute.alias or attribute.name, adapter, attribute.default)


def _init_attributes(cls: Any) -> list[attrs.Attribute[Any]]:
    return [attribute for attribute in attrs.fields(cls) if attribute.init]


def _structure(kind: Any, fields: Mapping[str, Field]) -> Any:
    """Make cattrs' function that converts a JSON object to an instance."""
    hooks: dict[str, Any] = {name: override(struct_hook=_hook(field.adapter)) for name, field in fields.items()}
    return make_dict_structure_fn(
        kind,
        _converter,
        _cattrs_forbid_extra_keys=True,
        _cattrs_detailed_validation=True,
        _cattrs_use_alias=True,
        **hooks,
    )


def _hook(adapter: TypeAdapter) -> Any:
    load = adapter.load
    return lambda value, _: load(value)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum) and not issubclass(kind, enum.Flag)


def _listed(members: Iterable[tuple[Any, Any]]) -> str:
    return ", ".join(repr(raw) for raw, _ in members)


def _one_of(name: str, members: list[tuple[Any, Any]], path: str) -> TypeAdapter:
    for raw, member in members:
        if kind_of(raw) not in SIMPLE:
            raise ConfigurationError(f"{path}: the value of {member!r} is not a string, number, bool or None.", member)
    return one_of(name, members)


def _refusal(kind: Any) -> str:
    if kind in (bytes, bytearray):
        return "JSON has no bytes; use str, e.g. in base64."
    if isinstance(kind, TypeVar):
        return f"{kind} is a type variable without a type here."
    if isinstance(kind, str):
        return f"{kind!r} is the name of a type that cannot be resolved."
    return (
        f"{getattr(kind, '__name__', kind)} has no unambiguous form in JSON. Use an attrs class, or a type "
        "listed in docs/typed-actors.md."
    )
