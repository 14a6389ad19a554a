"""What there is: the workflow, Redis, the workers, the network; and what comes from outside."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

#: A tree: the name of a step, or ("chain" | "group", children).
Tree = Any

#: Steps and their receipts.
Pairs = tuple[tuple[int, int], ...]

#: What a worker does: (what, step, receipt, more, also); 0 stands for no receipt.
#: ``also``: the acknowledgements that are handed over, and with NO_STEP as its step the
#: receipt that is offered for the next job.
Worker = tuple[str, int, int, int, Pairs]

#: A command on its way: (name, step, receipt, more, also).
Command = tuple[str, int, int, int, Pairs]

#: BARRIER, BARRIER_ran (None: the key does not exist), and BARRIER:u as bits.
Barrier = tuple["int | None", "int | None", int]

NO_BARRIER: Barrier = (None, None, 0)
NO_STEP = -1


class State(NamedTuple):
    """Everything that decides what can happen next."""

    queue: tuple[int, ...]
    #: (receipt, step)
    flight: tuple[tuple[int, int], ...]
    #: (step, which failure): two failures of a step are two members of the set.
    retry: tuple[tuple[int, int], ...]
    dead: tuple[int, ...]
    barriers: tuple[Barrier, ...]
    workers: tuple[Worker, ...]
    #: Commands whose sender waits no longer.
    late: tuple[Command, ...]
    #: The marker of the run.
    started: bool
    #: Bits: steps that were pushed, whose actor has ended, that were counted.
    pushed: int
    ended: int
    counted: int
    #: How many jobs there must be, wherever they are.
    jobs: int
    #: How many faults may still happen.
    faults: int
    #: The property that does not hold, and of which step.
    problem: str = ""


class Callback(NamedTuple):
    """One entry of a callback stack."""

    barrier: int
    #: As in ``store.runs.Walk``: "f" has a continuation, "n" goes on with the next.
    kind: str


class Plan(NamedTuple):
    """What starting a node writes."""

    barriers: tuple[tuple[int, int], ...]
    steps: tuple[int, ...]


class Flow:
    """A workflow, worked out: each step's stack, and what each barrier's release starts.

    Attributes:
      names: Of the steps.
      stacks: Of each step, from the top.
      plans: Barrier -> what its release starts.
      first: What the start of the run writes.
      before: Of each step: bits of those that must have ended.
      labels: Of the barriers.
    """

    def __init__(self, tree: Tree) -> None:
        self.names: list[str] = []
        self.labels: list[str] = []
        self.stacks: list[tuple[Callback, ...]] = []
        self.before: list[int] = []
        self.plans: dict[int, Plan] = {}
        barriers, steps = self._start(tree, (), 0)
        self.first = Plan(tuple(barriers), tuple(steps))

    def _start(self, tree: Tree, stack: tuple[Callback, ...], before: int) -> tuple[list[tuple[int, int]], list[int]]:
        if isinstance(tree, str):
            self.names.append(tree)
            self.stacks.append(stack)
            self.before.append(before)
            return [], [len(self.names) - 1]
        kind, children = tree
        if kind == "chain" and len(children) == 1:
            return self._start(children[0], stack, before)
        barrier = len(self.labels)
        if kind == "chain":
            self.labels.append("")
            count = len(self.names)
            made, steps = self._start(children[0], (Callback(barrier, "f"), *stack), before)
            # All steps of the first child have a number now; those of the rest have not.
            ended = sum(1 << n for n in range(count, len(self.names)))
            follows = len(self.names)
            below, first = self._start(("chain", children[1:]), stack, before | ended)
            self.plans[barrier] = Plan(tuple(below), tuple(first))
            self.labels[barrier] = f"the barrier before {self.names[follows]}"
            return [(barrier, 1), *made], steps
        self.labels.append("")
        made, steps = [(barrier, len(children))], []
        first_child = len(self.names)
        for child in children:
            below, first = self._start(child, (Callback(barrier, "n"), *stack), before)
            made += below
            steps += first
        self.labels[barrier] = f"the barrier of the group ({', '.join(self.names[first_child:])})"
        return made, steps

    @property
    def all_steps(self) -> int:
        return (1 << len(self.names)) - 1

    def unit(self, barrier: int) -> int:
        """The bit of a finished inner barrier in the units of an outer one."""
        return 1 << (len(self.names) + barrier)


def without(values: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    """One of the values taken out."""
    at = values.index(value)
    return values[:at] + values[at + 1 :]


def sorted_with(values: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    return tuple(sorted((*values, value)))


#: A transition: its name in words, as parts that are joined when they are printed, and where it leads.
Move = tuple[tuple[str, ...], State]

#: All kinds of faults that come from outside the workers.
OUTSIDE = frozenset({"duplicate", "expire", "by hand"})


class World:
    """What both protocols have in common.

    Parameters:
      kinds: The kinds of faults that may happen.
      mine: Bits of the steps that these workers take, and that may come twice.
    """

    def __init__(self, flow: Flow, kinds: frozenset[str], mine: int = -1) -> None:
        self.flow = flow
        self.kinds = kinds
        self.mine = mine

    def initial(self, workers: Sequence[Worker], faults: int) -> State:
        """Nothing has happened yet."""
        barriers = (NO_BARRIER,) * len(self.flow.labels)
        return State((), (), (), (), barriers, tuple(workers), (), False, 0, 0, 0, 0, faults)

    # -- what protocols write with ---------------------------------------------

    def push(self, state: State, step: int) -> State:
        """Push a step as part of the run."""
        bit = 1 << step
        problem = state.problem
        if state.pushed & bit:
            problem = f"doubled: {self.flow.names[step]} is pushed twice"
        elif self.flow.before[step] & ~state.ended:
            missing = self.named(self.flow.before[step] & ~state.ended)
            problem = f"early: {self.flow.names[step]} is pushed before the end of {missing}"
        return state._replace(
            queue=sorted_with(state.queue, step), pushed=state.pushed | bit, jobs=state.jobs + 1, problem=problem
        )

    def write_plan(self, state: State, plan: Plan) -> State:
        """Make the barriers of a plan, and push its steps, at once."""
        for barrier, value in plan.barriers:
            state = self.set_barrier(state, barrier, (value, -1, 0))
        for step in plan.steps:
            state = self.push(state, step)
        return state

    def set_barrier(self, state: State, barrier: int, value: Barrier) -> State:
        barriers = state.barriers
        return state._replace(barriers=(*barriers[:barrier], value, *barriers[barrier + 1 :]))

    def set_worker(self, state: State, at: int, worker: Worker) -> State:
        workers = state.workers
        return state._replace(workers=(*workers[:at], worker, *workers[at + 1 :]))

    def named(self, bits: int) -> str:
        return ", ".join(name for n, name in enumerate(self.flow.names) if bits >> n & 1)

    # -- what comes from outside -------------------------------------------------

    def outside(self, state: State) -> Iterator[Move]:
        """Faults that no worker makes."""
        if not state.faults:
            return
        left = state._replace(faults=state.faults - 1)
        names = self.flow.names
        if "duplicate" in self.kinds:
            for step in range(len(names)):
                if state.pushed & self.mine & 1 << step:
                    yield (
                        (names[step], " is delivered once more (a duplicate in its queue)"),
                        left._replace(queue=sorted_with(state.queue, step), jobs=state.jobs + 1),
                    )
        if "by hand" in self.kinds:
            for step in sorted(set(state.dead)):
                yield (
                    ("a person retries ", names[step], ": from dead to its queue"),
                    left._replace(dead=without(state.dead, step), queue=sorted_with(state.queue, step)),
                )
        if "expire" in self.kinds:
            for barrier, (value, ran, units) in enumerate(state.barriers):
                if value is None and ran is None:
                    continue
                label = self.flow.labels[barrier]
                yield ((label, " expires"), self.set_barrier(left, barrier, NO_BARRIER))
                if "expire apart" in self.kinds and value is not None and ran is not None:
                    yield (
                        (label, " expires, its _ran a moment later"),
                        self.set_barrier(left, barrier, (None, ran, units)),
                    )
                    yield (
                        (label, "'s _ran expires a moment earlier"),
                        self.set_barrier(left, barrier, (value, None, units)),
                    )

    # -- what must hold ---------------------------------------------------------------

    def places(self, state: State) -> str:
        """The problem of a state in which a job is nowhere, or in two places."""
        held = sum(1 for what, *_ in state.workers if what.startswith("ruby ") and what != "ruby idle")
        found = len(state.queue) + len(state.flight) + len(state.retry) + len(state.dead) + held
        if found < state.jobs:
            return f"lost: {state.jobs} jobs should be somewhere, {found} are"
        if found > state.jobs:
            return f"place: {found} jobs are somewhere, {state.jobs} should be"
        return ""

    def ending(self, state: State) -> str:
        """How a state ends in which nothing can move: "done", "dead" or a problem."""
        if not state.started:
            return "done"
        waiting = [step for step in state.dead if not state.counted >> step & 1]
        for step in range(len(self.flow.names)):
            if state.counted >> step & 1:
                continue
            if not any(step == other or self.flow.before[step] >> other & 1 for other in waiting):
                return f"lost: nothing can move, {self.flow.names[step]} was not done, and nothing is in dead for it"
        return "dead" if state.dead else "done"


def canonical(state: State) -> State:
    """The same state with its interchangeable parts in order: workers, and the numbers of receipts."""
    workers = sorted(state.workers, key=lambda w: (w[0], w[1], w[3], w[2], w[4]))
    numbers = itertools.count(1)
    named = {0: 0}

    def name(receipt: int, also: Pairs) -> None:
        for each in (receipt, *(other for _, other in also)) if also else (receipt,):
            if each not in named:
                named[each] = next(numbers)

    for _, _, receipt, _, also in workers:
        name(receipt, also)
    flight = sorted((named.get(receipt, 99), step, receipt) for receipt, step in state.flight)
    for _, _, receipt in flight:
        if receipt not in named:
            named[receipt] = next(numbers)
    late = sorted(
        [(what, step, more, named.get(receipt, 99), receipt, also) for what, step, receipt, more, also in state.late]
    )
    for *_, receipt, also in late:
        name(receipt, also)

    def renamed(also: Pairs) -> Pairs:
        return tuple(sorted([(step, named[receipt]) for step, receipt in also])) if also else also

    return state._replace(
        workers=tuple(
            [(what, step, named[receipt], more, renamed(also)) for what, step, receipt, more, also in workers]
        ),
        flight=tuple(sorted([(named[receipt], step) for _, step, receipt in flight])),
        late=tuple(
            sorted([(what, step, named[receipt], more, renamed(also)) for what, step, more, _, receipt, also in late])
        ),
    )
