"""This package's protocol: each script is one step, whatever happens to its reply."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .world import NO_STEP, Command, Flow, Move, Pairs, State, Worker, World, sorted_with, without

#: A process that has nothing to do.
IDLE: Worker = ("idle", NO_STEP, 0, 0, ())

#: Calls ``Workflow.run()``.
PRODUCER: Worker = ("start", NO_STEP, 0, 0, ())

#: A receipt that is not in use; the states that are kept have small ones.
FRESH = 90

#: All kinds of faults: of the network, of processes, and what comes from outside.
EVERY = frozenset({"late", "crash", "suspect", "raise", "duplicate", "expire", "expire apart", "by hand"})

#: What can be taken away from the protocol, to see that the model misses it.
BREAKS = {
    "gate": "no script asks whether the receipt is in flight",
    "taken out": "advance.lua does not take the job out of flight",
    "units": "a barrier does not remember what it has counted",
    "ran": "a released barrier counts on",
    "barrier check": "a missing barrier is counted down like any other",
    "read before write": "advance.lua takes the job out of flight before it looks at the barriers",
    "plan in the same step": "advance.lua counts first, and takes the plan in a second call",
    "start marker": "start.lua does not look at the marker of the run",
    "fetch twice": "fetch.lua does not look for what the same receipt base took before",
    "late fetch": "fetch.lua does not remember which receipt bases are used up",
    "reconcile": "jobs in flight that no thread knows are not looked for",
    "offered receipt": "the next job is kept under the receipt of the finished one",
    "left step": "advance_group.lua counts the step that releases the barrier, too",
    "group units": "advance_group.lua does not look for what the barrier has counted",
}


class Protocol(World):
    """Workers of this package.

    Parameters:
      broken: What to leave out; a name of :data:`BREAKS`.
      mine: Bits of the steps that these workers take; all unless given.
      keeps: Whether a worker offers a receipt for the next job.
      hands_over: Whether a worker hands over the acknowledgements of steps of a group.
    """

    def __init__(
        self,
        flow: Flow,
        *,
        faults: int,
        kinds: frozenset[str] = EVERY,
        workers: int = 2,
        broken: str = "",
        mine: int = -1,
        keeps: bool = False,
        hands_over: bool = False,
    ) -> None:
        super().__init__(flow, kinds, mine)
        if broken and broken not in BREAKS:
            raise ValueError(f"Unknown break {broken!r}; there are {sorted(BREAKS)}.")
        self.faults = faults
        self.workers = workers
        self.broken = broken
        self.keeps = keeps
        self.hands_over = hands_over

    def first(self) -> State:
        return self.initial([PRODUCER, *[IDLE] * self.workers], self.faults)

    def problem(self, state: State) -> str:
        return self.places(state)

    def moves(self, state: State) -> Iterator[Move]:
        for at, worker in enumerate(state.workers):
            if at and worker == state.workers[at - 1] and worker == IDLE:
                continue  # the same as the one before
            yield from self.of_worker(state, at, worker)
        yield from self.recoveries(state)
        for at, command in enumerate(state.late):
            if at and command == state.late[at - 1]:
                continue
            on_its_way = state._replace(late=without(state.late, command))
            for reached, reply, _ in self.execute(on_its_way, command):
                yield (("late: ", self.say(command), " -> ", reply, ", unheard"), reached)
        for step, which in state.retry:
            yield ((self.flow.names[step], " is due: from retry to its queue"), self.promote(state, step, which))
        yield from self.outside(state)

    # -- workers ---------------------------------------------------------------------

    def of_worker(self, state: State, at: int, worker: Worker) -> Iterator[Move]:
        """What one worker can do, and what can happen to it."""
        what, step, receipt, more, also = worker
        if what.startswith("ruby "):
            return
        names = self.flow.names
        left = state._replace(faults=state.faults - 1)
        if what == "run":
            ended = state._replace(ended=state.ended | 1 << step)
            stack = self.flow.stacks[step]
            planned = 1 if stack and stack[0].kind == "f" else 0
            going_on = ("advance", step, receipt, planned, self.with_offer(step, planned, also))
            yield ((names[step], " ends"), self.set_worker(ended, at, going_on))
            if self.hands_over and stack and stack[0].kind == "n":
                handed = ("idle", NO_STEP, 0, 0, sorted_with(also, (step, receipt)))
                yield ((names[step], " ends, and is handed over"), self.set_worker(ended, at, handed))
            if state.faults and "raise" in self.kinds:
                failing = self.set_worker(left, at, ("retry", step, receipt, state.faults, also))
                yield ((names[step], " raises"), failing)
                dying = self.set_worker(left, at, ("dead", step, receipt, state.faults, also))
                yield ((names[step], " raises for the last time"), dying)
        else:
            if what == "idle" and also and not receipt:
                sending = self.set_worker(state, at, ("group", NO_STEP, 0, 0, also))
                yield (("the acknowledgements that are handed over are due",), sending)
            command = self.command(worker)
            executed = list(self.execute(state, command))
            for reached, reply, taken in executed:
                heard = self.set_worker(reached, at, self.after(worker, reply, taken))
                yield ((self.say(command), " -> ", reply), heard)
            if state.faults and "late" in self.kinds:
                waiting = self.set_worker(left, at, (what, step, command[2], more, also))
                for reached, reply, _ in self.execute(waiting, command):
                    yield ((self.say(command), " -> ", reply, ", the reply is lost"), reached)
                delayed = waiting._replace(late=sorted_with(state.late, command))
                yield ((self.say(command), " is late; its sender repeats it"), delayed)
            if state.faults and "crash" in self.kinds and what != "start":
                for reached, reply, _ in executed:
                    killed = self.set_worker(reached, at, IDLE)._replace(faults=state.faults - 1)
                    yield ((self.say(command), " -> ", reply, ", the worker is killed before it hears it"), killed)
        if state.faults and "crash" in self.kinds and what != "start" and (what != "idle" or also):
            doing = f"while {names[step]} runs" if what == "run" else f"before {self.say(self.command(worker))}"
            yield (("a worker is killed ", doing), self.set_worker(left, at, IDLE))

    def command(self, worker: Worker) -> Command:
        """What a worker sends."""
        what, step, receipt, more, also = worker
        if what == "idle":
            return ("fetch", NO_STEP, receipt or FRESH, more, ())
        if what == "group":
            return (what, step, receipt, more, self.together(also))
        return (what, step, receipt, more, tuple(pair for pair in also if pair[0] == NO_STEP))

    def together(self, handed: Pairs) -> Pairs:
        """The acknowledgements that one command sends: those of the group of the first."""
        top = self.flow.stacks[handed[0][0]][0]
        return tuple(pair for pair in handed if self.flow.stacks[pair[0]][0] == top)

    def with_offer(self, step: int, planned: int, handed: Pairs) -> Pairs:
        """What is handed over, and a new receipt if the plan of that callback has one job for these workers."""
        if not (self.keeps and planned):
            return handed
        steps = self.flow.plans[self.flow.stacks[step][planned - 1].barrier].steps
        if len(steps) != 1 or not self.mine >> steps[0] & 1:
            return handed
        return ((NO_STEP, FRESH), *handed)

    def after(self, worker: Worker, reply: str, taken: Any) -> Worker:
        """What a worker does when it has heard a reply."""
        what, step, receipt, _, also = worker
        handed = tuple(pair for pair in also if pair[0] != NO_STEP)
        idle = ("idle", NO_STEP, 0, 0, handed)
        if what == "start":
            return IDLE
        if what == "idle":
            return ("run", taken, receipt or FRESH, 0, handed) if taken != NO_STEP else idle
        if what == "group":
            return self.after_group(handed, taken)
        if reply.startswith("PLAN"):
            planned = int(reply.split()[1])
            return (what, step, receipt, planned, self.with_offer(step, planned, handed))
        if reply.startswith("EXPIRED"):
            return ("dead", step, receipt, 0, handed)
        if reply.startswith("KEPT"):
            (offered,) = (other for pair_step, other in also if pair_step == NO_STEP)
            return ("run", taken, receipt if self.broken == "offered receipt" else offered, 0, handed)
        return idle

    def after_group(self, handed: Pairs, left: Pairs) -> Worker:
        """Settle the first step that a group's call has left by itself; others stay handed over."""
        sent = self.together(handed)
        others = tuple(pair for pair in handed if pair not in sent)
        if not left:
            return ("idle", NO_STEP, 0, 0, others)
        ((step, receipt), *more) = left
        return ("advance", step, receipt, 0, tuple(sorted((*others, *more))))

    # -- scripts -----------------------------------------------------------------------

    def execute(self, state: State, command: Command) -> Iterator[tuple[State, str, Any]]:
        """A command reaches Redis: the state after it, the reply, and the step that was fetched, or those left."""
        name, step, receipt, more, also = command
        if name == "fetch":
            yield from self.fetch(state, receipt, more)
        elif name == "start":
            yield (*self.start(state), NO_STEP)
        elif name == "advance":
            offered = also[0][1] if also else 0
            reached, reply = self.advance(state, step, receipt, more, offered)
            yield reached, reply, self.kept(reached, receipt, offered) if reply.startswith("KEPT") else NO_STEP
        elif name == "group":
            yield self.advance_group(state, also)
        elif name == "recover":
            yield (*self.recover(state, step, receipt), NO_STEP)
        else:
            yield (*self.fail(state, step, receipt, name, more), NO_STEP)

    def start(self, state: State) -> tuple[State, str]:
        if state.started and self.broken != "start marker":
            return state, "STARTED"
        return self.write_plan(state._replace(started=True), self.flow.first), "DONE"

    def fetch(self, state: State, receipt: int, used_up: int) -> Iterator[tuple[State, str, int]]:
        before = dict(state.flight).get(receipt)
        if before is not None and self.broken != "fetch twice":
            yield state, f"{self.flow.names[before]}, as before", before
            return
        if used_up and self.broken not in ("late fetch", "fetch twice"):
            yield state, "nothing, its receipt is used up", NO_STEP
            return
        steps = [step for step in sorted(set(state.queue)) if self.mine >> step & 1]
        if not steps:
            yield state, "nothing", NO_STEP
        for step in steps:
            flight = {**dict(state.flight), receipt: step}
            taken = state._replace(queue=without(state.queue, step), flight=tuple(sorted(flight.items())))
            yield self.use_up(taken, receipt), self.flow.names[step], step

    def use_up(self, state: State, receipt: int) -> State:
        """A fetch has taken a job: what is under way of it takes no other."""
        workers = [(*w[:3], 1, w[4]) if w[0] == "idle" and w[2] == receipt else w for w in state.workers]
        late = [(*c[:3], 1, c[4]) if c[0] == "fetch" and c[2] == receipt else c for c in state.late]
        return state._replace(workers=tuple(workers), late=tuple(sorted(late)))

    def kept(self, state: State, receipt: int, offered: int) -> int:
        """The step that is in flight under an offered receipt; NO_STEP for none."""
        return dict(state.flight).get(receipt if self.broken == "offered receipt" else offered, NO_STEP)

    def may_keep(self, state: State, following: int) -> bool:
        """Return True if no other job waits in the queue of the next job of a chain."""
        return not any(self.mine >> waiting & 1 for waiting in state.queue)

    def advance(self, state: State, step: int, receipt: int, planned: int, offered: int = 0) -> tuple[State, str]:
        """Advance a run past a finished step.

        Parameters:
          offered: The receipt that is offered for the next job; 0 for none.
        """
        in_flight = receipt in dict(state.flight)
        if not in_flight and self.broken != "gate":
            return state, "GONE" if self.kept(state, receipt, offered) == NO_STEP else "KEPT, as before"
        if in_flight and self.broken == "read before write":
            state = self.take(state, step, receipt)
        stack = self.flow.stacks[step]
        # Reads.
        unit, fire = 1 << step, 0
        counts: list[tuple[int, int, bool]] = []
        for number, (barrier, kind) in enumerate(stack, 1):
            value, ran, units = state.barriers[barrier]
            if value is None or ran is None:
                if self.broken != "barrier check":
                    return state, f"EXPIRED {self.flow.labels[barrier]}"
                value, ran = value or 0, -1 if ran is None else ran
            if (ran != -1 and self.broken != "ran") or (units & unit and self.broken != "units"):
                break
            released = value - 1 <= 0 if self.broken != "barrier check" else value == 1
            counts.append((barrier, unit, released))
            if not released:
                break
            if kind == "f":
                fire = number
                break
            unit = self.flow.unit(barrier)
        if fire and planned != fire and self.broken != "plan in the same step":
            return state, f"PLAN {fire}"
        # Writes.
        if in_flight and self.broken not in ("taken out", "read before write", "plan in the same step"):
            state = self.take(state, step, receipt)
        for barrier, unit, released in counts:
            value, ran, units = state.barriers[barrier]
            if released:
                state = self.set_barrier(state, barrier, ((value or 0) - 1, 0, 0))
            else:
                state = self.set_barrier(state, barrier, ((value or 0) - 1, -1 if ran is None else ran, units | unit))
        if self.broken == "plan in the same step":
            return self.second_call(state, step, receipt, planned, fire)
        if fire:
            before = state
            state = self.write_plan(state, self.flow.plans[stack[fire - 1].barrier])
            (following, *_) = self.flow.plans[stack[fire - 1].barrier].steps
            if offered and self.may_keep(before, following):
                kept = (receipt if self.broken == "offered receipt" else offered, following)
                flight = sorted_with(state.flight, kept)
                state = state._replace(queue=without(state.queue, following), flight=flight)
                return state, f"KEPT, {self.flow.names[following]} is in flight"
        return state, "DONE" if not fire else f"DONE, pushes {self.pushed_by(stack[fire - 1].barrier)}"

    def advance_group(self, state: State, pairs: Pairs) -> tuple[State, str, Pairs]:
        """Advance a run past finished steps of one group: the state, the reply, and the steps that are left."""
        barrier = self.flow.stacks[pairs[0][0]][0].barrier
        value, ran, units = state.barriers[barrier]
        if value is None or ran is None:
            return state, f"EXPIRED {self.flow.labels[barrier]}", pairs
        known, counted = 0 if self.broken == "group units" else units, 0
        left: list[tuple[int, int]] = []
        for step, receipt in pairs:
            new = ran == -1 and not known >> step & 1
            if new and value - counted <= 1 and self.broken != "left step":
                left.append((step, receipt))
                continue
            in_flight = receipt in dict(state.flight)
            if in_flight:
                state = self.take(state, step, receipt)
            if new and in_flight:
                counted += 1
                known |= 1 << step
        if counted:
            state = self.set_barrier(state, barrier, (value - counted, ran, known | units))
        return state, "DONE" if not left else f"DONE, {self.flow.names[left[0][0]]} is left", tuple(left)

    def take(self, state: State, step: int, receipt: int) -> State:
        """HDEL of the receipt: the step is done."""
        flight = without(state.flight, (receipt, dict(state.flight)[receipt]))
        return state._replace(flight=flight, jobs=state.jobs - 1, counted=state.counted | 1 << step)

    def second_call(self, state: State, step: int, receipt: int, planned: int, fire: int) -> tuple[State, str]:
        """As it would be if the barriers were counted by one call, and the plan written by the next."""
        if fire and planned != fire + 10:
            return state, f"PLAN {fire + 10}"
        if receipt in dict(state.flight):
            state = self.take(state, step, receipt)
        if planned > 10:
            barrier = self.flow.stacks[step][planned - 11].barrier
            state = self.write_plan(state, self.flow.plans[barrier])
        return state, "DONE"

    def fail(self, state: State, step: int, receipt: int, where: str, which: int) -> tuple[State, str]:
        found = dict(state.flight).get(receipt)
        if found is None and self.broken != "gate":
            return state, "GONE"
        if found is not None:
            state = state._replace(flight=without(state.flight, (receipt, found)))
        if where == "retry":
            # ZADD: the same member is there once.
            return state._replace(retry=tuple(sorted({*state.retry, (step, which)}))), "DONE, in retry"
        return state._replace(dead=sorted_with(state.dead, step)), "DONE, in dead"

    def recover(self, state: State, step: int, receipt: int) -> tuple[State, str]:
        found = dict(state.flight).get(receipt)
        if found is None and self.broken != "gate":
            return state, "0 jobs"
        flight = state.flight if found is None else without(state.flight, (receipt, found))
        back = step if found is None else found
        return state._replace(flight=flight, queue=sorted_with(state.queue, back)), "back in its queue"

    def promote(self, state: State, step: int, which: int) -> State:
        return state._replace(retry=without(state.retry, (step, which)), queue=sorted_with(state.queue, step))

    # -- other processes ---------------------------------------------------------------------

    def recoveries(self, state: State) -> Iterator[Move]:
        """Jobs in flight whose worker is dead, seems to be, or does not know of them."""
        held = {receipt for _, _, receipt, _, also in state.workers for receipt in (receipt, *(r for _, r in also))}
        left = state._replace(faults=state.faults - 1)
        for receipt, step in state.flight:
            command = ("recover", step, receipt, 0, ())
            name = self.flow.names[step]
            if receipt not in held:
                if self.broken == "reconcile":
                    continue
                yield (
                    (name, " is in flight, and no thread knows it: back to its queue"),
                    self.recover(state, step, receipt)[0],
                )
                if state.faults and "late" in self.kinds:
                    delayed = left._replace(late=sorted_with(state.late, command))
                    yield (("the recovery of ", name, " is late, and repeated"), delayed)
            elif state.faults and "suspect" in self.kinds:
                suspected = self.recover(left, step, receipt)[0]
                yield (("the worker that has ", name, " is taken for dead: back to its queue"), suspected)

    # -- words ------------------------------------------------------------------------------------

    def say(self, command: Command) -> str:
        name, step, _, _, also = command
        if name == "group":
            return f"advance_group {self.named(sum(1 << handed for handed, _ in also))}"
        if step == NO_STEP:
            return name
        return f"{name} {self.flow.names[step]}" if name in ("advance", "recover") else f"fail {self.flow.names[step]}"

    def pushed_by(self, barrier: int) -> str:
        plan = self.flow.plans[barrier]
        return " and ".join(self.flow.names[step] for step in plan.steps)
