"""Groups of a compact tree that need some of their members."""

from __future__ import annotations

from collections.abc import Iterator

from .tree_nodes import BranchNode, CatchNode, DelayNode, RepeatedNode, StepNode, TreeNode

#: Position of the first step of a node, and the node.
Placed = tuple[int, TreeNode]


def needing_groups(tree: TreeNode) -> list[tuple[int, BranchNode]]:
    """Find the groups that need some of their members, the outer ones before those inside of them."""
    return list(_groups(tree, 1))


def _groups(node: TreeNode, first: int) -> Iterator[tuple[int, BranchNode]]:
    if isinstance(node, RepeatedNode):
        found = list(_groups(node.node, first))
        for index in range(node.times if found else 0):
            yield from ((place + index * node.node.count, each) for place, each in found)
        return
    if isinstance(node, BranchNode) and node.need:
        yield first, node
    for start, child in inner_nodes(node, first):
        yield from _groups(child, start)


def inner_nodes(node: TreeNode, first: int) -> Iterator[Placed]:
    """Yield the nodes right inside a node; those of a repeated node once for each repetition."""
    if isinstance(node, BranchNode):
        yield from ((first + start, child) for start, child in zip(node.starts, node.children))
    elif isinstance(node, DelayNode):
        yield first, node.node
    elif isinstance(node, CatchNode):
        yield first + 1, node.fallback
    elif isinstance(node, RepeatedNode):
        yield from ((first + index * node.node.count, node.node) for index in range(node.times))


def members(group: BranchNode, first: int) -> Iterator[Placed]:
    """Yield the members of a group."""
    for start, child in inner_nodes(group, first):
        if isinstance(child, RepeatedNode):
            yield from inner_nodes(child, start)
        else:
            yield start, child


def is_step(node: TreeNode) -> bool:
    """Return True for a step, with a fallback or without."""
    return isinstance(node, (StepNode, CatchNode))
