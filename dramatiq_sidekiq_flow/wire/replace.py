"""Replacement of a step: the tree that starts in its place when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ..errors import InvalidWorkflow
from .near_misses import check_children
from .nodes import Group


@attrs.frozen(init=False)
class Replace:
    """Return value of a step that a tree replaces: what follows the step waits for the tree.

    Examples:

      >>> @actor
      ... def crawl(url):
      ...     return Replace(Group(*[fetch.message(page) for page in pages_of(url)]))

    Parameters:
      tree: ``Chain``, ``Group``, ``WithDelay``, ``Job``, or a Dramatiq message.
      output: Values that the step sets in the memory of its run, as if it had returned them.

    Raises:
      InvalidWorkflow: if the tree is missing.
    """

    tree: Any
    output: Mapping[str, Any] | None

    def __init__(self, tree: Any, *, output: Mapping[str, Any] | None = None) -> None:
        self.__attrs_init__(_checked(tree), output)


@attrs.define
class Changes:
    """What a running step asks for; nothing is written before it ends.

    Attributes:
      tree: The tree that replaces the step; None without.
      added: Steps that start beside it.
      waits: True if the step waits for a signal (``WaitFor``), or carries a group (``wire.need``).
    """

    tree: Any = None
    added: list[Any] = attrs.field(factory=list)
    waits: bool = False

    def replace(self, tree: Any) -> None:
        """Set the tree.

        Raises:
          InvalidWorkflow: if it is missing.
        """
        self.tree = _checked(tree)

    def add(self, steps: tuple[Any, ...]) -> None:
        """Add steps.

        Raises:
          InvalidWorkflow: if a list of steps is given.
        """
        check_children("add", steps)
        self.added += steps

    def with_returned(self, value: Any) -> Any:
        """Make the tree of a step that returned ``value``; None if nothing replaces it."""
        tree = value.tree if isinstance(value, Replace) else self.tree
        return self._beside(tree) if self.added else tree

    def _beside(self, tree: Any) -> Group:
        return Group(*self.added) if tree is None else Group(tree, *self.added)


def output_of(value: Any) -> Any:
    """The output of a step that returned ``value``."""
    return value.output if isinstance(value, Replace) else value


def _checked(tree: Any) -> Any:
    if tree is None:
        raise InvalidWorkflow("A step is replaced by a tree: Replace(Chain(a, b)). Chain() does nothing.", tree)
    return tree
