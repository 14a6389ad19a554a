"""Adapters of unions.  The JSON value alone decides which member it is; members are not tried one by one.

Written by hand, since the strategies of cattrs decide differently (tried with 26.2):

* Its disambiguation accepts classes and None only, not ``Color | int``; it does
  not distinguish the tags 1 and True; an unknown or missing tag is a bare
  KeyError, without a path and without the valid tags.
* ``configure_union_passthrough`` uses ``isinstance``: ``int | str`` accepts True,
  and ``float | str`` accepts 1.
* ``configure_tagged_union`` adds another key to the JSON, which Ruby does not
  write; ``include_subclasses`` accepts classes that the annotation does not name.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from ...errors import ConfigurationError
from .adapters import ANY, NULL, SIMPLE, TypeAdapter, kind_of, typed
from .scalars import SCALARS
from .validation_errors import InvalidValue, path_part

Load = Callable[[Any], Any]


def union(members: Sequence[TypeAdapter], path: str) -> TypeAdapter:
    """Make the adapter of a union.

    Raises:
      ConfigurationError: if a JSON value could be of two members.
    """
    if ANY in members:
        return _with_any(members, path)
    by_kind = _by_kind(members)
    loads = {kind: _choose(candidates, path) for kind, candidates in by_kind.items()}
    name = _names(dict.fromkeys(member.name for member in members))

    def load(value: Any) -> Any:
        chosen = loads.get(kind_of(value) or "")
        if chosen is None:
            raise InvalidValue.of(name, value)
        return chosen(value)

    schema = {"anyOf": [member.schema for member in members]}
    return TypeAdapter(name, load, schema, frozenset(by_kind), _values(members))


def _with_any(members: Sequence[TypeAdapter], path: str) -> TypeAdapter:
    others = [member for member in members if member is not ANY]
    if any(member.kinds != {NULL} for member in others):
        raise _ambiguous([*others, ANY], path)
    return ANY


def _by_kind(members: Sequence[TypeAdapter]) -> dict[str, list[TypeAdapter]]:
    by_kind: dict[str, list[TypeAdapter]] = {}
    for member in members:
        for kind in member.kinds:
            by_kind.setdefault(kind, []).append(member)
    return by_kind


def _values(members: Iterable[TypeAdapter]) -> frozenset[tuple[type, Any]] | None:
    """Collect all values of a union; return None if a member does not list its values."""
    values: set[tuple[type, Any]] = set()
    for member in members:
        if member.values is None:
            return None
        values |= member.values
    return frozenset(values)


def _choose(candidates: Sequence[TypeAdapter], path: str) -> Load:
    """Make the function that loads a value of one JSON type, which all candidates accept."""
    if len(candidates) == 1:
        return candidates[0].load
    if all(candidate.cls is not None for candidate in candidates):
        return _by_tags(candidates) or _by_fields(candidates, path)
    if _is_str_and_literals(candidates):
        # A str loads any literal string, unchanged.
        return SCALARS[str].load
    if not _are_disjoint(candidates):
        raise _ambiguous(candidates, path)
    return _by_values(candidates)


def _is_str_and_literals(candidates: Sequence[TypeAdapter]) -> bool:
    others = [candidate for candidate in candidates if candidate.values is not None]
    if len(others) != len(candidates) - 1 or SCALARS[str] not in candidates:
        return False
    return all(map(_is_literal, others))


def _is_literal(adapter: TypeAdapter) -> bool:
    """Return True if an adapter loads its values unchanged, which an enum does not."""
    return all(type(adapter.load(raw)) is kind for kind, raw in adapter.values or ())


def _are_disjoint(candidates: Sequence[TypeAdapter]) -> bool:
    """Return True if all adapters list their values, and no two of them share a value."""
    together = _values(candidates)
    if together is None:
        return False
    return len(together) == sum(len(candidate.values or ()) for candidate in candidates)


def _by_values(candidates: Sequence[TypeAdapter]) -> Load:
    name = _names(candidate.name for candidate in candidates)
    owners = {value: candidate for candidate in candidates for value in candidate.values or ()}

    def load(value: Any) -> Any:
        owner = owners.get(typed(value))
        if owner is None:
            raise InvalidValue.of(name, value)
        return owner.load(value)

    return load


# -- classes by a tag -----------------------------------------------------------

#: Key of each field that is a literal -> its values.
_Tags = Mapping[str, list[tuple[type, Any]]]


def _by_tags(candidates: Sequence[TypeAdapter]) -> Load | None:
    """Choose by a tag, a field with different literals in each class: ``kind: Literal["card"]``; None without one."""
    tags = [_tags(candidate.cls) for candidate in candidates]
    for name in tags[0]:
        owners = _owners(name, candidates, tags)
        if owners is not None:
            return _by_tag(name, owners)
    return None


def _owners(
    name: str, candidates: Sequence[TypeAdapter], tags: Sequence[_Tags]
) -> dict[tuple[type, Any], TypeAdapter] | None:
    """Map each value of a tag to its class; return None if a class lacks the tag, or two share a value."""
    owners: dict[tuple[type, Any], TypeAdapter] = {}
    for candidate, own_tags in zip(candidates, tags):
        if name not in own_tags or not owners.keys().isdisjoint(own_tags[name]):
            return None
        owners.update(dict.fromkeys(own_tags[name], candidate))
    return owners


def _by_tag(name: str, owners: Mapping[tuple[type, Any], TypeAdapter]) -> Load:
    expected = "one of " + ", ".join(repr(value) for _, value in owners)

    def load(value: Any) -> Any:
        if name not in value:
            raise InvalidValue.at(path_part(name), f"is missing: {expected} determines the class")
        tag = value[name]
        if kind_of(tag) not in SIMPLE or typed(tag) not in owners:
            raise InvalidValue.of(expected, tag, path=path_part(name))
        return owners[typed(tag)].load(value)

    return load


def _tags(cls: Any) -> _Tags:
    """Collect the fields of a class that are literals."""
    return {
        field.alias or field.name: [typed(value) for value in typing.get_args(field.type)]
        for field in _init_fields(cls)
        if typing.get_origin(field.type) is typing.Literal
    }


# -- classes by their fields ----------------------------------------------------


def _by_fields(candidates: Sequence[TypeAdapter], path: str) -> Load:
    """Choose by a required field that only one class has; the last remaining class needs none."""
    marks: list[tuple[str, TypeAdapter]] = []
    remaining = list(candidates)
    # Remove each class once it can be identified; the rest may then become unambiguous.
    mark = _mark_among(remaining)
    while mark is not None:
        marks.append(mark)
        remaining.remove(mark[1])
        mark = _mark_among(remaining)
    if len(remaining) > 1:
        raise _ambiguous(candidates, path)
    expected = _names(f"{adapter.name} (it has {name})" for name, adapter in marks)

    def load(value: Any) -> Any:
        for name, candidate in marks:
            if name in value:
                return candidate.load(value)
        if not remaining:
            raise InvalidValue.of(expected, value)
        return remaining[0].load(value)

    return load


def _mark_among(candidates: Sequence[TypeAdapter]) -> tuple[str, TypeAdapter] | None:
    """Find a field that identifies one of the classes, and that class."""
    for candidate in candidates:
        taken = _fields_of_others(candidate, candidates)
        for name, required in _fields(candidate.cls).items():
            if required and name not in taken:
                return name, candidate
    return None


def _fields_of_others(candidate: TypeAdapter, candidates: Sequence[TypeAdapter]) -> set[str]:
    """Collect the keys of all classes but one."""
    names: set[str] = set()
    for other in candidates:
        if other is not candidate:
            names.update(_fields(other.cls))
    return names


def _fields(cls: Any) -> dict[str, bool]:
    """Map each key of a class to True if it is required."""
    return {field.alias or field.name: field.default is attrs.NOTHING for field in _init_fields(cls)}


def _init_fields(cls: Any) -> list[attrs.Attribute[Any]]:
    return [field for field in attrs.fields(typing.get_origin(cls) or cls) if field.init]


def _ambiguous(candidates: Sequence[TypeAdapter], path: str) -> ConfigurationError:
    names = [candidate.name for candidate in candidates]
    return ConfigurationError(
        f"{path}: a JSON value does not show which of {' and '.join(names)} it is. Keep one of them, or for classes "
        'add a field such as kind: Literal["name"] to each.',
        names,
    )


def _names(names: Iterable[str]) -> str:
    return " or ".join(names)
