"""Which values fit which types, what an error says, and which types are refused."""

from __future__ import annotations

import enum
import json
import math
import typing
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from types import GenericAlias
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypeVar, Union
from uuid import UUID

import attrs
import pytest
from typing_extensions import TypeAliasType

from dramatiq_sidekiq_flow.errors import ConfigurationError, InvalidInput
from dramatiq_sidekiq_flow.typed.schema import Schema
from dramatiq_sidekiq_flow.wire import codec

T = TypeVar("T")
UserId = NewType("UserId", int)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(str, enum.Enum):
    SMALL = "small"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Pair(NamedTuple):
    x: int
    y: int


@attrs.frozen
class Item:
    price: float
    name: str = "?"


@attrs.frozen
class Tree:
    children: list[Tree] = attrs.field(factory=list)
    parent: Tree | None = None


@attrs.frozen
class Card:
    kind: Literal["card"] = "card"
    number: str = ""


@attrs.frozen
class Cash:
    kind: Literal["cash", "coins"] = "cash"


@attrs.frozen
class Circle:
    radius: float


@attrs.frozen
class Square:
    side: float


@attrs.frozen
class Named:
    name: str


@attrs.frozen
class Aged(Named):
    age: int


@attrs.frozen
class Box(Generic[T]):
    inside: T
    more: list[T] = attrs.field(factory=list)


def schema_of(kind: Any) -> Schema:
    """A schema with one field of a type, so that paths have something to begin with."""
    return Schema.of(attrs.make_class("Input", {"x": attrs.field(type=kind)}))


def load(kind: Any, value: Any) -> Any:
    return schema_of(kind).load({"x": value}).x


AT = datetime(2026, 1, 2, 3, 4, 5, 6)
UUID_TEXT = "12345678-1234-5678-1234-567812345678"

FITS: list[tuple[Any, Any, Any]] = [
    (str, "x", "x"),
    (int, 2**100, 2**100),
    (float, 1.0, 1.0),
    (bool, True, True),
    (type(None), None, None),
    (Any, {"a": [None, 1]}, {"a": [None, 1]}),
    (object, [1], [1]),
    (UserId, 1, 1),
    (Annotated[int, "units"], 1, 1),
    (Optional[int], None, None),
    (Optional[int], 1, 1),
    (int | float, 1, 1),
    (int | float, 1.5, 1.5),
    (list[int], [1, 2], [1, 2]),
    (list, [1, "x"], [1, "x"]),
    (Sequence[int], [1], [1]),
    (tuple[int, ...], [1, 2], (1, 2)),
    (tuple[int, str], [1, "x"], (1, "x")),
    (tuple[()], [], ()),
    (set[int], [1, 2], {1, 2}),
    (frozenset[str], ["a"], frozenset("a")),
    (dict[str, int], {"a": 1}, {"a": 1}),
    (dict, {"a": [1]}, {"a": [1]}),
    (Mapping[str, Item], {"a": {"price": 1.0}}, {"a": Item(1.0)}),
    (dict[Color, int], {"red": 1}, {Color.RED: 1}),
    (dict[date, int], {"2026-01-02": 1}, {date(2026, 1, 2): 1}),
    (Item, {"price": 1.0}, Item(1.0)),
    (list[Item], [{"price": 1.0, "name": "a"}], [Item(1.0, "a")]),
    (Tree, {"children": [{"children": []}, {}], "parent": {}}, Tree([Tree(), Tree()], Tree())),
    (Color, "red", Color.RED),
    (Size, "small", Size.SMALL),
    (Level, 1, Level.LOW),
    (Literal["a", 1, None], 1, 1),
    (Literal[Color.RED], "red", Color.RED),
    (datetime, "2026-01-02T03:04:05.000006", AT),
    (datetime, "2026-01-02T03:04:05.000006Z", AT.replace(tzinfo=timezone.utc)),
    (datetime, "2026-01-02T04:04:05.000006+01:00", AT.replace(tzinfo=timezone.utc)),
    (date, "2026-01-02", date(2026, 1, 2)),
    (time, "03:04:05", time(3, 4, 5)),
    (timedelta, "PT1.5S", timedelta(seconds=1.5)),
    (timedelta, "-P1D", timedelta(days=-1)),
    (UUID, UUID_TEXT, UUID(UUID_TEXT)),
    (Decimal, "-1.10", Decimal("-1.10")),
    (Decimal, "1E+5", Decimal("1E+5")),
    (str | int | None, "x", "x"),
    (Union[list[int], dict[str, int], str], {"a": 1}, {"a": 1}),
    (Literal["auto"] | str, "x", "x"),
    (Color | Size, "small", Size.SMALL),
    (Color | int | None, "red", Color.RED),
    (Card | Cash, {"kind": "coins"}, Cash("coins")),
    (Circle | Square | None, {"side": 1.0}, Square(1.0)),
    (list[Circle | Square], [{"radius": 1.0}, {"side": 1.0}], [Circle(1.0), Square(1.0)]),
    (Named | Aged, {"name": "a"}, Named("a")),
    (Named | Aged, {"name": "a", "age": 1}, Aged("a", 1)),
    (Named | Circle | Aged, {"radius": 1.0}, Circle(1.0)),
    (Circle | str, {"radius": 1.0}, Circle(1.0)),
    (Box[int], {"inside": 1, "more": [2]}, Box(1, [2])),
    (Box[list[Item]], {"inside": [{"price": 1.0}]}, Box([Item(1.0)])),
    (Any | None, "x", "x"),
]


@pytest.mark.parametrize(("kind", "value", "expected"), FITS, ids=str)
def test_what_fits(kind: Any, value: Any, expected: Any) -> None:
    schema = schema_of(kind)
    loaded = schema.load({"x": value})
    assert (loaded.x, type(loaded.x)) == (expected, type(expected))
    # And back, through bytes.
    sent = codec.decode(codec.encode(schema.dump(loaded)))
    assert schema.load(sent) == loaded


def _id(value: Any) -> str:
    """The same in each process of pytest-xdist, where a set has an order of its own."""
    return " ".join(sorted(value)) if isinstance(value, set) else str(value)


JSON_TYPES = {"str": "1", "int": 1, "float": 1.0, "bool": True, "None": None, "list": ["1"], "dict": {"a": 1}}


@pytest.mark.parametrize(
    ("kind", "fitting"),
    [
        (str, {"str"}),
        (int, {"int"}),
        (float, {"float"}),
        (bool, {"bool"}),
        (type(None), {"None"}),
        (list, {"list"}),
        (dict, {"dict"}),
        (list[str], {"list"}),
        (list[int], set()),
        (dict[str, int], {"dict"}),
        (dict[str, str], set()),
        (tuple[str], {"list"}),
        (tuple[str, str], set()),
        (set[str], {"list"}),
        (Optional[int], {"int", "None"}),
        (int | str, {"int", "str"}),
        (int | float, {"int", "float"}),
        (Literal[1], {"int"}),
        (Literal[True], {"bool"}),
        (Literal["1", 1.0], {"str", "float"}),
        (Level, {"int"}),
        (Item, set()),
        (Card, set()),
        (datetime, set()),
        (timedelta, set()),
        (UUID, set()),
        (Decimal, {"str"}),
        (Any, set(JSON_TYPES)),
    ],
    ids=_id,
)
def test_nothing_is_coerced(kind: Any, fitting: set[str]) -> None:
    """1 is no float, 1.0 and True are no int, "1" is neither; equal is not the same."""
    schema = schema_of(kind)
    for name, value in JSON_TYPES.items():
        if name in fitting:
            assert schema.load({"x": value}) is not None
        else:
            with pytest.raises(InvalidInput, match=r"^input\.x"):
                schema.load({"x": value})


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        (float, "1", "input.x: expected float, got str '1'"),
        (float, 1, "input.x: expected float, got int 1 (a field of int | float takes either)"),
        (float, math.nan, "input.x: nan does not exist in JSON"),
        (int, None, "input.x: expected int, got None"),
        (str, "\ud800", "input.x: expected text that UTF-8 can carry, got str '\\ud800'"),
        (dict[str, int], {"\udfff": 1}, "input.x['\\udfff']: expected text that UTF-8 can carry"),
        (list[Item], [{"price": 1.0}, {"price": "1"}], "input.x[1].price: expected float, got str '1'"),
        (list[Item], [{"price": 1.0}, {}], "input.x[1].price: is missing"),
        (list[Item], [{"price": 1.0, "colour": 1}], "input.x[0].colour: unknown field (Item has price, name)"),
        (dict[str, int], {"a": 1, "b c": "2"}, "input.x['b c']: expected int, got str '2'"),
        (dict[str, list[int]], {"a": [1, True]}, "input.x.a[1]: expected int, got bool True"),
        (dict[Color, int], {"green": 1}, "input.x.green: expected Color (one of 'red', 'blue'), got str 'green'"),
        (tuple[int, str], [1, 2], "input.x[1]: expected str, got int 2"),
        (tuple[int, str], [1], "input.x: expected 2 items, got list [1]"),
        (set[int], [1, 1], "input.x: expected distinct items, got list [1, 1]"),
        (set[Any], [[1]], "input.x: unhashable type: 'list'"),
        (list[int], "12", "input.x: expected list, got str '12'"),
        (Color, "green", "input.x: expected Color (one of 'red', 'blue'), got str 'green'"),
        (Literal["a", 1], "b", "input.x: expected one of 'a', 1, got str 'b'"),
        (datetime, "2026-01-02", "input.x: expected datetime (RFC 3339), got str '2026-01-02'"),
        (date, "2026-13-02", "input.x: expected date (YYYY-MM-DD), got str '2026-13-02'"),
        (Decimal, "1_0", "input.x: expected Decimal (as a string), got str '1_0'"),
        (Decimal, "NaN", "input.x: expected Decimal (as a string), got str 'NaN'"),
        (UUID, "1", "input.x: expected UUID, got str '1'"),
        (int | str, 1.5, "input.x: expected int or str, got float 1.5"),
        (Card | Cash, {"kind": "cheque"}, "input.x.kind: expected one of 'card', 'cash', 'coins', got str 'cheque'"),
        (Card | Cash, {}, "input.x.kind: is missing: one of 'card', 'cash', 'coins' determines the class"),
        (Card | Cash, {"kind": "card", "number": 1}, "input.x.number: expected str, got int 1"),
        (Circle | Square, {"side": "1"}, "input.x.side: expected float, got str '1'"),
        (Circle | Square, {"length": 1.0}, "input.x: expected Circle (it has radius) or Square (it has side)"),
        (Circle | Square, "x", "input.x: expected Circle or Square, got str 'x'"),
        (Color | Size, "green", "input.x: expected Color (one of 'red', 'blue') or Size (one of 'small')"),
        (Tree, {"children": [{"children": [{"parent": 1}]}]}, "input.x.children[0].children[0].parent: expected"),
        (Box[int], {"inside": "x"}, "input.x.inside: expected int, got str 'x'"),
        (str, "y" * 1000, ""),
        (int, "y" * 1000, "...yyyyyyyyyyyyyyyyyyyyyyyyyyyy'"),
    ],
    ids=str,
)
def test_an_error_names_the_path(kind: Any, value: Any, problem: str) -> None:
    if not problem:
        load(kind, value)
        return
    with pytest.raises(InvalidInput) as error:
        load(kind, value)
    assert problem in error.value.message
    assert len(error.value.message) < 250


def test_all_problems_are_named() -> None:
    @attrs.frozen
    class Input:
        a: int
        b: str
        items: list[Item]

    with pytest.raises(InvalidInput) as error:
        Schema.of(Input).load({"b": 1, "items": [{"price": 1}, {"name": "x"}, 3], "c": 1, "d e": 2})
    paths = [problem.partition(": ")[0] for problem in error.value.message.split("; ")]
    assert sorted(paths) == [
        "input.a",
        "input.b",
        "input.c",
        "input.items[0].price",
        "input.items[1].price",
        "input.items[2]",
        "input['d e']",
    ]
    assert error.value.value["c"] == 1


def test_many_problems_are_counted() -> None:
    with pytest.raises(InvalidInput, match=r"input\.x\[49\]: expected int, got str 'a'; and 950 more$") as error:
        load(list[int], ["a"] * 1000)
    assert error.value.message.count("expected") == 50


def test_what_is_nested_too_deeply() -> None:
    value: dict[str, Any] = {}
    for _ in range(10_000):
        value = {"parent": value}
    with pytest.raises(InvalidInput, match=r"^input\.x.*nested deeper than 100 levels"):
        load(Tree, value)
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(InvalidInput, match="^input: nested too deeply"):
        schema_of(Any).dump({"x": circle})


# -- what classes may do ----------------------------------------------------------


def test_validators_name_their_field() -> None:
    @attrs.define
    class Input:
        count: int = attrs.field(validator=attrs.validators.ge(0))
        _secret: str = attrs.field(default="s", validator=attrs.validators.max_len(3))
        named: str = attrs.field(default="", alias="label")
        both: int = 0

        @named.validator
        def _check_name(self, attribute: Any, value: str) -> None:
            if value == "bad":
                raise ValueError("a bad name")
            if value == "worse":
                raise LookupError("a worse name")

        def __attrs_post_init__(self) -> None:
            if self.both > self.count:
                raise ValueError("both is more than count")

    schema = Schema.of(Input)
    assert schema.load({"count": 1, "secret": "abc", "label": "x"}) == Input(1, "abc", "x")
    assert schema.dump(Input(1, "abc", "x")) == {"count": 1, "secret": "abc", "label": "x", "both": 0}
    for value, problem in [
        ({"count": -1}, "input.count: 'count' must be >= 0: -1"),
        ({"count": 1, "secret": "abcd"}, "input.secret: Length of '_secret' must be <= 3: 4"),
        ({"count": 1, "_secret": "abc"}, "input._secret: unknown field (Input has count, secret, label, both)"),
        ({"count": 1, "label": "bad"}, "input.label: a bad name"),
        ({"count": 1, "label": "worse"}, "input.label: LookupError: a worse name"),
        ({"count": 1, "both": 2}, "input: both is more than count"),
    ]:
        with pytest.raises(InvalidInput) as error:
            schema.load(value)
        assert error.value.message == problem


def test_nested_validators_name_their_path() -> None:
    @attrs.frozen
    class Positive:
        n: int = attrs.field(validator=attrs.validators.gt(0))

    with pytest.raises(InvalidInput, match=r"^input.x\[1\].n: 'n' must be > 0: 0$"):
        load(list[Positive], [{"n": 1}, {"n": 0}])


def test_defaults_converters_inheritance_and_computed_fields() -> None:
    @attrs.define
    class Base:
        a: int

    @attrs.define(kw_only=True)
    class Input(Base):  # type: ignore[no-untyped-def]
        b: list[int] = attrs.field(factory=list)
        c: str = attrs.field(default="c", converter=str.upper)  # type: ignore[misc]
        d: int = attrs.field(init=False, default=7)
        e: int = attrs.field(default=attrs.Factory(lambda self: self.a + 1, takes_self=True))
        untyped = attrs.field(default=None)  # type: ignore[var-annotated]

    schema = Schema.of(Input)
    loaded = schema.load({"a": 1, "c": "x", "untyped": [1, {}]})
    assert (loaded.a, loaded.b, loaded.c, loaded.d, loaded.e, loaded.untyped) == (1, [], "X", 7, 2, [1, {}])
    assert schema.dump(loaded) == {"a": 1, "b": [], "c": "X", "e": 2, "untyped": [1, {}]}
    with pytest.raises(InvalidInput, match="input.d: unknown field"):
        schema.load({"a": 1, "d": 8})


def test_named_types() -> None:
    """As the statement ``type Ids = list[int]`` makes them on Python 3.12."""
    ids, tag = TypeAliasType("ids", list[int]), TypeAliasType("tag", Optional[str])
    assert load(ids, [1]) == [1]
    assert load(GenericAlias(dict, (str, tag)), {"a": None}) == {"a": None}
    with pytest.raises(InvalidInput, match=r"input.x\[0\]: expected int"):
        load(ids, ["1"])


# -- what is dumped -----------------------------------------------------------------


def test_equal_sets_are_the_same_json() -> None:
    schema = schema_of(Any)
    numbers = schema.dump({"x": {-4, 4, -3, 10}})
    assert numbers == schema.dump({"x": {10, 4, -3, -4}}) == {"x": [-4, -3, 4, 10]}
    assert schema.dump({"x": frozenset(("b", 1, 0.5, None, "a", True, (1, 2)))}) == {
        "x": [[1, 2], 1, None, 0.5, "a", "b"]
    }


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        (int, "1", "input.x: expected int"),
        (list[str], "abc", "input.x: expected list"),
        (list[str], {"a": 1}, "input.x: expected list"),
        (Item, Circle(1.0), "input.x.price: is missing"),
        (str, b"x", "input.x: b'x' is a bytes, which JSON does not have"),
        (Any, {1: 2}, "input.x: the key 1 is not a string"),
        (Any, Pair(1, 2), "input.x: Pair(x=1, y=2) is a Pair, which JSON does not have"),
        (Any, math.inf, "input.x: inf does not exist in JSON"),
        (date, datetime(2026, 1, 2), "input.x: expected date"),
        (datetime, datetime(2026, 1, 2, tzinfo=timezone(timedelta(seconds=61))), "input.x: expected datetime"),
        (Decimal, Decimal("NaN"), "input.x: expected Decimal"),
        (Color, Level.LOW, "input.x: expected Color"),
        (Any, {(1, 2): 3}, "input: unhashable type: 'list'"),
    ],
    ids=str,
)
def test_an_instance_is_checked_too(kind: Any, value: Any, problem: str) -> None:
    schema = schema_of(kind)
    with pytest.raises(InvalidInput) as error:
        schema.load(schema.dump(schema.cls(value)))
    assert problem in error.value.message


# -- what is refused when it is declared -----------------------------------------------


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (bytes, "Input.x: JSON has no bytes; use str, e.g. in base64"),
        (complex, "Input.x: complex has no unambiguous form in JSON"),
        (Pair, "Input.x: Pair has no unambiguous form in JSON"),
        (list[bytes], r"Input.x\[\]: JSON has no bytes"),
        (dict[str, list[bytes]], r"Input.x\[\]\[\]: JSON has no bytes"),
        (dict[int, str], "Input.x: JSON has string keys only"),
        (Box, r"Input.x: Box is generic; give its type, Box\[...\]"),
        (T, "Input.x: ~T is a type variable without a type here"),
        (enum.Flag("F", "A B"), "Input.x: F has no unambiguous form in JSON"),
        (enum.Enum("E", {"A": (1, 2)}), "Input.x: the value of <E.A: .*> is not a string"),
        (str | datetime, r"Input.x: a JSON value does not show which of str and datetime .* it is"),
        (Optional[Union[date, datetime]], "does not show which of date .* and datetime"),
        (Color | str, "does not show which"),
        (Color | Literal["red"], "does not show which"),
        (list[int] | set[int], "does not show which"),
        (Item | dict[str, Any], "does not show which of Item and dict"),
        (Any | int, "does not show which of int and a JSON value"),
        (Item | attrs.make_class("Other", {"price": attrs.field(type=int)}), "does not show which of Item and Other"),
        (Box[int] | Box[str], "does not show which of Box and Box"),
    ],
    ids=str,
)
def test_types_that_are_refused(kind: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        schema_of(kind)


def test_a_name_that_is_nowhere_is_refused() -> None:
    @attrs.frozen
    class Input:
        x: Nowhere  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigurationError, match="annotations of Input cannot be read: name 'Nowhere' is not defined"):
        Schema.of(Input)


def test_local_names_are_found_where_they_are_given() -> None:
    @attrs.frozen
    class Inner:
        n: int

    @attrs.frozen
    class Input:
        x: list[Inner]

    schema = Schema.of(Input, {"Inner": Inner})
    assert schema.load({"x": [{"n": 1}]}) == Input([Inner(1)])


# -- JSON Schema -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (str, {"type": "string"}),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (float, {"type": "number"}),
        (Any, {}),
        (list[bool], {"type": "array", "items": {"type": "boolean"}}),
        (set[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        (tuple[int, str], {"type": "array", "minItems": 2, "maxItems": 2}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Color, {"enum": ["red", "blue"]}),
        (Literal["a", None], {"enum": ["a", None]}),
        (datetime, {"type": "string", "format": "date-time"}),
        (date, {"type": "string", "format": "date"}),
        (timedelta, {"type": "string", "format": "duration"}),
        (UUID, {"type": "string", "format": "uuid"}),
        (Item, {"$ref": "#/$defs/Item"}),
    ],
    ids=str,
)
def test_the_json_schema_of_a_type(kind: Any, expected: dict[str, Any]) -> None:
    found = schema_of(kind).json
    assert {key: found["properties"]["x"][key] for key in expected} == expected
    assert found["required"] == ["x"]
    assert found["additionalProperties"] is False
    json.dumps(found)


def test_the_json_schema_of_classes() -> None:
    @attrs.frozen
    class Input:
        """Nested, twice the same, recursive, of the same name, and with defaults."""

        items: list[Item]
        tree: Tree
        one: Item = Item(1.0)
        color: Color = Color.RED
        me: Input | None = None
        ints: Box[int] | None = None
        texts: Box[str] | None = None
        made: list[int] = attrs.field(factory=list)
        unwritable: Any = attrs.field(default=math.nan)

    schema = Schema.of(Input, {"Input": Input}).json
    assert schema["properties"]["me"] == {"anyOf": [{"$ref": "#"}, {"type": "null"}], "default": None}
    assert schema["properties"]["one"] == {"$ref": "#/$defs/Item", "default": {"price": 1.0, "name": "?"}}
    assert schema["properties"]["color"] == {"enum": ["red", "blue"], "default": "red"}
    assert schema["properties"]["made"] == {"type": "array", "items": {"type": "integer"}}
    assert schema["properties"]["unwritable"] == {}
    assert schema["required"] == ["items", "tree"]
    definitions = schema["$defs"]
    assert set(definitions) == {"Item", "Tree", "Box", "Box2"}
    assert definitions["Tree"]["properties"]["children"] == {"type": "array", "items": {"$ref": "#/$defs/Tree"}}
    assert definitions["Box2"]["properties"]["inside"] == {"type": "string"}
    assert definitions["Item"]["required"] == ["price"]
    json.dumps(schema)


def test_annotations_of_typing_are_the_same() -> None:
    """As code for older Pythons writes them."""
    kinds: list[Any] = [typing.List[int], typing.Dict[str, int], typing.Tuple[int, ...], typing.Set[int]]  # noqa: UP006
    values: list[Any] = [[1], {"a": 1}, (1,), {1}]
    for kind, value in zip(kinds, values):
        schema = schema_of(kind)
        assert schema.load(schema.dump(schema.cls(value))).x == value
