"""What a workflow did in a test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import attrs

from ..wire.nodes import Wire


@attrs.frozen
class Step:
    """One execution of a job.

    Attributes:
      name: Of the actor or Ruby class.
      language: ``python`` or ``ruby``.
      attempt: 1 at first, 2 for the first retry, and so on.
      output: What it returned.
      error: What it raised; None for a step that is done.
      run_id: Of its workflow; None for a job outside of one.
      place: Number of the step in the workflow, counted from the left; None
        for what the test did not start with ``FlowTest.run``.
    """

    name: str
    args: tuple[Any, ...]
    jid: str
    queue: str
    language: str
    attempt: int
    output: Any
    error: BaseException | None
    run_id: str | None
    place: int | None = None

    @property
    def done(self) -> bool:
        """Whether it succeeded."""
        return self.error is None


@attrs.frozen
class Enqueued:
    """One job as it was enqueued.

    Attributes:
      name: Of the actor or Ruby class.
      delay: Milliseconds that it was to wait in ``schedule``; 0 for none.
      fields: The payload.
    """

    name: str
    args: tuple[Any, ...]
    queue: str
    jid: str
    run_id: str | None
    delay: int
    fields: dict[str, Any]


#: How many steps the repr of a run names.
_SHOWN = 10


@attrs.frozen(repr=False)
class Run:
    """A run, after all that could be run was run.

    Attributes:
      steps: Executions of its jobs, in order, with failures and retries.
      memory: What its memory holds.
      enqueued: Every job that was enqueued meanwhile, of the run or not.
      dead: The payloads of the run in ``dead``.
      tree: The workflow as it was started, where the test started it.
    """

    run_id: str
    steps: tuple[Step, ...]
    memory: dict[str, Any]
    enqueued: tuple[Enqueued, ...]
    dead: tuple[dict[str, Any], ...]
    tree: Wire | None = None

    def __repr__(self) -> str:
        done = " > ".join(self.order[:_SHOWN]) + (" > ..." if len(self.order) > _SHOWN else "")
        return f"Run({self.run_id!r}: {done or 'nothing done'}; {len(self.failed)} failed, {len(self.dead)} dead)"

    @property
    def order(self) -> list[str]:
        """The names of the steps that are done, in order."""
        return [step.name for step in self.steps if step.done]

    @property
    def failed(self) -> list[Step]:
        """The executions that failed, those that were retried too."""
        return [step for step in self.steps if not step.done]


def disorder(run: Run) -> Iterator[str]:
    """What is wrong with the order of a run's steps, by its workflow."""
    assert run.tree is not None
    count, earlier = _order(run.tree)
    ends: dict[int, int] = {}
    starts: dict[int, int] = {}
    names: dict[int, str] = {}
    for number, step in enumerate(run.steps):
        if step.place is not None:
            names[step.place] = f"{step.name}{step.args}"
            starts.setdefault(step.place, number)
            if step.done:
                if step.place in ends:
                    yield f"step {step.place}, {names[step.place]}, was done twice"
                ends.setdefault(step.place, number)
    for place in range(count):
        if place not in ends:
            yield f"step {place}{', ' + names[place] + ',' if place in names else ''} was not done"
    for first, second in earlier:
        if first in ends and second in starts and starts[second] < ends[first]:
            yield f"step {second}, {names[second]}, ran before step {first}, {names[first]}"


def mark(tree: Wire, key: str) -> int:
    """Number the jobs of a tree from the left, under a key; how many there are."""
    number = 0
    for job in _jobs(tree):
        job[key] = number
        number += 1
    return number


def _jobs(tree: Wire) -> Iterator[Wire]:
    if tree["__type__"] == "job":
        yield tree
    elif tree["__type__"] == "with_delay":
        yield from _jobs(tree["task"])
    else:
        for child in tree["children"]:
            yield from _jobs(child)


def _order(tree: Wire) -> tuple[int, list[tuple[int, int]]]:
    """How many jobs there are, and pairs of which the first must be done when the second starts.

    Of two steps of a chain that follow each other; what is further apart follows from these.
    """
    pairs: list[tuple[int, int]] = []
    count = 0

    def visit(node: Wire) -> tuple[list[int], list[int]]:
        # The jobs that nothing here comes before, and those that nothing comes after.
        nonlocal count
        if node["__type__"] == "job":
            count += 1
            return [count - 1], [count - 1]
        if node["__type__"] == "with_delay":
            return visit(node["task"])
        ends = [ends for ends in map(visit, node["children"]) if ends[0]]
        if node["__type__"] == "group":
            return [n for first, _ in ends for n in first], [n for _, last in ends for n in last]
        for (_, last), (first, _) in itertools.pairwise(ends):
            pairs.extend((a, b) for a in last for b in first)
        return (ends[0][0], ends[-1][1]) if ends else ([], [])

    visit(tree)
    return count, pairs
