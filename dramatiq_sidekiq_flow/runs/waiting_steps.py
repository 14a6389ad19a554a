"""Steps of a run whose turn has not come, and what they wait for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from ..wire.tree_nodes import BranchNode, DelayNode, StepNode, TreeNode
from .finding import Finding
from .step import Step
from .step_codes import DONE, INFERRED, NONE, PENDING, SKIPPED, StepCodes
from .step_list import StepList

#: Findings about steps whose turn has not come, at most.
MOST = 10


def waiting_findings(steps: Sequence[Step]) -> list[Finding]:
    """Make a finding for each chain that has begun, and has steps whose turn has not come; none without a tree."""
    if not isinstance(steps, StepList):
        return []
    return list(islice(_waiting(steps, steps.codes.tree, 1), MOST))


def _waiting(steps: StepList, node: TreeNode, first: int) -> Iterator[Finding]:
    if isinstance(node, DelayNode):
        yield from _waiting(steps, node.node, first)
    elif isinstance(node, BranchNode) and node.kind == "chain":
        yield from _in_chain(steps, node, first)
    elif isinstance(node, BranchNode):
        for child, start in zip(node.children, node.starts):
            yield from _waiting(steps, child, first + start)


def _in_chain(steps: StepList, chain: BranchNode, first: int) -> Iterator[Finding]:
    for child, start in zip(chain.children, chain.starts):
        start += first
        if steps.codes.is_over(child, start):
            continue
        if _count(steps.codes, start, child.count, PENDING, NONE) == child.count:
            # The chain has not begun.
            return
        yield from _waiting(steps, child, start)
        after = start + child.count
        left = first + chain.count - after
        if left and _count(steps.codes, after, left, PENDING) == left:
            yield _finding(steps, child, start, after, left)
        return


def _finding(steps: StepList, before: TreeNode, start: int, first: int, count: int) -> Finding:
    step = steps.at(first)
    done, number_of = _count(steps.codes, start, before.count, DONE, INFERRED), steps.codes.order.number
    if isinstance(before, StepNode):
        why = f"Its turn comes after step {number_of(start)} {before.name!r}."
    else:
        total = before.count - _count(steps.codes, start, before.count, SKIPPED)
        numbers = _range(sorted(map(number_of, range(start, start + before.count))))
        why = f"Its turn comes after steps {numbers}, of which {done:,} of {total:,} are done."
        if isinstance(before, BranchNode) and before.need:
            members = f"{before.need:,} of the {before.members:,} members"
            over = steps.codes.members_over(before, start)
            why = f"Its turn comes when {members} of the group of steps {numbers} are done; {over:,} so far."
    return Finding(
        cause="after_others",
        outlook="waits",
        state="pending",
        name=step.name if count == 1 else "",
        queue=step.queue if count == 1 else "",
        count=count,
        numbers=(step.number or 0,),
        where="not pushed yet",
        why=why,
    )


def _range(numbers: Sequence[int]) -> str:
    """Name steps; those that were added later have numbers that do not follow."""
    first, last = numbers[0], numbers[-1]
    return f"{first:,} to {last:,}" if last - first < len(numbers) else f"from {first:,} on"


def _count(codes: StepCodes, first: int, count: int, *wanted: int) -> int:
    part = codes.codes[first : first + count]
    return sum(map(part.count, wanted))
