"""Tree of a run as text: one line for each step, and one for repeated steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import attrs

from ..wire.tree_nodes import BranchNode, CatchNode, DelayNode, RepeatedNode, StepNode, TreeNode
from .step import Progress, Step, StepState
from .step_list import STATES, StepList

#: Columns of a line.
WIDTH = 80

#: Columns of names and of queues.
_MOST_OF_NAME, _MOST_OF_QUEUE = 30, 12

#: The state of a step that is inferred to be done.
_INFERRED = "done*"

#: The mark of each state, in front of a line.
MARKS: dict[StepState, str] = {
    "done": "+",
    "running": ">",
    "queued": "-",
    "scheduled": "~",
    "signal": "~",
    "retry": "~",
    "dead": "!",
    "pending": ".",
    "unknown": "?",
    "lost": "?",
    "cancelled": "x",
    "parked": "=",
    "skipped": "/",
}


#: The order of the counts of repeated steps.
_SHOWN_FIRST: tuple[StepState, ...] = (
    "done",
    "dead",
    "lost",
    "running",
    "retry",
    "queued",
    "scheduled",
    "signal",
    "parked",
    "unknown",
    "pending",
    "cancelled",
    "skipped",
)


@attrs.frozen
class _Line:
    """A line before its columns are known; ``number`` is None for a line that is not of a step."""

    mark: str
    number: int | None
    name: str
    queue: str
    rest: str


def step_lines(steps: Sequence[Step]) -> list[str]:
    """Write the steps of a run."""
    if isinstance(steps, StepList):
        return _aligned(list(_tree(steps, steps.codes.tree, 1, "")))
    return _aligned([line for step in steps for line in _step(step, "")])


def count_text(progress: Progress) -> str:
    """Write the numbers of steps."""
    total = "" if progress.total is None else f" of {progress.total:,}"
    numbers = {"running": progress.running, "waiting": progress.waiting, "dead": progress.failed}
    others = [f", {count:,} {name}" for name, count in numbers.items() if count]
    return f"{progress.done:,}{total} steps done{''.join(others)}"


def moment_lines(started: datetime | None, ended: datetime | None) -> list[str]:
    """Write when a run started, and how long it took, if that is known."""
    if started is None:
        return []
    took = f", took {_duration(started, ended)}" if ended else ""
    return [f"started {started:%Y-%m-%d %H:%M:%S} UTC{took}"]


def plain_text(text: str) -> str:
    """A text from Redis on one line, without characters that control a terminal."""
    return "".join(each if each.isprintable() else " " for each in text)


def _tree(steps: StepList, node: TreeNode, first: int, indent: str) -> Iterator[_Line]:
    if isinstance(node, StepNode):
        yield from _step(steps.at(first), indent)
    elif isinstance(node, DelayNode):
        yield _Line("", None, f"{indent}after {_seconds(node.delay / 1000)}", "", "")
        yield from _tree(steps, node.node, first, indent + "  ")
    elif isinstance(node, RepeatedNode):
        yield _repeated(steps, node, first, indent)
    elif isinstance(node, CatchNode):
        yield from _step(steps.at(first), indent)
        yield _Line("", None, f"{indent}  if it fails for good", "", "")
        yield from _tree(steps, node.fallback, first + 1, indent + "    ")
    elif node.kind == "replaced":
        yield from _replaced(steps, node, first, indent)
    else:
        yield _Line("", None, indent + _header(node), "", "")
        for child, start in zip(node.children, node.starts):
            yield from _tree(steps, child, first + start, indent + "  ")


def _header(node: BranchNode) -> str:
    if node.need:
        return f"{node.kind}, {node.need} of {node.members} needed"
    return f"{node.kind}{'' if node.children else ' (empty)'}"


def _replaced(steps: StepList, node: BranchNode, first: int, indent: str) -> Iterator[_Line]:
    """Write a step that was replaced, and below it the trees, one after another."""
    yield from _tree(steps, node.children[0], first, indent)
    for child, start in zip(node.children[1:], node.starts[1:]):
        yield _Line("", None, f"{indent}  replaced by", "", "")
        yield from _tree(steps, child, first + start, indent + "    ")


def _repeated(steps: StepList, node: RepeatedNode, first: int, indent: str) -> _Line:
    codes = steps.codes.codes[first : first + node.count]
    counts: dict[StepState, int] = {}
    for code, state in enumerate(STATES):
        counts[state] = counts.get(state, 0) + codes.count(code)
    # What is wrong is not cut off.
    text = ", ".join(f"{counts[state]:,} {state}" for state in _SHOWN_FIRST if counts[state])
    times = f" x {node.times}"
    label = _label(node.node)
    room = _MOST_OF_NAME - len(indent) - len(times)
    queue = node.node.queue if isinstance(node.node, StepNode) else ""
    number = steps.codes.order.number(first)
    return _Line(MARKS[steps.state_of(first, node.count)], number, indent + _cut(label, room) + times, queue, text)


def _label(node: TreeNode) -> str:
    """Name of a node on one line: ``a > b`` for a chain, ``a | b`` for a group."""
    if isinstance(node, StepNode):
        return node.name
    if isinstance(node, CatchNode):
        return f"{node.step.name}, else {_label(node.fallback)}"
    if isinstance(node, BranchNode):
        return f"({(' > ' if node.kind != 'group' else ' | ').join(map(_label, node.children[:10]))})"
    return _label(node.node) if isinstance(node, DelayNode) else f"{_label(node.node)} x {node.times}"


def _step(step: Step, indent: str) -> Iterator[_Line]:
    state = _INFERRED if step.inferred else step.state
    name = indent + _cut(step.name, _MOST_OF_NAME - len(indent))
    yield _Line(MARKS[step.state], step.number, name, step.queue, f"{state:<10}{_times(step)}".rstrip())
    if step.error is not None:
        yield _Line("", None, "", "", f"{indent}  {step.error.splitlines()[0]}")


def _times(step: Step) -> str:
    if step.due_at is not None:
        return f"{'until' if step.state == 'signal' else 'due'} {step.due_at:%m-%d %H:%M:%S}"
    if step.state == "running":
        return f"since {step.started_at:%H:%M:%S}" if step.started_at else ""
    if step.started_at and step.ended_at:
        return f"{step.started_at:%H:%M:%S}  {_duration(step.started_at, step.ended_at)}"
    return f"{step.ended_at:%m-%d %H:%M:%S}" if step.ended_at else ""


def _aligned(lines: list[_Line]) -> list[str]:
    numbers = max((len(str(line.number or "")) for line in lines), default=0)
    names = max((len(line.name) for line in lines), default=0)
    queues = min(_MOST_OF_QUEUE, max((len(line.queue) for line in lines), default=0))
    text = [_cut(_columns(line, numbers, names, queues), WIDTH) for line in lines]
    is_inferred = any(line.rest.startswith(_INFERRED) for line in lines)
    return [*text, "* inferred: without the companion, Ruby records no end of a step"] if is_inferred else text


def _columns(line: _Line, numbers: int, names: int, queues: int) -> str:
    if not line.mark:
        # A branch, a delay, or an error below its step.
        return f"{' ' * (numbers + 3)}{line.name}{line.rest}".rstrip()
    number = "" if line.number is None else line.number
    queue = _cut(line.queue, queues)
    return f"{line.mark} {number:>{numbers}} {line.name:<{names}}  {queue:<{queues}}  {line.rest}".rstrip()


def _cut(text: str, width: int) -> str:
    width = max(width, 4)
    return text if len(text) <= width else text[: width - 3] + "..."


def _duration(started: datetime, ended: datetime) -> str:
    return _seconds((ended - started).total_seconds())


def _seconds(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    if seconds >= 600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"
