"""Scenario: the runs of one test of the sweep, how they are begun, what is done to them, and how they end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ..trees import Shape, before, build

#: A step as its actor gets it: what it is to do beyond telling that it runs.
Options = Mapping[str, Any]

#: The callbacks of a run count as steps with these numbers.
CALLS = {"success": 10_000, "failure": 10_001, "complete": 10_002}

#: What is sent with a signal.
DATA = {"by": "sweep"}


def run_id(number: int) -> str:
    """The id of a scenario's run."""
    return f"00000000-0000-4000-8000-{number:012d}"


@attrs.frozen
class End:
    """How a run ends.

    Attributes:
      state: By its record.
      calls: The callbacks that are called, and the state that they are given; ``success`` is given none.
      never: Steps that must not start.
      maybe: Steps that need not run.
      counted: Steps that must be done by its record; those that may run, and their number is not known, are not.
    """

    state: str = "done"
    calls: Mapping[str, str] = attrs.field(factory=dict)
    never: frozenset[int] = frozenset()
    maybe: frozenset[int] = frozenset()
    counted: bool = True


@attrs.frozen
class Run:
    """One workflow, or (``plain``) single jobs without one.

    Attributes:
      shape: The tree; see ``tests.trees``.
      options: Step number -> what it does; see ``worker.work``.
      by: How it is begun: ``starter`` (before the sweep, unhurt), ``step`` (by a
        step of another run), ``producer`` (by the process that is hurt).
      how: ``job`` (a class name), ``message`` (an actor's message), ``typed``
        (attrs classes), ``template``; of single jobs, ``many``: all in one call.
      seed: What the run's memory is to hold from the beginning.
      begun: The tree that is started, and the numbers of its steps, if steps add
        the others while the run runs (their option ``grows``); by default ``shape``.
      calls: The callbacks that it has, of :data:`CALLS`.
      steers: What a producer does to it, one after the other: see ``steering.ACTIONS``.
      end: How it ends.
    """

    shape: Shape
    options: Mapping[int, Options] = attrs.field(factory=dict)
    by: str = "starter"
    how: str = "job"
    plain: bool = False
    seed: Mapping[str, Any] = attrs.field(factory=dict)
    begun: tuple[Shape, tuple[int, ...]] | None = None
    calls: tuple[str, ...] = ()
    steers: tuple[str, ...] = ()
    end: End = End()
    count: int = attrs.field(init=False)
    pairs: frozenset[tuple[int, int]] = attrs.field(init=False)

    @count.default
    def _count(self) -> int:
        return build(self.shape, _Counted)[1]

    @pairs.default
    def _pairs(self) -> frozenset[tuple[int, int]]:
        return frozenset() if self.plain else frozenset(before(self.shape))

    def tree(self, step: Any) -> Any:
        """Build the tree that is started; ``step`` makes the step of a number."""
        shape, numbers = self.begun or (self.shape, range(self.count))
        return build(shape, lambda index: step(numbers[index]))[0]

    def memory(self) -> dict[str, Any]:
        """What the run's memory holds at the end."""
        found = dict(self.seed)
        for number, options in self.options.items():
            if "out" in options:
                found[f"step{number}"] = output(number, options)
            if "waits" in options:
                found[signal_of(number)] = DATA
        return found

    def ends(self) -> set[int]:
        """The steps and callbacks that must end."""
        return set(range(self.count)) - self.end.never - self.end.maybe | {CALLS[name] for name in self.end.calls}

    def done(self) -> int:
        """The number of steps that are done in the end, with those that only wait."""
        waiting = sum("waits" in options or "late" in options for options in self.options.values())
        stopped = sum(1 for options in self.options.values() if options.get("dies") == "stops")
        left = len(self.end.never | self.end.maybe)
        return self.count + waiting - stopped - left + ("success" in self.end.calls)


def signal_of(number: int) -> str:
    """The signal for which a step waits."""
    return f"signal{number}"


class _Counted:
    """Stands for a job where only their number matters."""

    def __init__(self, number: int) -> None:
        self.number = number


def output(number: int, options: Options) -> str:
    """What a step returns; as long as its option says."""
    length: int = options["out"]
    return (f"{number:06d}" * (length // 6 + 1))[:length]


@attrs.frozen
class Scenario:
    """One of the tests of the sweep.

    Attributes:
      what: For ``--list``.
      hurt: Which process is hurt: ``worker``, or ``producer``.
      handshakes: What opens a connection counts as well; the same everywhere,
        so two scenarios are enough.
      every: Of the first ``dense`` commands, every so many-th is a point of a
        mode; the modes take turns.
      stride: The same behind them.
      threads: Of the workers.
      references: Chains are kept by reference.
      doomed: A worker dies with jobs in flight before the sweep begins.
      term: The worker is stopped with TERM after so many starts.
      mends: Dead jobs are retried by hand.
      keeps: The keeper does not wait long between two looks.
      prepared: A worker has done all that can be done before the sweep begins.
      steered: When so many steps have started, another process pauses the first run, and resumes it.
      patience: Seconds that the hurt process has to finish by itself.
    """

    name: str
    what: str
    runs: tuple[Run, ...]
    hurt: str = "worker"
    handshakes: bool = False
    every: int = 1
    dense: int = 400
    stride: int = 1
    threads: int = 2
    references: bool = False
    doomed: bool = False
    term: int = 0
    mends: bool = False
    keeps: bool = False
    prepared: bool = False
    steered: int = 0
    patience: float = 8.0

    def points(self, commands: int, offset: int = 0) -> list[int]:
        """The numbers of the commands that are hurt in one mode, of so many."""
        strides = ((k, self.every if k <= self.dense else self.stride) for k in range(1, commands + 1))
        return [k for k, stride in strides if (k + offset) % stride == 0]


def chain(*children: Shape) -> Shape:
    """The shape of a chain."""
    return ("chain", list(children))


def group(*children: Shape) -> Shape:
    """The shape of a group."""
    return ("group", list(children))


def delay(milliseconds: int, child: Shape) -> Shape:
    """The shape of a node with a delay."""
    return ("delay", milliseconds, child)
