"""Mermaid flowchart of a compact tree."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import attrs

from .tree_nodes import BranchNode, CatchNode, DelayNode, RepeatedNode, StepNode, TreeNode

#: Colours of the states that a reader looks for.
_STYLES = {
    "done": "fill:#d5f5d5,stroke:#3a3",
    "running": "fill:#d5e8ff,stroke:#36c",
    "retry": "fill:#fff0c8,stroke:#c90",
    "skipped": "fill:#f5f5f5,stroke:#bbb,stroke-dasharray:4",
    "dead": "fill:#ffd5d5,stroke:#c33",
    "lost": "fill:#ffd5d5,stroke:#c33,stroke-dasharray:4",
}


def flowchart(tree: TreeNode, state_of: Callable[[int, int], str] | None = None) -> str:
    """Write a tree as a flowchart from left to right.

    Parameters:
      state_of: First number and count of steps -> the state that they are shown with; None for a tree that
        does not run.
    """
    chart = _Chart(state_of)
    chart.visit(tree, 1, True)
    styles = [f"  classDef {name} {style}" for name, style in _STYLES.items() if name in chart.states]
    return "\n".join(["flowchart LR", *chart.lines, *styles])


@attrs.frozen
class _Ends:
    """Ids of the first and the last nodes of a part."""

    first: list[str] = attrs.field(factory=list)
    last: list[str] = attrs.field(factory=list)


class _Chart:
    def __init__(self, state_of: Callable[[int, int], str] | None) -> None:
        self.state_of = state_of
        self.lines: list[str] = []
        self.states: set[str] = set()
        self.numbers = itertools.count(1)

    def visit(self, node: TreeNode, first: int, is_parallel: bool) -> _Ends:
        """Write a node.

        Parameters:
          first: Number of its first step.
          is_parallel: False for the repetitions of a child of a chain.
        """
        if isinstance(node, StepNode):
            return self._box(first, 1, f"{node.name}, may fail" if node.may_fail else node.name)
        if isinstance(node, CatchNode):
            return self._catch(node, first, is_parallel)
        if isinstance(node, DelayNode):
            return self._joined([self._delay(node.delay), self.visit(node.node, first, is_parallel)])
        if isinstance(node, RepeatedNode):
            return self._repeated(node, first, is_parallel)
        return self._branch(node, first)

    def _catch(self, node: CatchNode, first: int, is_parallel: bool) -> _Ends:
        step = self.visit(node.step, first, is_parallel)
        fallback = self.visit(node.fallback, first + 1, is_parallel)
        if fallback.first:
            self.lines.append(f"  {step.last[0]} -. dead .-> {' & '.join(fallback.first)}")
        return _Ends(step.first, [*step.last, *fallback.last])

    def _branch(self, node: BranchNode, first: int) -> _Ends:
        ends = [
            self.visit(child, first + start, node.kind == "group") for child, start in zip(node.children, node.starts)
        ]
        if node.kind == "replaced":
            return self._replaced(ends)
        if node.kind == "chain":
            return self._joined(ends)
        together = _Ends([id for each in ends for id in each.first], [id for each in ends for id in each.last])
        return self._needing(node, together) if node.need else together

    def _needing(self, node: BranchNode, ends: _Ends) -> _Ends:
        """Join the members of a group that needs some of them."""
        joint = f"n{next(self.numbers)}"
        self.lines.append(f"  {joint}([{_quoted(f'{node.need} of {node.members}')}])")
        self._connect(ends.last, [joint])
        return _Ends(ends.first, [joint])

    def _replaced(self, ends: list[_Ends]) -> _Ends:
        """Connect a step with the trees that replaced it; its fallback, if it has one, does not lead to them."""
        step, *fallback = ends[0].last
        joined = self._joined([_Ends(ends[0].first, [step]), *ends[1:]])
        return _Ends(joined.first, [*joined.last, *fallback])

    def _repeated(self, node: RepeatedNode, first: int, is_parallel: bool) -> _Ends:
        times = f"{node.times} times" + ("" if is_parallel else ", one after another")
        if isinstance(node.node, StepNode):
            name = f"{node.node.name} x {node.times}" if is_parallel else f"{node.node.name}, {times}"
            return self._box(first, node.count, name)
        self.lines.append(f"  subgraph r{next(self.numbers)}[{_quoted(times)}]")
        ends = self.visit(node.node, first, is_parallel)
        self.lines.append("  end")
        return ends

    def _box(self, first: int, count: int, label: str) -> _Ends:
        name = f"s{first}"
        line = f"  {name}[{_quoted(label)}]"
        if self.state_of is not None:
            state = self.state_of(first, count)
            self.states.add(state)
            line += f":::{state}"
        self.lines.append(line)
        return _Ends([name], [name])

    def _delay(self, delay: float) -> _Ends:
        name = f"d{next(self.numbers)}"
        text = f"after {delay / 1000:g} s" if delay >= 1000 else f"after {delay:g} ms"
        self.lines.append(f"  {name}([{_quoted(text)}])")
        return _Ends([name], [name])

    def _joined(self, parts: Iterable[_Ends]) -> _Ends:
        """Connect parts that follow each other; those without steps are left out."""
        filled = [part for part in parts if part.first]
        for before, after in itertools.pairwise(filled):
            last = before.last
            if len(last) > 1 and len(after.first) > 1:
                joint = f"j{next(self.numbers)}"
                self.lines.append(f"  {joint}(( ))")
                self._connect(last, [joint])
                last = [joint]
            self._connect(last, after.first)
        if not filled:
            return _Ends()
        return _Ends(filled[0].first, filled[-1].last)

    def _connect(self, before: list[str], after: list[str]) -> None:
        self.lines.append(f"  {' & '.join(before)} --> {' & '.join(after)}")


def _quoted(text: str) -> str:
    """Quote a label; Mermaid reads entities in it."""
    for character, entity in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("\n", " ")):
        text = text.replace(character, entity)
    return f'"{text}"'
