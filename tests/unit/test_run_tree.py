"""The compact tree of a run: what is written, and what is read from it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dramatiq_sidekiq_flow.errors import FlowError
from dramatiq_sidekiq_flow.wire.mermaid import flowchart
from dramatiq_sidekiq_flow.wire.nodes import Wire, jobs
from dramatiq_sidekiq_flow.wire.payload_fields import MAX_STEPS
from dramatiq_sidekiq_flow.wire.run_tree import dump_tree
from dramatiq_sidekiq_flow.wire.tree_nodes import load_tree, step_at, steps

from ..recorded_runs import chain, delayed, group, is_ruby, job


def wide(inner: st.SearchStrategy[Wire]) -> st.SearchStrategy[Wire]:
    """Branches with a few children, of which one may be there many times."""
    return st.builds(
        lambda make, before, same, times, after: make(
            *before, *(copy.deepcopy(same) for _ in range(times if same else 0)), *after
        ),
        st.sampled_from([chain, group]),
        st.lists(inner, max_size=2),
        st.none() | inner,
        st.sampled_from([2, 20, 21, 30]),
        st.lists(inner, max_size=2),
    )


leaves = st.builds(job, st.sampled_from(["extract", "load", "Docs::Thumb"]), st.integers(0, 9))
trees = st.recursive(leaves, lambda inner: wide(inner) | st.builds(delayed, st.integers(0, 5000), inner), max_leaves=10)


def paths(node: Wire, path: tuple[int, ...] = ()) -> list[str]:
    """The paths of the jobs of a tree, by the definition."""
    if node["__type__"] == "job":
        return [".".join(map(str, path)) or "1"]
    if node["__type__"] == "with_delay":
        return paths(node["task"], path)
    return [each for place, child in enumerate(node["children"], 1) for each in paths(child, (*path, place))]


def dumped(wire: Wire, args: bool = True) -> Any:
    return json.loads(dump_tree(wire, is_ruby, args))


@given(trees, st.booleans())
def test_steps_are_numbered_in_written_order(wire: Wire, args: bool) -> None:
    tree = load_tree(dump_tree(wire, is_ruby, args))
    found = list(steps(tree))
    assert [step.node.name for step in found] == [each["class"] for each in jobs(wire)]
    assert [step.node.ruby for step in found] == [is_ruby(each) for each in jobs(wire)]
    assert [step.number for step in found] == list(range(1, tree.count + 1))
    assert [step.path for step in found] == paths(wire)


@given(trees)
def test_a_step_is_found_by_its_number(wire: Wire) -> None:
    tree = load_tree(dump_tree(wire, is_ruby))
    assert [step_at(tree, number) for number in range(1, tree.count + 1)] == list(steps(tree))
    for outside in (0, tree.count + 1, -1):
        with pytest.raises(IndexError):
            step_at(tree, outside)


@given(trees)
def test_a_flowchart_has_each_step_that_is_not_folded(wire: Wire) -> None:
    tree = load_tree(dump_tree(wire, is_ruby))
    asked: list[tuple[int, int]] = []

    def state_of(first: int, count: int) -> str:
        asked.append((first, count))
        return "done"

    text = flowchart(tree, state_of)
    assert text.count(":::done") == len(asked)
    assert text.count("subgraph") == text.count("  end")
    assert all(first >= 1 and first + count <= tree.count + 1 for first, count in asked)


def test_what_is_written() -> None:
    extract, thumb = job("extract", 42, "a"), {"__type__": "job", "class": "Docs::Thumb", "args": []}
    assert dumped(chain(extract, group(thumb), delayed(1500, extract))) == {
        "chain": [
            {"step": "extract", "queue": "python", "args": "42, 'a'"},
            {"group": [{"step": "Docs::Thumb", "ruby": True}]},
            {"delay": 1500, "node": {"step": "extract", "queue": "python", "args": "42, 'a'"}},
        ]
    }
    assert dumped(extract, args=False) == {"step": "extract", "queue": "python"}


def test_a_carrier_has_the_name_of_its_actor() -> None:
    carrier = {**job("Sidekiq::Workflow::NoopWorker"), "wrapped": "extract"}
    assert dumped(carrier)["step"] == "extract"
    # The option means nothing on another class.
    assert dumped({**job("Other"), "wrapped": "extract"})["step"] == "Other"


def test_more_than_twenty_equal_siblings_are_folded() -> None:
    alike = [job("extract", number) for number in range(21)]
    assert dumped(group(*alike)) == {"group": [{"times": 21, "node": {"step": "extract", "queue": "python"}}]}
    assert len(dumped(group(*alike[:20]))["group"]) == 20
    # In another queue it is another step.
    other = [job("extract", queue="slow"), *alike]
    assert [each.get("times") for each in dumped(group(*other))["group"]] == [None, 21]
    two = [chain(job("extract", number), job("Docs::Thumb")) for number in range(30)]
    assert dumped(group(*two))["group"] == [{"times": 30, "node": dumped(two[0], args=False)}]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ([1, "a", None], "1, 'a', None"),
        (["x" * 100], "'" + "x" * 56 + "..."),
        ([list(range(1000))], "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...]"),
        (["\ud800"], "'\\ud800'"),
        ([], ""),
    ],
)
def test_arguments_are_shortened(args: list[Any], text: str) -> None:
    found = dumped(job("extract", *args)).get("args", "")
    assert found == text
    assert len(found) <= 60


def test_the_record_of_ten_thousand_members_is_small() -> None:
    alike = group(*(job("extract", number, "x" * 100) for number in range(10_000)))
    assert len(dump_tree(alike, is_ruby)) < 200
    # Siblings that alternate are not folded, but have no arguments.
    mixed = group(*(job(("extract", "load")[number % 2], number) for number in range(10_000)))
    assert len(dump_tree(mixed, is_ruby)) < 500_000


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"step": 1},
        {"step": "a", "queue": None},
        {"chain": {}},
        {"chain": ["a"]},
        {"delay": "1", "node": {"step": "a"}},
        {"delay": 1},
        {"times": 0, "node": {"step": "a"}},
        {"times": True, "node": {"step": "a"}},
        {"times": MAX_STEPS, "node": {"chain": [{"step": "a"}, {"step": "b"}]}},
    ],
)
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(FlowError):
        load_tree(json.dumps(value).encode())


def test_labels_of_a_flowchart_are_quoted() -> None:
    text = flowchart(load_tree(json.dumps({"step": 'a"#<b>\n'}).encode()))
    assert text == 'flowchart LR\n  s1["a#quot;#35;#lt;b#gt; "]'


def test_a_flowchart_joins_groups() -> None:
    a, b = job("a"), job("b")
    text = flowchart(load_tree(dump_tree(chain(group(a, b), group(), group(a, b), b), is_ruby)))
    assert "  s1 & s2 --> j1\n  j1 --> s3 & s4\n  s3 & s4 --> s5" in text
