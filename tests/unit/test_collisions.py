"""Which steps write the same fields of the memory side by side."""

from __future__ import annotations

from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, Namespace, WithDelay
from dramatiq_sidekiq_flow.errors import InvalidOptions
from dramatiq_sidekiq_flow.wire.nodes import dump, dump_job, jobs
from dramatiq_sidekiq_flow.workflow.collisions import Collision, collisions

WRITES = {"A": ["size", "name"], "B": ["size", "name", "color"], "C": ["color"]}
A, B, C, D = map(Job, "ABCD")


def wire(node: Any) -> Any:
    return dump(node, lambda value: dump_job(value) if isinstance(value, Job) else None)


def found(node: Any) -> list[Collision]:
    return collisions(wire(node), lambda name: WRITES.get(name, ()))


@pytest.mark.parametrize(
    "tree",
    [
        A,
        Chain(A, B, A),
        Group(A, C, D),
        Chain(Group(A, C), Group(B, D)),
        Group(Namespace("left", A), Namespace("right", B)),
        Group(A, Namespace("right", WithDelay(Chain(B, A), 5))),
        Namespace("all", Group(Namespace("left", A), A)),
        Group(),
    ],
    ids=repr,
)
def test_none(tree: Any) -> None:
    assert found(tree) == []


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (Group(A, B), [("A", "B", ("name", "size"))]),
        (Group(B, A), [("A", "B", ("name", "size"))]),
        (Group(A, A, A), [("A", "A", ("name", "size"))]),
        (Group(Chain(D, WithDelay(A, 5)), Chain(Group(D, C), B)), [("A", "B", ("name", "size"))]),
        (Group(A, Group(B, C)), [("B", "C", ("color",)), ("A", "B", ("name", "size"))]),
        (Chain(A, Group(Namespace("x", A), Namespace("x", B))), [("A", "B", ("x.name", "x.size"))]),
        (Namespace("o", Group(Job("A", memory_namespace="x"), Namespace("x", C), Job("B"))), []),
        (Group(Namespace("o", Namespace("x", A)), Namespace("o.x", A)), [("A", "A", ("o.x.name", "o.x.size"))]),
    ],
    ids=str,
)
def test_some(tree: Any, expected: list[Any]) -> None:
    assert [(c.first, c.second, c.fields) for c in found(tree)] == expected


def test_the_message_names_both_and_says_what_to_do() -> None:
    (collision,) = found(Group(A, B))
    text = str(collision)
    assert "'A' and 'B' run side by side" in text
    assert "name, size" in text
    assert "Namespace(" in text
    (alike,) = found(Group(A, A))
    assert "Several 'A' run side by side" in str(alike)


# -- the node ------------------------------------------------------------------------


def test_a_namespace_is_an_option_of_each_job_in_it() -> None:
    tree = Chain(A, Namespace("left", Chain(B, WithDelay(Group(C, Namespace("inner", D)), 5))))
    names = {job["class"]: job.get("memory_namespace") for job in jobs(wire(tree))}
    assert names == {"A": None, "B": "left", "C": "left", "D": "left.inner"}
    # On the wire there is no such node.
    assert wire(Namespace("left", A)) == {**wire(A), "memory_namespace": "left"}
    assert repr(Namespace("left", A)) == "Namespace('left', Job('A'))"


@pytest.mark.parametrize("name", ["", ".", "a.", 7, None, A])
def test_it_needs_a_name(name: Any) -> None:
    with pytest.raises(InvalidOptions, match="namespace"):
        Namespace(name, A)
    with pytest.raises(InvalidOptions, match="namespace"):
        Job("A", memory_namespace=name)
