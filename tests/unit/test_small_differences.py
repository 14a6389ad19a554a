"""Typed actors where the gem's typed jobs take more, and names that hide a type."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any, Optional

import attrs
import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from dramatiq_sidekiq_flow import TypedActor, actor
from dramatiq_sidekiq_flow.errors import InvalidInput
from dramatiq_sidekiq_flow.typed.assignment import check_assignment
from dramatiq_sidekiq_flow.typed.schema import Schema


@pytest.fixture(autouse=True)
def _broker() -> Iterator[None]:
    before = dramatiq.get_broker()
    dramatiq.set_broker(StubBroker())
    yield
    dramatiq.set_broker(before)


@attrs.frozen
class Hidden:
    """Each field has the name of its type."""

    list: list[Any]
    dict: dict[str, int]
    int: int = 3
    str: Optional[str] = None
    date: Optional[date] = None


@attrs.frozen(slots=False)
class HiddenInDict:
    list: list[Any]


@attrs.define
class Outer:
    @attrs.frozen
    class Inner:
        n: int

    list: list[Inner]
    int: int = 1


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (Hidden, {"list": [1, "a"], "dict": {"a": 1}, "int": 5, "str": "x"}),
        (HiddenInDict, {"list": [1]}),
        (Outer, {"list": [{"n": 1}], "int": 2}),
    ],
)
def test_a_field_may_have_the_name_of_its_type(cls: Any, values: Any) -> None:
    schema = Schema.of(cls)
    loaded = schema.load(values)
    assert schema.dump(loaded).items() >= values.items()
    with pytest.raises(InvalidInput, match="input.list: expected list"):
        schema.load({**values, "list": "no"})


@attrs.frozen
class Input:
    doc_id: str = "none"


def test_nil_as_the_only_argument_is_no_argument() -> None:
    """In Ruby, perform(nil) of a typed job is perform without an argument."""
    seen: list[Any] = []

    @actor
    def extract(input: Input) -> None:
        seen.append(input)

    assert isinstance(extract, TypedActor)
    extract(None)
    assert seen == [Input()]
    assert extract.message(None).args == ()
    with pytest.raises(InvalidInput):
        extract(None, None)


@attrs.define(on_setattr=check_assignment)
class Progress:
    done: int = 0
    when: Optional[datetime] = None
    notes: list[str] = attrs.field(factory=list, alias="remarks")
    cache: Any = attrs.field(init=False, default=None)


def test_assignment_is_checked_where_a_class_asks_for_it() -> None:
    progress = Progress()
    progress.done = 5
    progress.when = datetime(2026, 11, 25)
    progress.notes = ["a"]
    progress.cache = object()
    with pytest.raises(InvalidInput, match="^Progress.done: expected int, got str 'all'$"):
        progress.done = "all"  # type: ignore[assignment]
    with pytest.raises(InvalidInput, match=r"^Progress.notes\[1\]: expected str, got int 7$"):
        progress.notes = ["a", 7]  # type: ignore[list-item]
    assert (progress.done, progress.notes) == (5, ["a"])
