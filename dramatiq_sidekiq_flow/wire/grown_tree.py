"""Tree of a run with the trees that replaced steps of it.

A record holds the compact tree of the start, and, by the number of a replaced step, its
replacement, ``{"first": NUMBER, "tree": ...}``: its steps are numbered from there.  In the
grown tree a replaced step is a branch of the kind ``replaced``: the step, with its
fallback if it has one, then the tree.
A step at the end of that tree, which was replaced itself, has its tree beside that one, so
that a step which replaces itself again and again makes no deep tree.

The numbers of a grown tree do not follow the written order.  The *position* of a step does:
it is its place in the grown tree, depth first from 1.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

import attrs

from ..errors import InvalidNode, PayloadError
from . import codec
from .payload_fields import MAX_STEPS
from .tree_nodes import BranchNode, CatchNode, DelayNode, RepeatedNode, StepNode, TreeNode, branch, load_node

#: Deepest nesting of replacements, apart from those at the end of another one.
MAX_DEPTH = 50


@attrs.frozen
class Order:
    """Numbers of the steps of a tree by their positions.

    Attributes:
      numbers: From position 1; None if each step has its position as its number.
    """

    count: int
    numbers: tuple[int, ...] | None = None
    _positions: Mapping[int, int] = attrs.field(
        init=False, default=attrs.Factory(lambda self: _positions_of(self.numbers), takes_self=True)
    )
    _in_order: Sequence[int] = attrs.field(
        init=False, default=attrs.Factory(lambda self: _in_order(self.count, self._positions), takes_self=True)
    )

    def position(self, number: int) -> int:
        """Find a step; 0 if the tree has none of this number."""
        if self.numbers is None:
            return number if 0 < number <= self.count else 0
        return self._positions.get(number, 0)

    def number(self, position: int) -> int:
        """The number of the step at a position."""
        return position if self.numbers is None else self.numbers[position - 1]

    def in_order(self) -> Sequence[int]:
        """List the positions by the numbers of their steps."""
        return self._in_order


def _positions_of(numbers: Sequence[int] | None) -> dict[int, int]:
    """The positions by number, in the order of the numbers."""
    positions = {number: position for position, number in enumerate(numbers or (), 1)}
    return dict(sorted(positions.items()))


def _in_order(count: int, positions: Mapping[int, int]) -> Sequence[int]:
    return list(positions.values()) if positions else range(1, count + 1)


@attrs.frozen
class _Added:
    first: int
    tree: TreeNode


def grow(tree: TreeNode, added: Mapping[int, bytes]) -> tuple[TreeNode, Order]:
    """Put the replacements of steps into a tree; those that cannot be read are left out.

    Parameters:
      added: Number of a replaced step -> JSON of its replacement.
    """
    if not added:
        return tree, Order(tree.count)
    growing = _Growing(added)
    grown = growing.build(tree, 1, MAX_DEPTH)
    return grown, Order(grown.count, tuple(growing.numbers))


def _load(number: int, raw: bytes) -> _Added:
    """Read a replacement.

    Raises:
      PayloadError: if it is none.
    """
    value = codec.decode(raw)
    first, tree = value.get("first"), load_node(value.get("tree"))
    if type(first) is not int or not number < first <= MAX_STEPS or first + tree.count > MAX_STEPS:
        raise InvalidNode(f"The replacement of step {number} has no valid numbers.", raw)
    return _Added(first, tree)


def _readable(added: Mapping[int, bytes]) -> dict[int, _Added]:
    """Read the replacements whose numbers belong to no other one."""
    kept: dict[int, _Added] = {}
    last = 0
    for number, each in sorted(_loaded(added), key=lambda entry: entry[1].first):
        if each.first > last:
            kept[number] = each
            last = each.first + each.tree.count - 1
    return kept


def _loaded(added: Mapping[int, bytes]) -> Iterator[tuple[int, _Added]]:
    for number, raw in added.items():
        with contextlib.suppress(PayloadError):
            yield number, _load(number, raw)


class _Growing:
    def __init__(self, added: Mapping[int, bytes]) -> None:
        self.added = _readable(added)
        self.replaced = sorted(self.added)
        #: Numbers of the steps, in the order of their positions.
        self.numbers: list[int] = []

    def build(self, node: TreeNode, first: int, depth: int) -> TreeNode:
        """Make a node whose steps are numbered from ``first`` with its replacements."""
        if not depth or not self._has_replaced(first, node.count):
            self.numbers.extend(range(first, first + node.count))
            return node
        if isinstance(node, StepNode):
            return self._replaced(node, first, depth)
        if isinstance(node, CatchNode):
            return self._caught(node, first, depth)
        if isinstance(node, DelayNode):
            inner = self.build(node.node, first, depth)
            return DelayNode(node.delay, inner, inner.count)
        if isinstance(node, RepeatedNode):
            return branch("group", tuple(self._repetitions(node, first, depth)))
        return branch(node.kind, tuple(self._children(node, first, depth)), node.need)

    def _has_replaced(self, first: int, count: int) -> bool:
        index = bisect_left(self.replaced, first)
        return index < len(self.replaced) and self.replaced[index] < first + count

    def _children(self, node: BranchNode, first: int, depth: int) -> Iterator[TreeNode]:
        for child, start in zip(node.children, node.starts):
            if isinstance(child, RepeatedNode) and self._has_replaced(first + start, child.count):
                yield from self._repetitions(child, first + start, depth)
            else:
                yield self.build(child, first + start, depth)

    def _repetitions(self, node: RepeatedNode, first: int, depth: int) -> Iterator[TreeNode]:
        """Unfold the repetitions in which a step was replaced."""
        size, done = node.node.count, 0
        for index in self._changed(node, first):
            yield from self._alike(node.node, index - done, first + done * size)
            yield self.build(node.node, first + index * size, depth)
            done = index + 1
        yield from self._alike(node.node, node.times - done, first + done * size)

    def _changed(self, node: RepeatedNode, first: int) -> Iterator[int]:
        """Yield the repetitions in which a step was replaced, in order."""
        inside = self.replaced[bisect_left(self.replaced, first) : bisect_left(self.replaced, first + node.count)]
        yield from dict.fromkeys((number - first) // node.node.count for number in inside)

    def _alike(self, node: TreeNode, times: int, first: int) -> Iterator[TreeNode]:
        if times:
            self.numbers.extend(range(first, first + times * node.count))
            yield node if times == 1 else RepeatedNode(times, node, times * node.count)

    def _caught(self, node: CatchNode, number: int, depth: int) -> TreeNode:
        return self._replaced(node, number, depth) if number in self.added else self._step(node, number, depth)

    def _step(self, node: StepNode | CatchNode, number: int, depth: int) -> StepNode | CatchNode:
        """Make a step without what replaced it, but with what replaced steps of its fallback."""
        self.numbers.append(number)
        if isinstance(node, StepNode):
            return node
        fallback = self.build(node.fallback, number + 1, max(0, depth - 1))
        return CatchNode(node.step, fallback, 1 + fallback.count)

    def _replaced(self, node: StepNode | CatchNode, number: int, depth: int) -> BranchNode:
        parts: list[TreeNode] = [self._step(node, number, depth)]
        following: int | None = number
        while following is not None:
            added = self.added[following]
            part, following = self._part(added.tree, added.first, depth - 1)
            parts.append(part)
        return branch("replaced", tuple(parts))

    def _part(self, node: TreeNode, first: int, depth: int) -> tuple[TreeNode, int | None]:
        """Make a replacement; also returns the number of the step at its end, if that was replaced."""
        if isinstance(node, (StepNode, CatchNode)) and self._has_replaced(first, 1):
            return self._step(node, first, depth), first
        if isinstance(node, DelayNode):
            inner, following = self._part(node.node, first, depth)
            return DelayNode(node.delay, inner, inner.count), following
        if isinstance(node, BranchNode) and _ends_in_one(node):
            return self._chain_part(node, first, depth)
        return self.build(node, first, depth), None

    def _chain_part(self, node: BranchNode, first: int, depth: int) -> tuple[TreeNode, int | None]:
        last, start = node.children[-1], first + node.starts[-1]
        begin = BranchNode("chain", node.children[:-1], start - first, node.starts[:-1], node.places[:-1])
        before = tuple(self._children(begin, first, depth)) if depth else self._plain(begin, first)
        end, following = self._part(last, start, depth)
        return branch("chain", (*before, end)), following

    def _plain(self, node: BranchNode, first: int) -> tuple[TreeNode, ...]:
        self.numbers.extend(range(first, first + node.count))
        return node.children


def _ends_in_one(node: BranchNode) -> bool:
    """Return True for a chain whose last child is not repeated."""
    return node.kind == "chain" and bool(node.children) and not isinstance(node.children[-1], RepeatedNode)
