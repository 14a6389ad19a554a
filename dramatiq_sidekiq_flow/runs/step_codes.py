"""States of the steps of a run, one byte for each, from marks, jobs that were found, and the tree.

A run may have many thousand steps, most of them repeated: ranges of bytes are
counted and filled at once.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from ..wire.grown_tree import grow
from ..wire.needing_groups import inner_nodes, is_step, members, needing_groups
from ..wire.tree_nodes import BranchNode, CatchNode, DelayNode, RepeatedNode, StepNode, TreeNode, policies

NONE, DONE, INFERRED, RUNNING, QUEUED, SCHEDULED, RETRY, DEAD, PENDING, UNKNOWN, LOST, CANCELLED, PARKED = range(13)

#: A step that is dead: the run went on; the run goes on as soon as a look at ``dead`` finds it.
#: And a step of a fallback that does not run.
CAUGHT, UNCAUGHT, SKIPPED = range(13, 16)

#: A step that waits for a signal.
SIGNAL = 16

#: A step that is dead, in a group that needs other members only.
SPARED = 17

#: The codes of steps that what comes after them does not wait for.
OVER = (DONE, INFERRED, CAUGHT, SKIPPED)

#: What is read of a bitmap for each value of a byte: eight codes, the first bit first.
_OF_BYTE = [bytes(DONE if byte & (128 >> bit) else NONE for bit in range(8)) for byte in range(256)]


class StepCodes:
    """The codes of the steps of a run, by their positions in its tree; index 0 is unused.

    Parameters:
      added: Number of a step that was replaced -> JSON of the tree (``wire.grown_tree``).
    """

    def __init__(self, tree: TreeNode, added: Mapping[int, bytes] | None = None) -> None:
        self.tree, self.order = grow(tree, added or {})
        self.codes = bytearray(self.tree.count + 1)
        #: Position -> node of each step that may fail for good.
        self.policies = dict(policies(self.tree))
        #: Position and node of each group that needs some of its members.
        self.needing = needing_groups(self.tree)

    def __getitem__(self, number: int) -> int:
        return self.codes[self.order.position(number)]

    def __contains__(self, number: int) -> bool:
        """Return True if the tree has a step of this number."""
        return self.order.position(number) > 0

    def count(self, *codes: int) -> int:
        """Number of steps that have one of these codes."""
        return sum(self._count(code, 1, len(self.codes)) for code in codes)

    def present(self) -> set[int]:
        """The codes that some step has."""
        return set(self.codes[1:])

    def numbers(self, *codes: int) -> list[int]:
        """The steps that have one of these codes."""
        found: list[int] = []
        for code in codes:
            number = self.codes.find(code, 1)
            while number > 0:
                found.append(self.order.number(number))
                number = self.codes.find(code, number + 1)
        return sorted(found)

    # -- marks ----------------------------------------------------------------

    def mark_bits(self, bits: bytes) -> None:
        """Mark as done the steps whose bits are set."""
        marked = b"".join(map(_OF_BYTE.__getitem__, bits))
        if self.order.numbers is None:
            marked = marked[: len(self.codes)]
            self.codes[: len(marked)] = marked
            return
        self._mark_each(marked, self.order.numbers)

    def _mark_each(self, marked: bytes, numbers: Sequence[int]) -> None:
        for position, number in enumerate(numbers, 1):
            if number < len(marked):
                self.codes[position] = marked[number]

    def mark(self, number: int, code: int) -> None:
        """Set the code of one step; what is done stays done."""
        position = self.order.position(number)
        if position and self.codes[position] != DONE:
            self.codes[position] = code

    def mark_dead(self, numbers: Iterable[int]) -> None:
        """Set the code of steps that failed for good, unless a job of theirs was found in another place."""
        for number in numbers:
            position = self.order.position(number)
            if position and self.codes[position] == NONE:
                self.codes[position] = DEAD

    def mark_caught(self, failed: Container[int]) -> None:
        """Set the code of the steps that failed for good without stopping the run.

        Parameters:
          failed: Numbers of the steps that the record has an error of.
        """
        for position, node in self.policies.items():
            code, has_failed = self.codes[position], self.order.number(position) in failed
            # A job that does nothing took its place, and may be done.
            if code in (NONE, DONE) and (has_failed or self._runs_instead(position, node)):
                self.codes[position] = CAUGHT
            elif code == DEAD:
                # Its job is in `dead`, and belongs to the run still.
                self.codes[position] = UNCAUGHT

    def mark_spared(self, spared: Iterable[int], failed: Container[int]) -> None:
        """Set the code of the steps that are dead in groups that need some of their members.

        Parameters:
          spared: Numbers of the steps that are recorded as dead, and that the run does not wait for.
          failed: As :meth:`mark_caught`; a look at ``dead`` will decide on the others.
        """
        for number in spared:
            position = self.order.position(number)
            if position and self.codes[position] in (NONE, DEAD):
                self.codes[position] = SPARED
        for first, group in self.needing:
            for position in range(first, first + group.count):
                if self.codes[position] == DEAD and self.order.number(position) not in failed:
                    self.codes[position] = UNCAUGHT

    def settle_members(self) -> None:
        """Conclude in the members of groups that need some of them: a member that goes on is not done."""
        for first, group in self.needing:
            for start, member in members(group, first):
                end = start + member.count
                if set(self.codes[start:end]) - {NONE, *OVER}:
                    self._infer(member, start)
                    self.skip(start, end)
                    self._settle(member, start, True)

    def in_needing(self, code: int) -> int:
        """Number of steps that have a code, in groups that need some of their members."""
        return sum(self._count(code, first, first + group.count) for first, group in self.needing)

    def skip(self, first: int = 1, end: int | None = None, over: tuple[int, ...] = (DONE, INFERRED)) -> None:
        """Mark the fallbacks that do not run.

        Parameters:
          first, end: Range of the positions of steps whose fallbacks are looked at.
          over: Codes of a step whose fallback does not run.
        """
        for position in range(first, len(self.codes) if end is None else end) if self.policies else ():
            node = self.policies.get(position)
            if node is not None and self.codes[position] in over:
                self._fill(position + 1, position + node.count, SKIPPED)

    def replace(self, before: int, after: int) -> None:
        """Replace one code by another, of all steps."""
        self._fill(1, len(self.codes), after, before)

    # -- conclusions ------------------------------------------------------------

    def infer(self) -> None:
        """Mark the steps in front of a step that exists, or is done, as done."""
        self._infer(self.tree, 1)

    def settle(self) -> None:
        """Give a code to the steps that have none: lost or unknown if it is their turn, else pending."""
        self._settle(self.tree, 1, True)

    def _infer(self, node: TreeNode, first: int) -> None:
        if isinstance(node, StepNode) or not self._is_mixed(first, node.count):
            return
        if isinstance(node, DelayNode):
            self._infer(node.node, first)
        elif isinstance(node, CatchNode):
            self._infer(node.fallback, first + 1)
        elif isinstance(node, RepeatedNode):
            self._infer_each(node, first)
        elif node.kind == "group":
            for child, start in zip(node.children, node.starts):
                self._infer(child, first + start)
        else:
            self._infer_chain(node, first)

    def _infer_each(self, node: RepeatedNode, first: int) -> None:
        """Infer in each repetition of a member of a group."""
        if not isinstance(node.node, StepNode):
            for start in range(first, first + node.count, node.node.count):
                self._infer(node.node, start)

    def _infer_chain(self, node: BranchNode, first: int) -> None:
        # One byte for each step: the last one that is not 0 is the last that exists.
        last = len(self.codes[first : first + node.count].rstrip(b"\0")) - 1
        index = max(index for index, start in enumerate(node.starts) if start <= last and node.children[index].count)
        child, start = node.children[index], first + node.starts[index]
        if isinstance(child, RepeatedNode):
            size = child.node.count
            child, start = child.node, start + (last - node.starts[index]) // size * size
        self.skip(first, start, (NONE, DONE, INFERRED))
        self._fill(first, start, INFERRED)
        self._infer(child, start)

    def _settle(self, node: TreeNode, first: int, is_due: bool) -> None:
        end = first + node.count
        if not self._count(NONE, first, end):
            return
        if not is_due:
            self._fill(first, end, PENDING)
        elif isinstance(node, StepNode):
            self._fill(first, end, UNKNOWN if node.ruby else LOST)
        elif isinstance(node, DelayNode):
            self._settle(node.node, first, True)
        elif isinstance(node, CatchNode):
            self._settle(node.step, first, True)
            self._settle(node.fallback, first + 1, self.codes[first] == CAUGHT)
        elif isinstance(node, RepeatedNode):
            self._settle_each(node, first)
        elif node.kind == "group":
            for child, start in zip(node.children, node.starts):
                self._settle(child, first + start, True)
        else:
            self._settle_chain(node, first)

    def _settle_each(self, node: RepeatedNode, first: int) -> None:
        if isinstance(node.node, StepNode):
            self._fill(first, first + node.count, UNKNOWN if node.node.ruby else LOST)
        else:
            for start in range(first, first + node.count, node.node.count):
                self._settle(node.node, start, True)

    def _settle_chain(self, node: BranchNode, first: int) -> None:
        for child, start in zip(node.children, node.starts):
            start += first
            if self._is_done(start, start + child.count):
                continue
            if self.needing and self.is_over(child, start):
                self._settle(child, start, True)
                continue
            if isinstance(child, RepeatedNode):
                each = child.node
                start += self._done_from(start, start + child.count) // each.count * each.count
                child = each
            self._settle(child, start, True)
            self._fill(start + child.count, first + node.count, PENDING)
            return

    def is_over(self, node: TreeNode, first: int) -> bool:
        """Return True if what follows a node does not wait for it."""
        if self._is_done(first, first + node.count):
            return True
        if is_step(node) or not self.needing:
            return False
        if isinstance(node, BranchNode) and node.need:
            return self.members_over(node, first) >= node.need
        return all(self.is_over(child, start) for start, child in inner_nodes(node, first))

    def members_over(self, group: BranchNode, first: int) -> int:
        """Count the members of a group that are done."""
        return sum(self.is_over(member, start) for start, member in members(group, first))

    # -- ranges -------------------------------------------------------------------

    def _count(self, code: int, first: int, end: int) -> int:
        return self.codes.count(code, first, end)

    def _fill(self, first: int, end: int, code: int, before: int = NONE) -> None:
        """Replace a code in a range."""
        part = self.codes[first:end]
        self.codes[first:end] = part.translate(bytes.maketrans(bytes((before,)), bytes((code,))))

    def _is_mixed(self, first: int, count: int) -> bool:
        """Return True if some steps of a range have a code, and others have none."""
        return 0 < self._count(NONE, first, first + count) < count

    def _is_done(self, first: int, end: int) -> bool:
        return sum(self._count(code, first, end) for code in OVER) == end - first

    def _runs_instead(self, position: int, node: TreeNode) -> bool:
        """Return True if a step of the fallback of a step exists, or is done."""
        end = position + node.count
        return self.codes[position] != DONE and self._count(NONE, position + 1, end) < node.count - 1

    def _done_from(self, first: int, end: int) -> int:
        """Number of steps at the begin of a range that are done."""
        part = self.codes[first:end]
        return len(part) - len(part.lstrip(bytes(OVER)))
