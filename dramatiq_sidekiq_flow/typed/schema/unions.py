"""Unions: which member a JSON value is, decided by what it is and never by trying."""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from ...errors import ConfigurationError
from .adapters import ANY, NULL, SCALARS, Shape, kind_of
from .validation_errors import Mismatch, key


def union(members: Sequence[Shape], path: str) -> Shape:
    """The shape of a union.

    Raises:
      ConfigurationError: where a JSON value could be of two members.
    """
    if ANY in members:
        if all(member is ANY or member.kinds == {NULL} for member in members):
            return ANY
        raise _ambiguous([member for member in members if member is not ANY] + [ANY], path)
    by_kind: dict[str, list[Shape]] = {}
    for member in members:
        for kind in member.kinds:
            by_kind.setdefault(kind, []).append(member)
    loads = {kind: _one_of(candidates, path) for kind, candidates in by_kind.items()}
    name = " or ".join(dict.fromkeys(member.name for member in members))

    def load(value: Any) -> Any:
        chosen = loads.get(kind_of(value) or "")
        if chosen is None:
            raise Mismatch.of(name, value)
        return chosen(value)

    lists = [member.values for member in members]
    values = frozenset().union(*lists) if None not in lists else None  # type: ignore[arg-type]
    return Shape(name, load, {"anyOf": [m.schema for m in members]}, frozenset(by_kind), values)


def _one_of(candidates: list[Shape], path: str) -> Callable[[Any], Any]:
    """How to load a value that several members take by its JSON type."""
    if len(candidates) == 1:
        return candidates[0].load
    if all(candidate.cls is not None for candidate in candidates):
        return _tagged(candidates) or _by_fields(candidates, path)
    closed = [candidate for candidate in candidates if candidate.values is not None]
    # A str takes any literal string, and gives the same.
    if len(closed) == len(candidates) - 1 and SCALARS[str] in candidates and all(map(_is_literal, closed)):
        return SCALARS[str].load
    if len(closed) < len(candidates) or not _disjoint(closed):
        raise _ambiguous(candidates, path)
    name = " or ".join(candidate.name for candidate in candidates)

    def load(value: Any) -> Any:
        for candidate in candidates:
            if (type(value), value) in (candidate.values or ()):
                return candidate.load(value)
        raise Mismatch.of(name, value)

    return load


def _is_literal(shape: Shape) -> bool:
    return all(type(shape.load(raw)) is kind for kind, raw in shape.values or ())


def _disjoint(shapes: Sequence[Shape]) -> bool:
    values = [value for shape in shapes for value in shape.values or ()]
    return len(values) == len(set(values))


# -- classes --------------------------------------------------------------------


def _tagged(candidates: Sequence[Shape]) -> Callable[[Any], Any] | None:
    """By a field that each has, with values of its own: ``kind: Literal["card"]``."""
    tags = [_tags(candidate.cls) for candidate in candidates]
    for name in tags[0]:
        if all(name in other for other in tags):
            owners = {value: shape for shape, own in zip(candidates, tags) for value in own[name]}
            if len(owners) == sum(len(own[name]) for own in tags):
                return _by_tag(name, owners)
    return None


def _by_tag(name: str, owners: dict[tuple[type, Any], Shape]) -> Callable[[Any], Any]:
    expected = "one of " + ", ".join(repr(value) for _, value in owners)

    def load(value: Any) -> Any:
        if name not in value:
            raise Mismatch([(key(name), f"is missing: {expected} says which class this is")])
        tag = value[name]
        if kind_of(tag) in (None, "array", "object") or (type(tag), tag) not in owners:
            raise Mismatch([(key(name) + path, text) for path, text in Mismatch.of(expected, tag).problems])
        return owners[type(tag), tag].load(value)

    return load


def _tags(cls: Any) -> dict[str, list[tuple[type, Any]]]:
    """The fields of a class that are literals."""
    return {
        field.alias or field.name: [(type(value), value) for value in typing.get_args(field.type)]
        for field in attrs.fields(typing.get_origin(cls) or cls)
        if field.init and typing.get_origin(field.type) is typing.Literal
    }


def _by_fields(candidates: Sequence[Shape], path: str) -> Callable[[Any], Any]:
    """By a field that only one has, and must have; the one that is left over has none of these."""
    signs: list[tuple[str, Shape]] = []
    left = list(candidates)
    # Whoever is told apart is out of the way of the others.
    while signed := [(own[0], shape) for shape in left if (own := _own(shape, left))][:1]:
        signs += signed
        left.remove(signed[0][1])
    if len(left) > 1:
        raise _ambiguous(candidates, path)
    expected = " or ".join(f"{shape.name} (it has {name})" for name, shape in signs)

    def load(value: Any) -> Any:
        for name, candidate in signs:
            if name in value:
                return candidate.load(value)
        if not left:
            raise Mismatch.of(expected, value)
        return left[0].load(value)

    return load


def _own(shape: Shape, among: Sequence[Shape]) -> list[str]:
    """The fields that a class must have and no other has."""
    others = {name for other in among if other is not shape for name in _fields(other.cls)}
    return [name for name, required in _fields(shape.cls).items() if required and name not in others]


def _fields(cls: Any) -> dict[str, bool]:
    """The keys of a class, and whether they must be there."""
    fields = attrs.fields(typing.get_origin(cls) or cls)
    return {field.alias or field.name: field.default is attrs.NOTHING for field in fields if field.init}


def _ambiguous(candidates: Sequence[Shape], path: str) -> ConfigurationError:
    names = " and ".join(candidate.name for candidate in candidates)
    return ConfigurationError(
        f"{path}: a JSON value does not show which of {names} it is. Keep one of them, or for classes "
        'add a field such as kind: Literal["name"] to each.',
        [candidate.name for candidate in candidates],
    )
