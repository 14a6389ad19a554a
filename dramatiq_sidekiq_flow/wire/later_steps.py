"""Steps of a run that come after one of its steps, by their positions in its tree (``wire.grown_tree``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .tree_nodes import BranchNode, CatchNode, DelayNode, RepeatedNode, StepNode, TreeNode


def later_steps(tree: TreeNode, position: int) -> Iterator[range]:
    """Yield the positions of what runs after a step: its fallback, and the rest of each chain around it.

    Parameters:
      position: Of the step, from 1.
    """
    return _later(tree, 1, position)


def _later(node: TreeNode, first: int, position: int) -> Iterator[range]:
    return _LATER[type(node)](node, first, position)


def _of_step(node: StepNode, first: int, position: int) -> Iterator[range]:
    return iter(())


def _of_delay(node: DelayNode, first: int, position: int) -> Iterator[range]:
    return _later(node.node, first, position)


def _of_catch(node: CatchNode, first: int, position: int) -> Iterator[range]:
    if position > first:
        return _later(node.fallback, first + 1, position)
    return iter([range(first + 1, first + node.count)])


def _of_repeated(node: RepeatedNode, first: int, position: int) -> Iterator[range]:
    return _later(node.node, first + _begin(node, position - first), position)


def _of_branch(node: BranchNode, first: int, position: int) -> Iterator[range]:
    index = max(i for i, start in enumerate(node.starts) if first + start <= position and node.children[i].count)
    child, start = node.children[index], first + node.starts[index]
    if node.kind != "group":
        # Equal siblings of a chain run one after another.
        size = child.node.count if isinstance(child, RepeatedNode) else child.count
        begin = _begin(child, position - start) if isinstance(child, RepeatedNode) else 0
        yield range(start + begin + size, first + node.count)
    yield from _later(child, start, position)


def _begin(node: RepeatedNode, offset: int) -> int:
    """Offset of the repetition in which a step is."""
    return offset // node.node.count * node.node.count


_LATER: dict[type[TreeNode], Callable[[Any, int, int], Iterator[range]]] = {
    StepNode: _of_step,
    DelayNode: _of_delay,
    CatchNode: _of_catch,
    RepeatedNode: _of_repeated,
    BranchNode: _of_branch,
}


def count_first(node: TreeNode) -> int:
    """Count the steps of a node that are in no fallback: those that run if none fails for good."""
    if isinstance(node, (StepNode, CatchNode)):
        return 1
    if isinstance(node, DelayNode):
        return count_first(node.node)
    if isinstance(node, RepeatedNode):
        return node.times * count_first(node.node)
    return sum(map(count_first, node.children))
