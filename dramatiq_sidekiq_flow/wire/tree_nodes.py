"""Nodes of the compact tree of a run, as they are read from its record (``wire.run_tree`` writes it).

Steps are numbered in written order from 1.  A repeated node takes the numbers
of its steps once for each repetition.  The *path* of a step is the positions of
its ancestors in their chains and groups, each from 1, joined by dots.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any, Literal, Union

import attrs

from ..errors import InvalidNode, shortened
from . import codec
from .payload_fields import MAX_STEPS

#: Kind of a branch.
Kind = Literal["chain", "group", "replaced"]


@attrs.frozen
class StepNode:
    """A step.

    Attributes:
      queue: "" if it is not known.
      args: Its arguments as text, shortened; "" if they are not recorded.
      ruby: True if Ruby runs it.
      count: 1; each node has its number of steps.
    """

    name: str
    queue: str = ""
    args: str = ""
    ruby: bool = False
    count: int = 1


@attrs.frozen
class BranchNode:
    """A chain or a group, or a step with the trees that replaced it (``wire.grown_tree``).

    Attributes:
      starts: Number of steps, and of children, in front of each child.
    """

    kind: Kind
    children: tuple[TreeNode, ...]
    count: int
    starts: tuple[int, ...]
    places: tuple[int, ...]


@attrs.frozen
class DelayNode:
    """A node that starts later, by ``delay`` milliseconds."""

    delay: int | float
    node: TreeNode
    count: int


@attrs.frozen
class RepeatedNode:
    """Equal siblings in a chain or a group."""

    times: int
    node: TreeNode
    count: int


TreeNode = Union[StepNode, BranchNode, DelayNode, RepeatedNode]


@attrs.frozen
class Numbered:
    """A step with its number and its path."""

    number: int
    path: str
    node: StepNode


def branch(kind: Kind, children: tuple[TreeNode, ...]) -> BranchNode:
    """Make a branch of its children."""
    starts = tuple(itertools.accumulate((child.count for child in children), initial=0))
    places = tuple(itertools.accumulate(map(_width, children), initial=0))
    return BranchNode(kind, children, starts[-1], starts[:-1], places[:-1])


def _width(child: TreeNode) -> int:
    """Number of children of a branch that a node stands for."""
    return child.times if isinstance(child, RepeatedNode) else 1


# -- reading --------------------------------------------------------------------


def load_tree(raw: bytes) -> TreeNode:
    """Read a compact tree.

    Raises:
      InvalidNode: if it is not one.
      MalformedPayload: if it is not JSON.
    """
    tree = load_node(codec.decode(raw))
    # A damaged record must not fill the memory.
    if tree.count > MAX_STEPS:
        raise InvalidNode(f"The tree of a run has {tree.count} steps, more than {MAX_STEPS}.", raw)
    return tree


def load_node(value: Any) -> TreeNode:
    """Read a node of a compact tree that was decoded.

    Raises:
      InvalidNode: if it is not one.
    """
    if type(value) is dict:
        for key, read in _READERS.items():
            if key in value:
                return read(value)
    raise _invalid(value)


def _step(value: dict[str, Any]) -> StepNode:
    name, queue, args = value["step"], value.get("queue", ""), value.get("args", "")
    if not type(name) is type(queue) is type(args) is str:
        raise _invalid(value)
    return StepNode(name, queue, args, value.get("ruby") is True)


def _branch(kind: Literal["chain", "group"]) -> Callable[[dict[str, Any]], BranchNode]:
    def read(value: dict[str, Any]) -> BranchNode:
        if type(value[kind]) is not list:
            raise _invalid(value)
        return branch(kind, tuple(map(load_node, value[kind])))

    return read


def _delay(value: dict[str, Any]) -> DelayNode:
    if type(value["delay"]) not in (int, float):
        raise _invalid(value)
    node = load_node(value.get("node"))
    return DelayNode(value["delay"], node, node.count)


def _repeated(value: dict[str, Any]) -> RepeatedNode:
    times = value["times"]
    if type(times) is not int or not 0 < times <= MAX_STEPS:
        raise _invalid(value)
    node = load_node(value.get("node"))
    return RepeatedNode(times, node, times * node.count)


_READERS: dict[str, Callable[[dict[str, Any]], TreeNode]] = {
    "step": _step,
    "chain": _branch("chain"),
    "group": _branch("group"),
    "delay": _delay,
    "times": _repeated,
}


def _invalid(value: Any) -> InvalidNode:
    return InvalidNode(f"The tree of a run holds {shortened(value)}, which is not a node.", value)


# -- steps ------------------------------------------------------------------------


def steps(tree: TreeNode) -> Iterator[Numbered]:
    """Yield the steps in order; repeated ones are made one at a time."""
    return _steps(tree, 1, "")


def _steps(node: TreeNode, first: int, path: str) -> Iterator[Numbered]:
    if isinstance(node, StepNode):
        yield Numbered(first, path or "1", node)
    elif isinstance(node, DelayNode):
        yield from _steps(node.node, first, path)
    elif isinstance(node, RepeatedNode):
        # The root, or below a delay: a branch counts the repetitions among its children.
        for index in range(node.times):
            yield from _steps(node.node, first + index * node.node.count, _below(path, index + 1))
    else:
        yield from _branch_steps(node, first, path)


def _branch_steps(node: BranchNode, first: int, path: str) -> Iterator[Numbered]:
    for child, start, place in zip(node.children, node.starts, node.places):
        inner = child.node if isinstance(child, RepeatedNode) else child
        for index in range(_width(child)):
            inner_path = _path(node, path, place + index)
            yield from _steps(inner, first + start + index * inner.count, inner_path)


def _path(node: BranchNode, path: str, place: int) -> str:
    """Path of a child, from 0: a step that was replaced keeps its own, and its trees are below it."""
    if node.kind == "replaced":
        return _below(path or "1", place) if place else path
    return _below(path, place + 1)


def _below(path: str, place: int) -> str:
    return f"{path}.{place}" if path else str(place)


def step_at(tree: TreeNode, number: int) -> Numbered:
    """Find a step by its number.

    Raises:
      IndexError: if the tree has no such step.
    """
    if not 1 <= number <= tree.count:
        raise IndexError(f"The run has no step {number}.")
    node, offset, path = tree, number - 1, ""
    while not isinstance(node, StepNode):
        if isinstance(node, DelayNode):
            node = node.node
            continue
        place, above = 0, node
        if isinstance(node, BranchNode):
            # Nodes without steps start where the next one does.
            index = bisect_right(node.starts, offset) - 1
            place += node.places[index]
            offset -= node.starts[index]
            node = node.children[index]
        if isinstance(node, RepeatedNode):
            repetition, offset = divmod(offset, node.node.count)
            place += repetition
            node = node.node
        path = _path(above, path, place) if isinstance(above, BranchNode) else _below(path, place + 1)
    return Numbered(number, path or "1", node)
