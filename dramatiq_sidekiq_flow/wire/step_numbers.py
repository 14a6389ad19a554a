"""Numbers of the steps of a tree, by which the record of a run knows them: depth first, from 1.

A step that a Python worker starts after exactly one other step of Python's, the one
before it, needs no number in the tree: that worker gives it the next one.  So the
callback stacks of chains do not grow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .death_nodes import fallback_of
from .need import group_of
from .nodes import Wire
from .payload_fields import DEATH_KEY, STEP_KEY
from .tree_times import completes_at_once

#: Returns True if Python workers of this version run a job.
IsPython = Callable[[Mapping[str, Any]], bool]


def number_steps(wire: Wire, is_python: IsPython) -> tuple[int, int]:
    """Number the steps of a tree, in place; return how many there are, and how many of them are in fallbacks."""
    numbering = _Numbering(is_python)
    numbering.number(wire, follows=False)
    return numbering.last, numbering.skipped


class _Numbering:
    def __init__(self, is_python: IsPython) -> None:
        self.is_python = is_python
        #: Number of the last step.
        self.last = 0
        #: Number of the steps in fallbacks.
        self.skipped = 0

    def number(self, node: Wire, *, follows: bool, delayed: bool = False) -> bool:
        """Number the steps of a node.

        Parameters:
          follows: True if the step before it, one of Python's, starts it.
          delayed: True if it starts later.  An empty node then becomes a job without a number.

        Returns:
          The same for what comes after the node.
        """
        kind = node["__type__"]
        if kind == "job":
            return self._number_job(node, follows)
        if kind == "with_delay":
            return self.number(node["task"], follows=follows, delayed=delayed or bool(node["delay"]))
        if kind == "chain":
            return self._number_chain(node, follows, delayed)
        for child in node["children"]:
            self.number(child, follows=False)
        return follows and not delayed and completes_at_once(node)

    def _number_job(self, job: Wire, follows: bool) -> bool:
        group = group_of(job)
        if group is not None:
            # The carrier is not a step.
            return self.number(group, follows=False)
        self.last += 1
        if not follows:
            job[STEP_KEY] = self.last
        # What comes next follows the step, or its fallback.
        has_fallback = DEATH_KEY in job and self._number_fallback(job)
        return not has_fallback and self.is_python(job)

    def _number_chain(self, node: Wire, follows: bool, delayed: bool) -> bool:
        if not node["children"]:
            return follows and not delayed
        for child in node["children"]:
            follows = self.number(child, follows=follows, delayed=delayed)
            # A delay belongs to the first child.
            delayed = False
        return follows

    def _number_fallback(self, job: Wire) -> bool:
        """Number the fallback of a step; return False if it has none."""
        fallback = fallback_of(job)
        if fallback is None:
            return False
        before, skipped = self.last, self.skipped
        self.number(fallback, follows=False)
        self.skipped = skipped + self.last - before
        return True
