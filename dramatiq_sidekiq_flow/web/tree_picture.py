"""Picture of the tree of a run: chains from left to right, groups one below the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..runs.step_list import StepList
from ..wire.tree_nodes import BranchNode, CatchNode, DelayNode, RepeatedNode, StepNode, TreeNode
from .picture import (
    PILL_HEIGHT,
    PILL_WIDTH,
    Box,
    Picture,
    framed,
    of_box,
    one_below_the_other,
    side_by_side,
)
from .step_numbers_view import StepRange, state_counts
from .wording import seconds

#: Children of a branch that are drawn: the most that give no more boxes than below.
CHILDREN = (24, 12, 6, 3, 1)

MOST_BOXES = 240

#: Branches inside of each other.
DEEPEST = 12

#: Children that are drawn in front of the first one that is not done.
BEFORE = 3


class _TooLarge(Exception):
    """There are too many boxes."""


def draw(steps: StepList, link: Callable[[int], str]) -> Picture:
    """Draw the steps of a run.

    Parameters:
      link: Number of a step -> where its box leads.
    """
    for children in CHILDREN:
        try:
            return _Drawing(steps, link, children).whole()
        except _TooLarge:
            continue
    return Picture()


def _pill(text: str) -> Picture:
    return of_box(Box(text, width=PILL_WIDTH, height=PILL_HEIGHT))


class _Drawing:
    def __init__(self, steps: StepList, link: Callable[[int], str], children: int) -> None:
        self.steps = steps
        self.link = link
        self.children = children
        self.boxes = 0

    def whole(self) -> Picture:
        tree = self.steps.codes.tree
        return self._draw(tree, StepRange(1, tree.count), 0)

    def _draw(self, node: TreeNode, numbers: StepRange, depth: int) -> Picture:
        if isinstance(node, StepNode):
            return self._step(node, numbers)
        if isinstance(node, DelayNode):
            return side_by_side([self._delay(node), self._draw(node.node, numbers, depth)])
        if depth >= DEEPEST:
            return self._folded(numbers)
        if isinstance(node, RepeatedNode):
            return self._repeated(node, numbers, depth + 1, True)
        if isinstance(node, CatchNode):
            return self._catch(node, numbers, depth + 1)
        return self._branch(node, numbers, depth + 1)

    def _step(self, node: StepNode, numbers: StepRange, times: str = "") -> Picture:
        runs_in = "Ruby" if node.ruby else "Python"
        note = f"{runs_in}, {node.queue}" if node.queue else runs_in
        return self._box(f"{node.name}{times}", note, numbers, node.ruby)

    def _box(self, title: str, note: str, numbers: StepRange, ruby: bool = False) -> Picture:
        self.boxes += 1
        if self.boxes > MOST_BOXES:
            raise _TooLarge
        link = self.link(self.steps.codes.order.number(numbers.first))
        return of_box(Box(title, note, state_counts(self.steps, numbers), ruby, link))

    def _delay(self, node: DelayNode) -> Picture:
        return _pill(f"after {seconds(node.delay / 1000)}")

    def _catch(self, node: CatchNode, numbers: StepRange, depth: int) -> Picture:
        fallback = self._draw(node.fallback, numbers.part(1, node.fallback.count), depth)
        caught = side_by_side([_pill("if it dies"), fallback])
        return one_below_the_other([self._step(node.step, numbers.part(0, 1)), caught])

    def _folded(self, numbers: StepRange) -> Picture:
        """One box for all steps of a node, or of several children."""
        if not numbers.count:
            return Picture()
        return self._box(f"{numbers.count:,} steps", "not drawn one by one", numbers)

    def _repeated(self, node: RepeatedNode, numbers: StepRange, depth: int, is_parallel: bool) -> Picture:
        inner = numbers.repeated(node.node.count, node.times)
        if isinstance(node.node, StepNode):
            return self._step(node.node, inner, f" \N{MULTIPLICATION SIGN} {node.times:,}")
        label = f"{node.times:,} times" + ("" if is_parallel else ", one after another")
        return framed(self._draw(node.node, inner, depth), label)

    def _branch(self, node: BranchNode, numbers: StepRange, depth: int) -> Picture:
        parts = self._parts(node, numbers, depth)
        if node.kind == "replaced":
            return framed(side_by_side(parts), "a step, and what replaced it")
        if node.need:
            return framed(one_below_the_other(parts), f"{node.need:,} of {node.members:,} needed")
        return side_by_side(parts) if node.kind == "chain" else one_below_the_other(parts)

    def _parts(self, node: BranchNode, numbers: StepRange, depth: int) -> Iterator[Picture]:
        """Draw the children around the first one that is not done; fold those before and behind."""
        first, last = self._window(node, numbers)
        starts = [*node.starts, node.count]
        yield self._folded(numbers.part(0, starts[first]))
        for index in range(first, last):
            child, inner = node.children[index], numbers.part(starts[index], node.children[index].count)
            if isinstance(child, RepeatedNode):
                yield self._repeated(child, inner, depth, node.kind == "group")
            else:
                yield self._draw(child, inner, depth)
        yield self._folded(numbers.part(starts[last], node.count - starts[last]))

    def _window(self, node: BranchNode, numbers: StepRange) -> tuple[int, int]:
        count = len(node.children)
        if count <= self.children:
            return 0, count
        first = max(0, min(self._first_open(node, numbers) - BEFORE, count - self.children))
        return first, first + self.children

    def _first_open(self, node: BranchNode, numbers: StepRange) -> int:
        ranges = (numbers.part(start, child.count) for start, child in zip(node.starts, node.children))
        open_states = (state_counts(self.steps, each).keys() - {"done"} for each in ranges)
        return next((index for index, each in enumerate(open_states) if each), 0)
