"""States of the steps of a run, one byte for each, from marks, jobs that were found, and the tree.

A run may have many thousand steps, most of them repeated: ranges of bytes are
counted and filled at once.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from ..wire.tree_nodes import BranchNode, CatchNode, DelayNode, RepeatedNode, StepNode, TreeNode, policies

NONE, DONE, INFERRED, RUNNING, QUEUED, SCHEDULED, RETRY, DEAD, PENDING, UNKNOWN, LOST, CANCELLED, PARKED = range(13)

#: A step that is dead: the run went on; the run goes on as soon as a look at ``dead`` finds it.
#: And a step of a fallback that does not run.
CAUGHT, UNCAUGHT, SKIPPED = range(13, 16)

#: The codes of steps that what comes after them does not wait for.
OVER = (DONE, INFERRED, CAUGHT, SKIPPED)

#: What is read of a bitmap for each value of a byte: eight codes, the first bit first.
_OF_BYTE = [bytes(DONE if byte & (128 >> bit) else NONE for bit in range(8)) for byte in range(256)]


class StepCodes:
    """The codes of the steps of a run; index 0 is unused."""

    def __init__(self, tree: TreeNode) -> None:
        self.tree = tree
        self.codes = bytearray(tree.count + 1)
        #: Number -> node of each step that may fail for good.
        self.policies = dict(policies(tree))

    def __getitem__(self, number: int) -> int:
        return self.codes[number]

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
                found.append(number)
                number = self.codes.find(code, number + 1)
        return sorted(found)

    # -- marks ----------------------------------------------------------------

    def mark_bits(self, bits: bytes) -> None:
        """Mark as done the steps whose bits are set."""
        marked = b"".join(map(_OF_BYTE.__getitem__, bits))[: len(self.codes)]
        self.codes[: len(marked)] = marked

    def mark(self, number: int, code: int) -> None:
        """Set the code of one step; what is done stays done."""
        if 0 < number < len(self.codes) and self.codes[number] != DONE:
            self.codes[number] = code

    def mark_dead(self, numbers: Iterable[int]) -> None:
        """Set the code of steps that failed for good, unless a job of theirs was found in another place."""
        for number in numbers:
            if 0 < number < len(self.codes) and self.codes[number] == NONE:
                self.codes[number] = DEAD

    def mark_caught(self, failed: Container[int]) -> None:
        """Set the code of the steps that failed for good without stopping the run.

        Parameters:
          failed: Numbers of the steps that the record has an error of.
        """
        for number, node in self.policies.items():
            code = self.codes[number]
            # A job that does nothing took its place, and may be done.
            if code in (NONE, DONE) and (number in failed or self._runs_instead(number, node)):
                self.codes[number] = CAUGHT
            elif code == DEAD:
                # Its job is in `dead`, and belongs to the run still.
                self.codes[number] = UNCAUGHT

    def skip(self, first: int = 1, end: int | None = None, over: tuple[int, ...] = (DONE, INFERRED)) -> None:
        """Mark the fallbacks that do not run.

        Parameters:
          first, end: Range of the steps whose fallbacks are looked at.
          over: Codes of a step whose fallback does not run.
        """
        for number in range(first, len(self.codes) if end is None else end) if self.policies else ():
            node = self.policies.get(number)
            if node is not None and self.codes[number] in over:
                self._fill(number + 1, number + node.count, SKIPPED)

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
            if isinstance(child, RepeatedNode):
                each = child.node
                start += self._done_from(start, start + child.count) // each.count * each.count
                child = each
            self._settle(child, start, True)
            self._fill(start + child.count, first + node.count, PENDING)
            return

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

    def _runs_instead(self, number: int, node: TreeNode) -> bool:
        """Return True if a step of the fallback of a step exists, or is done."""
        return self.codes[number] != DONE and self._count(NONE, number + 1, number + node.count) < node.count - 1

    def _done_from(self, first: int, end: int) -> int:
        """Number of steps at the begin of a range that are done."""
        part = self.codes[first:end]
        return len(part) - len(part.lstrip(bytes(OVER)))
