"""The plain gem: each Redis command is a step of its own, and nothing remembers what was counted."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from .ours import Protocol
from .world import NO_STEP, Flow, Move, State, Worker, World, sorted_with, without

IDLE: Worker = ("ruby idle", NO_STEP, 0, 0, ())

#: Kinds of faults that can befall it.
EVERY = frozenset({"crash", "raise", "duplicate", "expire"})


class Gem(World):
    """Ruby workers with the plain gem.

    A worker that is killed loses nothing of its queue here: its job is taken
    again, as with a reliable fetch (with Sidekiq's own, each job of a killed
    worker is lost before the gem has any part in it).

    Parameters:
      mine: Bits of the steps that these workers take; all unless given.
    """

    def __init__(
        self, flow: Flow, *, faults: int, kinds: frozenset[str] = EVERY, workers: int = 2, mine: int = -1
    ) -> None:
        super().__init__(flow, kinds, mine)
        self.faults = faults
        self.workers = workers

    def first(self) -> State:
        state = self.initial([IDLE] * self.workers, self.faults)
        return self.write_plan(state._replace(started=True), self.flow.first)

    def problem(self, state: State) -> str:
        return self.places(state)

    def moves(self, state: State) -> Iterator[Move]:
        yield from self.of_workers(state)
        for step, which in state.retry:
            back = state._replace(retry=without(state.retry, (step, which)), queue=sorted_with(state.queue, step))
            yield ((self.flow.names[step], " is due: from retry to its queue"), back)
        yield from self.outside(state)

    def of_workers(self, state: State) -> Iterator[Move]:
        for at, worker in enumerate(state.workers):
            if not at or worker != state.workers[at - 1]:
                yield from self.of_worker(state, at, worker)

    def of_worker(self, state: State, at: int, worker: Worker) -> Iterator[Move]:
        """What one worker can do, and what can happen to it.

        Its ``receipt`` is unused; ``more`` is the number of the callback (0 = the
        top), or of what is written next.
        """
        what, step, _, more, _ = worker
        if not what.startswith("ruby "):
            return
        names, stack = self.flow.names, self.flow.stacks[step]
        if what == "ruby idle":
            for found in sorted(set(state.queue)):
                if self.mine >> found & 1:
                    taken = state._replace(queue=without(state.queue, found))
                    yield ((names[found], " starts (Ruby)"), self.set_worker(taken, at, ("ruby run", found, 0, 0, ())))
            return
        name = names[step]
        if what == "ruby run":
            ended = state._replace(ended=state.ended | 1 << step)
            yield ((name, " ends"), self.next_callback(ended, at, step, 0))
        elif what == "ruby decr":
            value, ran, units = state.barriers[stack[more].barrier]
            # DECR of a key that is gone makes it anew, without TTL.
            value = (value or 0) - 1
            counted = self.set_barrier(state, stack[more].barrier, (value, ran, units))
            label = self.flow.labels[stack[more].barrier]
            if value > 0:
                yield ((name, ": DECR ", label, " -> ", str(value)), self.finish(counted, at, step))
            else:
                then = self.set_worker(counted, at, ("ruby incrby", step, 0, more, ()))
                yield ((name, ": DECR ", label, " -> ", str(value)), then)
        elif what == "ruby incrby":
            barrier = stack[more].barrier
            value, ran, units = state.barriers[barrier]
            ran = (ran or 0) + 1
            marked = self.set_barrier(state, barrier, (value, ran, units))
            words = (name, ": INCRBY its _ran -> ", str(ran))
            if ran != 0:
                yield ((*words, ", not released"), self.finish(marked, at, step))
            elif stack[more].kind == "f":
                yield ((*words, ", released"), self.set_worker(marked, at, (f"ruby plan {barrier}", step, 0, 0, ())))
            else:
                yield ((*words, ", released"), self.next_callback(marked, at, step, more + 1))
        else:
            yield from self.enqueue(state, at, worker)
        if not state.faults:
            return
        left = state._replace(faults=state.faults - 1)
        if "crash" in self.kinds:
            again = self.set_worker(left, at, IDLE)._replace(queue=sorted_with(state.queue, step))
            where = _WHERE.get(what, "while it enqueues what follows")
            yield (("the worker is killed ", where, "; ", name, " is taken again"), again)
        if "raise" in self.kinds and what.startswith("ruby plan"):
            failed = self.set_worker(left, at, IDLE)._replace(retry=tuple(sorted((*state.retry, (step, state.faults)))))
            yield (("enqueueing what follows ", name, " raises: ", name, " goes to retry"), failed)

    def enqueue(self, state: State, at: int, worker: Worker) -> Iterator[Move]:
        """Write what follows: SETEX, SETEX, ..., LPUSH, ..., one after the other."""
        what, step, _, more, _ = worker
        barrier = int(what.split()[-1])
        plan = self.flow.plans[barrier]
        writes = [(made, value) for made, number in plan.barriers for value in (number, None)]
        if more < len(writes):
            made, number = writes[more]
            value, _, units = state.barriers[made]
            if number is None:
                written, words = self.set_barrier(state, made, (value, -1, units)), "its _ran"
            else:
                written, words = self.set_barrier(state, made, (number, None, 0)), self.flow.labels[made]
        else:
            pushed = plan.steps[more - len(writes)]
            written, words = self.push(state, pushed), self.flow.names[pushed]
        more += 1
        if more < len(writes) + len(plan.steps):
            yield ((self.flow.names[step], ": writes ", words), self.set_worker(written, at, (what, step, 0, more, ())))
        else:
            yield ((self.flow.names[step], ": writes ", words), self.finish(written, at, step))

    def next_callback(self, state: State, at: int, step: int, number: int) -> State:
        if number == len(self.flow.stacks[step]):
            return self.finish(state, at, step)
        return self.set_worker(state, at, ("ruby decr", step, 0, number, ()))

    def finish(self, state: State, at: int, step: int) -> State:
        """The middleware returns: the job is done."""
        done = state._replace(jobs=state.jobs - 1, counted=state.counted | 1 << step)
        return self.set_worker(done, at, IDLE)


_WHERE = {
    "ruby run": "while its job runs",
    "ruby decr": "before DECR",
    "ruby incrby": "between DECR and INCRBY",
}


class Mixed:
    """Workers of both languages on one Redis.  Faults befall Python only: Ruby's are the gem's own.

    Parameters:
      ruby: Names of the steps that a Ruby worker takes.
    """

    def __init__(self, flow: Flow, ruby: Collection[str], *, faults: int, kinds: frozenset[str]) -> None:
        theirs = sum(1 << flow.names.index(name) for name in ruby)
        self.python = Protocol(flow, faults=faults, kinds=kinds, workers=1, mine=~theirs)
        self.ruby = Gem(flow, faults=0, kinds=frozenset(), workers=1, mine=theirs)

    def first(self) -> State:
        state = self.python.first()
        return state._replace(workers=(*state.workers, *self.ruby.first().workers))

    def moves(self, state: State) -> Iterator[Move]:
        yield from self.python.moves(state)
        yield from self.ruby.of_workers(state)

    def problem(self, state: State) -> str:
        return self.python.problem(state)

    def ending(self, state: State) -> str:
        return self.python.ending(state)
