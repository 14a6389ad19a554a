"""Any attrs class, values of it, and JSON that is none of it: what hypothesis draws for typed actors."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from types import GenericAlias
from typing import Any, Literal, Optional
from uuid import UUID

import attrs
import msgspec
from hypothesis import strategies as st

#: One value of each of JSON's types; a bad value is one that a type does not take.
SAMPLES: list[Any] = [None, True, 7, 7.5, "seven", [], {}]

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
_numbers = itertools.count()


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"
    SEVEN = 7.0


@attrs.frozen
class Kind:
    """A type.

    Attributes:
      annotation: As a field is annotated.
      good: Its values.
      bad: JSON that it must refuse, and the path at which.
      form: A value's JSON form, where it has parts.
    """

    annotation: Any
    good: st.SearchStrategy[Any]
    bad: st.SearchStrategy[tuple[Any, str]]
    form: Callable[[Any], Any] = lambda value: value

    def __repr__(self) -> str:
        return f"Kind({self.annotation})"


def _whole(*taken: type) -> st.SearchStrategy[tuple[Any, str]]:
    """Values of the wrong type, refused as a whole."""
    return st.sampled_from([value for value in SAMPLES if type(value) not in taken]).map(lambda value: (value, ""))


def _mostly(usual: st.SearchStrategy[Any], seldom: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Three times of four the one: where all are alike, few values reach a leaf before something else is wrong."""
    return st.integers(0, 3).flatmap(lambda number: seldom if number == 3 else usual)


def _leaf(annotation: Any, good: st.SearchStrategy[Any], *taken: type, form: Any = lambda value: value) -> Kind:
    return Kind(annotation, good, _whole(*taken), form)


_zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))

LEAVES = [
    _leaf(str, TEXT, str),
    _leaf(int, st.integers(), int),
    _leaf(float, st.floats(allow_nan=False, allow_infinity=False), float),
    _leaf(bool, st.booleans(), bool),
    _leaf(type(None), st.none(), type(None)),
    _leaf(int | float, st.integers() | st.floats(allow_nan=False, allow_infinity=False), int, float),
    _leaf(Color, st.sampled_from(Color), form=lambda member: member.value),
    _leaf(Literal["a", 1, True], st.sampled_from(["a", 1, True]), bool),
    # "seven" is none of these.
    _leaf(datetime, st.datetimes(timezones=st.none() | _zones), form=datetime.isoformat),
    _leaf(date, st.dates(), form=date.isoformat),
    _leaf(time, st.times(), form=time.isoformat),
    _leaf(timedelta, st.timedeltas(), form=msgspec.to_builtins),
    _leaf(UUID, st.uuids(), form=str),
    _leaf(Decimal, st.decimals(allow_nan=False, allow_infinity=False), form=str),
    _leaf(set[int], st.sets(st.integers(), max_size=3), list, form=list),
    _leaf(frozenset[str], st.frozensets(TEXT, max_size=3), list, form=list),
]


def _list(inner: Kind) -> Kind:
    good = st.lists(inner.good, max_size=3)

    def form(values: Any) -> Any:
        return [inner.form(value) for value in values]

    def spoil(parts: tuple[list[Any], tuple[Any, str]]) -> tuple[Any, str]:
        values, (bad, path) = parts
        return [*form(values), bad], f"[{len(values)}]{path}"

    return Kind(GenericAlias(list, inner.annotation), good, _whole(list) | st.tuples(good, inner.bad).map(spoil), form)


def _tuple(inner: Kind) -> Kind:
    listed = _list(inner)
    return Kind(GenericAlias(tuple, (inner.annotation, ...)), listed.good.map(tuple), listed.bad, listed.form)


def _pair(inner: Kind) -> Kind:
    good = st.tuples(inner.good, st.integers())

    def spoil(parts: tuple[Any, tuple[Any, str]]) -> tuple[Any, str]:
        (_, number), (bad, path) = parts
        return [bad, number], f"[0]{path}"

    bad = _whole() | st.tuples(good, inner.bad).map(spoil)
    return Kind(GenericAlias(tuple, (inner.annotation, int)), good, bad, lambda pair: [inner.form(pair[0]), pair[1]])


def _dict(inner: Kind) -> Kind:
    good = st.dictionaries(TEXT, inner.good, max_size=3)

    def form(values: Any) -> Any:
        return {key: inner.form(value) for key, value in values.items()}

    def spoil(parts: tuple[dict[str, Any], str, tuple[Any, str]]) -> tuple[Any, str]:
        values, key, (bad, path) = parts
        return {**form(values), key: bad}, (f".{key}" if key.isidentifier() else f"[{key!r}]") + path

    bad = _whole(dict) | st.tuples(good, TEXT, inner.bad).map(spoil)
    return Kind(GenericAlias(dict, (str, inner.annotation)), good, bad, form)


def _optional(inner: Kind) -> Kind:
    bad = inner.bad.filter(lambda bad: bad[0] is not None)
    return Kind(
        Optional[inner.annotation],
        st.none() | inner.good,
        bad,
        lambda value: None if value is None else inner.form(value),
    )


def _given(value: Any) -> Any:
    return value


@st.composite
def _class(draw: Any, inner: st.SearchStrategy[Kind]) -> Kind:
    """A class of one to four fields, the last of them with defaults."""
    kinds = draw(st.lists(inner, min_size=1, max_size=4))
    required = draw(st.integers(1, len(kinds)))
    names = [f"{'_' if draw(st.booleans()) else ''}f{index}" for index in range(len(kinds))]
    body: dict[str, Any] = {}
    for index, (name, kind) in enumerate(zip(names, kinds)):
        # Made anew for each instance: a default that is a list would be shared.
        default = attrs.Factory(partial(_given, draw(kind.good))) if index >= required else attrs.NOTHING
        body[name] = attrs.field(type=kind.annotation, default=default)
    cls = attrs.make_class(f"Class{next(_numbers)}", body, frozen=draw(st.booleans()))
    keys = [name.lstrip("_") for name in names]
    good = st.tuples(*(kind.good for kind in kinds)).map(lambda values: cls(*values))

    def form(value: Any) -> Any:
        return {key: kind.form(getattr(value, name)) for key, name, kind in zip(keys, names, kinds)}

    @st.composite
    def spoiled(draw: Any) -> tuple[Any, str]:
        value = form(draw(good))
        how = draw(st.sampled_from(["field"] * 6 + ["missing", "unknown"]))
        index = draw(st.integers(0, required - 1 if how == "missing" else len(keys) - 1))
        if how == "unknown":
            return {**value, "unknown": 1}, ".unknown"
        if how == "missing":
            del value[keys[index]]
            return value, f".{keys[index]}"
        bad, path = draw(kinds[index].bad)
        return {**value, keys[index]: bad}, f".{keys[index]}{path}"

    return Kind(cls, good, _mostly(spoiled(), _whole(dict)), form)


def _kinds(depth: int) -> st.SearchStrategy[Kind]:
    leaves = st.sampled_from(LEAVES)
    if not depth:
        return leaves
    inner = _kinds(depth - 1)
    larger = st.one_of(_class(inner), *(inner.map(make) for make in (_list, _tuple, _pair, _dict, _optional)))
    return _mostly(leaves, larger)


#: attrs classes, of whatever is inside.
classes: st.SearchStrategy[Kind] = _class(_kinds(2))
