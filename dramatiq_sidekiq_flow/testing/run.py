"""Result of a workflow in a test."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import attrs

from ..wire.death_nodes import fallback_of
from ..wire.need import group_of
from ..wire.nodes import Wire, jobs
from ..wire.payload_fields import DEATH_KEY


@attrs.frozen
class Step:
    """One execution of a job.

    Attributes:
      name: The actor or Ruby class.
      attempt: 1 for the first execution, 2 for the first retry, and so on.
      output: The value that it returned.
      error: The error that it raised; None if it is done.
      run_id: The run of its workflow; None outside of one.
      place: Number of the step in the workflow, counted from the left; None
        if ``FlowTest.run`` did not start the workflow.
    """

    name: str
    args: tuple[Any, ...]
    jid: str
    queue: str
    language: Literal["python", "ruby"]
    attempt: int
    output: Any
    error: BaseException | None
    run_id: str | None
    place: int | None = None

    @property
    def done(self) -> bool:
        """True if it succeeded."""
        return self.error is None


@attrs.frozen
class Enqueued:
    """One job as it was enqueued.

    Attributes:
      name: The actor or Ruby class.
      delay: Delay in ``schedule``, in milliseconds; 0 if it had none.
      fields: The payload.
    """

    name: str
    args: tuple[Any, ...]
    queue: str
    jid: str
    run_id: str | None
    delay: int
    fields: dict[str, Any]


#: Number of steps in the repr of a run.
_SHOWN = 10


@attrs.frozen(repr=False)
class Run:
    """A run, after all jobs that could run have run.

    Attributes:
      steps: Executions of its jobs, in order, including failures and retries.
      memory: Values in its memory.
      enqueued: All jobs that were enqueued meanwhile, also those outside of the run.
      dead: Payloads of the run in ``dead``.
      tree: The workflow as it was started; None if the test did not start it.
      state: As of ``Runs.get``: ``done``, ``failed``, ``cancelled``, ``paused`` and so on; "" without a record.
    """

    run_id: str
    steps: tuple[Step, ...]
    memory: dict[str, Any]
    enqueued: tuple[Enqueued, ...]
    dead: tuple[dict[str, Any], ...]
    tree: Wire | None = None
    state: str = ""

    def __repr__(self) -> str:
        names = self.order[:_SHOWN]
        if len(self.order) > _SHOWN:
            names.append("...")
        done = " > ".join(names) or "nothing done"
        return f"Run({self.run_id!r}: {done}; {len(self.failed)} failed, {len(self.dead)} dead)"

    @property
    def order(self) -> list[str]:
        """Names of the steps that are done, in order."""
        return [step.name for step in self.steps if step.done]

    @property
    def failed(self) -> list[Step]:
        """Executions that failed, including those that were retried."""
        return [step for step in self.steps if not step.done]


def check_names(run: Run, names: Sequence[str]) -> None:
    """Check that these steps were done in this order, with any others between.

    Raises:
      AssertionError: if not; the message names the first step that is missing.
    """
    rest = iter(run.order)
    missing = [name for name in names if name not in rest]
    if missing:
        raise AssertionError(f"{missing[0]} is not where it should be: {' > '.join(names)} in {run.order}")


def disorder(run: Run) -> Iterator[str]:
    """Find the steps of a run that its workflow does not allow at their place, and describe each."""
    assert run.tree is not None
    order = _order(run.tree)
    log = _Log()
    for number, step in enumerate(run.steps):
        if step.place is not None:
            yield from log.add(step.place, number, step)
    yield from log.not_done(order)
    yield from log.needless(order)
    yield from log.early(order.pairs)


@attrs.frozen
class _Log:
    """Executions by place: the number of the first one, and of the one that ended it."""

    starts: dict[int, int] = attrs.field(factory=dict)
    ends: dict[int, int] = attrs.field(factory=dict)
    names: dict[int, str] = attrs.field(factory=dict)

    def add(self, place: int, number: int, step: Step) -> Iterator[str]:
        """Add an execution; yields a problem if the step was done before."""
        self.names[place] = f"{step.name}{step.args}"
        self.starts.setdefault(place, number)
        if not step.done:
            return
        if place in self.ends:
            yield f"step {place}, {self.names[place]}, was done twice"
        self.ends.setdefault(place, number)

    def not_done(self, order: _Order) -> Iterator[str]:
        """Problems: the steps that were not done, and had to be."""
        for place in sorted(set(range(order.count)) - order.may_fail - self.ends.keys()):
            if order.instead_of.get(place) not in self.ends:
                yield f"{self.name(place)} was not done"

    def needless(self, order: _Order) -> Iterator[str]:
        """Problems: the steps of fallbacks that ran although the steps before them were done."""
        for place, step in order.instead_of.items():
            if place in self.starts and step in self.ends:
                yield f"{self.name(place)} ran, although step {step}, {self.names[step]}, was done"

    def early(self, pairs: Iterable[tuple[int, int]]) -> Iterator[str]:
        """Problems: the steps that started before another one, which goes first, was done."""
        for first, second in pairs:
            if self.ran_before(second, first):
                yield f"step {second}, {self.names[second]}, ran before step {first}, {self.names[first]}"

    def name(self, place: int) -> str:
        """Number of a step, and its name if it was executed."""
        return f"step {place}, {self.names[place]}," if place in self.names else f"step {place}"

    def ran_before(self, second: int, first: int) -> bool:
        """Return True if a step started before another one was done."""
        return first in self.ends and second in self.starts and self.starts[second] < self.ends[first]


def mark(tree: Wire, key: str) -> int:
    """Number the jobs of a tree from the left, under a key; returns how many there are."""
    number = 0
    for job in jobs(tree):
        if group_of(job) is None:
            job[key] = number
            number += 1
    return number


def _order(tree: Wire) -> _Order:
    """Collect what a run of a tree must keep to."""
    order = _Order()
    order.visit(tree)
    return order


@attrs.frozen
class _Ends:
    """The jobs of a node that start first, and those that are done last."""

    first: list[int]
    last: list[int]


@attrs.define
class _Order:
    """Walks a tree, and numbers its jobs.

    Attributes:
      count: Number of jobs.
      pairs: Pairs of jobs of which the first must be done before the second starts: those of
        neighbours in a chain; the order of others follows.
      may_fail: Steps that need not be done.
      instead_of: Step of a fallback -> the step that it runs in place of.
    """

    count: int = 0
    pairs: list[tuple[int, int]] = attrs.field(factory=list)
    may_fail: set[int] = attrs.field(factory=set)
    instead_of: dict[int, int] = attrs.field(factory=dict)

    def visit(self, node: Wire) -> _Ends:
        kind = node["__type__"]
        if kind == "job":
            return self._job(node)
        if kind == "with_delay":
            return self.visit(node["task"])
        # Nodes without jobs do not order their neighbours.
        children = [ends for ends in map(self.visit, node["children"]) if ends.first]
        return self._group(children) if kind == "group" else self._chain(children)

    def _job(self, job: Wire) -> _Ends:
        group = group_of(job)
        if group is not None:
            return self._needing(group)
        number, self.count = self.count, self.count + 1
        if DEATH_KEY in job:
            self.may_fail.add(number)
        fallback = fallback_of(job)
        if fallback is None:
            return _Ends([number], [number])
        instead = self.visit(fallback)
        for place in range(number + 1, self.count):
            self.instead_of.setdefault(place, number)
        return _Ends([number], [number, *instead.last])

    def _needing(self, group: Wire) -> _Ends:
        first = self.count
        ends = self.visit(group)
        # What follows does not wait for all members, and some of them may be dead.
        self.may_fail.update(range(first, self.count))
        return _Ends(ends.first, [])

    @staticmethod
    def _group(children: list[_Ends]) -> _Ends:
        together = _Ends([], [])
        for ends in children:
            together.first.extend(ends.first)
            together.last.extend(ends.last)
        return together

    def _chain(self, children: list[_Ends]) -> _Ends:
        last: list[int] = []
        for ends in children:
            self.pairs.extend(itertools.product(last, ends.first))
            last = ends.last or last
        if not children:
            return _Ends([], [])
        return _Ends(children[0].first, children[-1].last)
