"""The graph: each step in one box, and boxes beside each other; the timeline."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dramatiq_sidekiq_flow.runs import Step
from dramatiq_sidekiq_flow.runs.step_codes import DEAD, DONE, INFERRED, StepCodes
from dramatiq_sidekiq_flow.runs.step_list import StepList
from dramatiq_sidekiq_flow.web.picture import Box, Picture
from dramatiq_sidekiq_flow.web.timeline import timeline
from dramatiq_sidekiq_flow.web.tree_picture import MOST_BOXES, draw
from dramatiq_sidekiq_flow.wire.tree_nodes import DelayNode, RepeatedNode, StepNode, TreeNode, branch, steps


def _repeated(node: TreeNode, times: int) -> TreeNode:
    return RepeatedNode(times, node, times * node.count)


def _inner(inner: st.SearchStrategy[TreeNode]) -> st.SearchStrategy[TreeNode]:
    children = st.lists(inner, max_size=5) | st.lists(inner, min_size=30, max_size=60)
    return st.one_of(
        st.builds(lambda kind, each: branch(kind, tuple(each)), st.sampled_from(("chain", "group")), children),
        st.builds(_repeated, inner, st.integers(2, 9)),
        st.builds(lambda node, delay: DelayNode(delay, node, node.count), inner, st.integers(0, 10**9)),
    )


_STEPS: st.SearchStrategy[TreeNode] = st.sampled_from((StepNode("a", "python"), StepNode("B", "ruby", ruby=True)))
trees = st.recursive(_STEPS, _inner, max_leaves=40).filter(lambda tree: tree.count < 3_000)


def drawn(tree: TreeNode, *done: int) -> Picture:
    codes = StepCodes(tree)
    for number in done:
        codes.codes[number] = DONE
    return draw(StepList(codes, {}, {}, {}), str)


def apart(one: Box, two: Box) -> bool:
    beside = one.x + one.width <= two.x or two.x + two.width <= one.x
    return beside or one.y + one.height <= two.y or two.y + two.height <= one.y


@given(trees, st.data())
def test_each_step_is_in_one_box_and_boxes_are_apart(tree: TreeNode, data: st.DataObject) -> None:
    marks = data.draw(st.lists(st.sampled_from((0, DONE, INFERRED, DEAD)), min_size=tree.count, max_size=tree.count))
    codes = StepCodes(tree)
    codes.codes[1:] = bytes(marks)
    picture = draw(StepList(codes, {}, {}, {}), str)
    boxes = [box for box in picture.boxes if box.state]
    assert len(boxes) <= MOST_BOXES
    assert sum(box.total for box in boxes) == tree.count
    assert sum(box.counts.get("dead", 0) for box in boxes) == marks.count(DEAD)
    assert sum(box.counts.get("done", 0) for box in boxes) == marks.count(DONE) + marks.count(INFERRED)
    assert all(apart(one, two) for one, two in itertools.combinations(picture.boxes, 2))
    for box in picture.boxes:
        assert 0 <= box.x <= box.x + box.width <= picture.width
        assert 0 <= box.y <= box.y + box.height <= picture.height
    # A box leads to its first step.
    numbered = {str(each.number) for each in steps(tree)}
    assert numbered >= {box.link for box in boxes}


def test_a_chain_is_drawn_from_left_to_right_and_a_group_downwards() -> None:
    a, b = StepNode("a"), StepNode("b")
    one, two, three = drawn(branch("chain", (a, branch("group", (a, b))))).boxes
    assert one.x + one.width < two.x == three.x
    assert two.y < three.y


def test_a_long_chain_is_drawn_around_the_step_that_is_due() -> None:
    tree = branch("chain", tuple(StepNode(f"s{number}") for number in range(1, 1001)))
    picture = drawn(tree, *range(1, 501))
    names = [box.title for box in picture.boxes]
    assert "s501" in names
    assert (names[0], names[-1]) == ("497 steps", "479 steps")
    assert picture.boxes[0].counts == {"done": 497}


def test_repetitions_of_a_chain_are_one_frame() -> None:
    pair = branch("chain", (StepNode("a"), StepNode("b")))
    picture = drawn(branch("group", (_repeated(pair, 30),)), 1, 3, 5, 6)
    assert [frame.label for frame in picture.frames] == ["30 times"]
    assert [(box.title, box.counts) for box in picture.boxes] == [
        ("a", {"pending": 27, "done": 3}),
        ("b", {"pending": 29, "done": 1}),
    ]


# -- timeline -------------------------------------------------------------------------

START = datetime(2027, 1, 15, 8, tzinfo=timezone.utc)


def step(number: int, began: float, took: float | None, state: str = "done") -> Step:
    started = START + timedelta(seconds=began)
    ended = None if took is None else started + timedelta(seconds=took)
    return Step(number, "1", "step", "python", state, started_at=started, ended_at=ended)  # type: ignore[arg-type]


def test_bars_are_as_long_as_steps_took() -> None:
    found = timeline([step(1, 0, 10), step(2, 10, 30), Step(3, "1", "step", "python", "pending")])
    assert found is not None
    one, two = found.bars
    assert two.x == pytest.approx(one.x + one.width)
    assert two.width == pytest.approx(3 * one.width, rel=0.01)
    assert [tick.label for tick in found.ticks] == ["0", "10 s", "20 s", "30 s", "40 s"]


@given(st.lists(st.tuples(st.floats(0, 1e7), st.floats(0, 1e7) | st.none()), min_size=1, max_size=20))
def test_bars_are_in_the_picture(times: list[tuple[float, float | None]]) -> None:
    steps = [step(1, began, took, "done" if took is not None else "running") for began, took in times]
    found = timeline(steps, START.timestamp() + 2e7)
    assert found is not None
    assert len(found.bars) == len(times)
    assert 1 <= len(found.ticks) <= 12
    for bar in found.bars:
        assert 0 < bar.x <= bar.x + bar.width < found.width


def test_a_running_step_changes_the_timeline_seldom() -> None:
    running = [step(1, 0, 5), step(2, 5, None, "running")]
    seen = {str(timeline(running, START.timestamp() + seconds)) for seconds in range(600, 1200)}
    assert 5 <= len(seen) <= 40
    assert timeline([]) is None
