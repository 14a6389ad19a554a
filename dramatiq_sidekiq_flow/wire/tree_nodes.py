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
      may_fail: True if it counts as done if it fails for good.
    """

    name: str
    queue: str = ""
    args: str = ""
    ruby: bool = False
    count: int = 1
    may_fail: bool = False


@attrs.frozen
class BranchNode:
    """A chain or a group, or a step with the trees that replaced it (``wire.grown_tree``).

    Attributes:
      starts: Number of steps, and of children, in front of each child.
      need: How many members of a group must be done; 0 for all.
    """

    kind: Kind
    children: tuple[TreeNode, ...]
    count: int
    starts: tuple[int, ...]
    places: tuple[int, ...]
    need: int = 0

    @property
    def members(self) -> int:
        """Number of the children, each as often as it is repeated."""
        return sum(map(_width, self.children))


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


@attrs.frozen
class CatchNode:
    """A step, and the node that runs in its place if it fails for good."""

    step: StepNode
    fallback: TreeNode
    count: int


TreeNode = Union[StepNode, BranchNode, DelayNode, RepeatedNode, CatchNode]


@attrs.frozen
class Numbered:
    """A step with its number and its path."""

    number: int
    path: str
    node: StepNode


def branch(kind: Kind, children: tuple[TreeNode, ...], need: int = 0) -> BranchNode:
    """Make a branch of its children."""
    starts = tuple(itertools.accumulate((child.count for child in children), initial=0))
    places = tuple(itertools.accumulate(map(_width, children), initial=0))
    return BranchNode(kind, children, starts[-1], starts[:-1], places[:-1], need)


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
    return StepNode(name, queue, args, value.get("ruby") is True, may_fail=value.get("may_fail") is True)


def _catch(value: dict[str, Any]) -> CatchNode:
    step, fallback = load_node(value["catch"]), load_node(value.get("fallback"))
    if not isinstance(step, StepNode):
        raise _invalid(value)
    return CatchNode(step, fallback, 1 + fallback.count)


def _branch(kind: Literal["chain", "group"]) -> Callable[[dict[str, Any]], BranchNode]:
    def read(value: dict[str, Any]) -> BranchNode:
        if type(value[kind]) is not list:
            raise _invalid(value)
        need = value.get("need", 0)
        if type(need) is not int or need < 0:
            raise _invalid(value)
        return branch(kind, tuple(map(load_node, value[kind])), need)

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
    "catch": _catch,
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
    elif isinstance(node, CatchNode):
        yield Numbered(first, path or "1", node.step)
        yield from _steps(node.fallback, first + 1, _below(path or "1", 1))
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
        # Below the step is its fallback, too.
        return _below(path or "1", place + isinstance(node.children[0], CatchNode)) if place else path
    return _below(path, place + 1)


def _below(path: str, place: int) -> str:
    return f"{path}.{place}" if path else str(place)


def _in_catch(node: CatchNode, offset: int, path: str) -> tuple[TreeNode, int, str]:
    """Find the part of a node in which a step is, the step's offset in it, and the part's path."""
    return (node.fallback, offset - 1, _below(path or "1", 1)) if offset else (node.step, 0, path)


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
        if isinstance(node, CatchNode):
            node, offset, path = _in_catch(node, offset, path)
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


def policies(tree: TreeNode) -> Iterator[tuple[int, TreeNode]]:
    """Yield the steps that may fail for good, by number, each with its node: a StepNode or a CatchNode."""
    return _policies(tree, 1)


def _policies(node: TreeNode, first: int) -> Iterator[tuple[int, TreeNode]]:
    return _POLICIES[type(node)](node, first)


def _of_step(node: StepNode, first: int) -> Iterator[tuple[int, TreeNode]]:
    return iter([(first, node)] if node.may_fail else ())


def _of_catch(node: CatchNode, first: int) -> Iterator[tuple[int, TreeNode]]:
    yield first, node
    yield from _policies(node.fallback, first + 1)


def _of_delay(node: DelayNode, first: int) -> Iterator[tuple[int, TreeNode]]:
    return _policies(node.node, first)


def _of_repeated(node: RepeatedNode, first: int) -> Iterator[tuple[int, TreeNode]]:
    found = list(_policies(node.node, first))
    for index in range(node.times if found else 0):
        yield from ((number + index * node.node.count, each) for number, each in found)


def _of_branch(node: BranchNode, first: int) -> Iterator[tuple[int, TreeNode]]:
    for child, start in zip(node.children, node.starts):
        yield from _policies(child, first + start)


_POLICIES: dict[type[TreeNode], Callable[[Any, int], Iterator[tuple[int, TreeNode]]]] = {
    StepNode: _of_step,
    CatchNode: _of_catch,
    DelayNode: _of_delay,
    RepeatedNode: _of_repeated,
    BranchNode: _of_branch,
}
