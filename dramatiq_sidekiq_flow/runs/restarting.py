"""Restarts of dead steps of a run, with all that comes after them, also if that has run before."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence

import attrs

from ..errors import CannotRetry, FlowError, shortened
from ..store import job_search, keys, run_records, run_restart
from ..store.job_search import Place
from ..store.outcomes import Done, StageLost, Taken
from ..store.run_records import Record
from ..store.run_restart import Restart
from ..wire.later_steps import count_first, later_steps
from ..wire.lifetimes import barrier_ttl
from ..wire.nodes import Wire
from ..wire.payload import Payload
from ..wire.tree_nodes import CatchNode
from ..workflow.engine import Engine
from ..workflow.rebuilt_tree import rebuilt, restored
from ..workflow.transport import pour_committed
from .run_reader import RunReader, read_tree
from .run_sweep import Sweep
from .step_codes import CAUGHT, LOST, PARKED, QUEUED, RETRY, RUNNING, SCHEDULED, SIGNAL, UNKNOWN, StepCodes
from .unknown_run import unknown_run

#: Codes of steps that may go on.
OPEN = frozenset((RUNNING, QUEUED, SCHEDULED, SIGNAL, RETRY, PARKED, UNKNOWN, LOST))

#: Looks at a run whose dead jobs leave ``dead`` meanwhile.
MOST_LOOKS = 5


@attrs.frozen
class DeadStep:
    """A dead job of a run.

    Attributes:
      member: As it is in ``dead``.
      payload: As it was in its run.
      has_left: True if the run went on past it.
    """

    member: bytes
    payload: Payload
    has_left: bool

    @property
    def number(self) -> int:
        """Its number."""
        return self.payload.step or 0


class Restarting:
    """Starts dead steps of runs anew, with what comes after them."""

    def __init__(self, engine: Engine, reader: RunReader, sweep: Sweep) -> None:
        self.engine = engine
        self.connection = engine.broker.connection
        self.reader = reader
        self.sweep = sweep

    def restart(self, run_id: str) -> int:
        """Start the dead steps of a run anew; return their number, 0 if the run went on past none of them.

        Raises:
          UnknownRun: if it has no record.
          CannotRetry: if other steps of it are at work, or another run has its unique key.
        """
        for _ in range(MOST_LOOKS):
            started = self._try(run_id)
            if started is not None:
                return started
        raise CannotRetry(f"The dead jobs of the run {shortened(run_id)} move: retry it again later.", run_id)

    def _try(self, run_id: str) -> int | None:
        """As :meth:`restart`, once; None if a dead job has moved meanwhile."""
        record = run_records.read(self.connection, run_id)
        if record is None:
            raise unknown_run(run_id, "so it cannot be retried")
        dead = list(self._dead(run_id))
        if record.head.state == "cancelled" or not any(step.has_left for step in dead):
            return 0
        codes = self._codes(run_id)
        extent = Extent.of(codes, [step.number for step in dead])
        first = [step.payload for step in dead if step.number in extent.first]
        return self._write(run_id, first, _forgotten(record, codes, dead, extent)) if first else 0

    def _codes(self, run_id: str) -> StepCodes:
        """Read the states of the steps of a run that is at rest.

        Raises:
          CannotRetry: if it is not, or if its tree is not known.
        """
        view = self.reader.view(run_id)
        if view.codes is None or view.open_codes & OPEN:
            raise CannotRetry(
                f"Steps of the run {shortened(run_id)} are at work, or wait: wait until it is at rest (Runs.wait), or "
                "cancel it, before you start failed steps and what comes after them.",
                run_id,
            )
        return view.codes

    def _dead(self, run_id: str) -> Iterator[DeadStep]:
        """Yield the dead jobs of a run that are steps."""
        for job in job_search.search(self.connection, run_id, [Place("dead", keys.DEAD)]):
            payload = self.sweep.payload(run_id, job.payload)
            has_left = payload is None
            if payload is None:
                with contextlib.suppress(FlowError):
                    payload = restored(job.payload, self.engine.stacks.retrieve)
            if payload is not None and payload.run_id == run_id and payload.step is not None:
                yield DeadStep(job.payload, payload, has_left)

    def _tree(self, run_id: str, first: Sequence[Payload]) -> Wire:
        try:
            return rebuilt(first, self.engine.stacks.whole)
        except FlowError as e:
            raise CannotRetry(f"The dead steps of the run {shortened(run_id)} cannot start anew: {e}", run_id) from e

    def _write(self, run_id: str, first: Sequence[Payload], forgotten: Restart) -> int | None:
        """Start steps; return their number, None if one of the jobs has moved."""
        engine, tree = self.engine, self._tree(run_id, first)
        engine.precheck.check(tree)
        ttl = barrier_ttl(tree, ())
        hooks = engine.transport.hooks(None)
        source = engine.source(run_id, first=True, queue=engine.precheck.noop_queue(tree), hooks=hooks)
        plan = engine.plan(tree, (), attrs.evolve(source, dialect=first[0].dialect), ttl)
        memory = engine.outputs.memory_key(first[0])
        while True:
            writes = engine.transport.writes(plan)
            operation = run_restart.restart(run_id, forgotten, writes, ttl=max(ttl, plan.ttl), memory=memory)
            outcome = operation.run(self.connection)
            if not isinstance(outcome, StageLost):
                break
        if isinstance(outcome, Taken):
            raise CannotRetry(
                f"The run {shortened(outcome.run_id)} has the unique key of the run {shortened(run_id)}, and lives: "
                "wait for its end, or cancel it.",
                run_id,
            )
        if not isinstance(outcome, Done):
            return None
        pour_committed(engine.broker, writes, outcome)
        if hooks is not None:
            hooks.after()
        engine.pushed(plan)
        return len(first)


@attrs.frozen
class Extent:
    """The steps of a run that run again.

    Attributes:
      first: Numbers of those that start; the others come after them.
      positions: One byte for each position, 1 for each of these steps.
    """

    first: Collection[int]
    positions: bytes

    @classmethod
    def of(cls, codes: StepCodes, numbers: Sequence[int]) -> Extent:
        """The extent of dead steps, of which some may come after others."""
        after = bytearray(codes.tree.count + 1)
        places = {number: codes.order.position(number) for number in numbers if number in codes}
        for place in places.values():
            for each in later_steps(codes.tree, place):
                after[each.start : each.stop] = b"\1" * len(each)
        first = frozenset(number for number, place in places.items() if not after[place])
        for number in first:
            after[places[number]] = 1
        return cls(first, bytes(after))

    def numbers(self, codes: StepCodes) -> list[int]:
        """The numbers of all these steps, in order."""
        return sorted(codes.order.number(place) for place in range(1, len(self.positions)) if self.positions[place])


def _forgotten(record: Record, codes: StepCodes, dead: Sequence[DeadStep], extent: Extent) -> Restart:
    """Say what the restart of steps takes out of ``dead`` and of the record."""
    numbers = extent.numbers(codes)
    known = frozenset(numbers)
    return Restart(
        members=[step.member for step in dead if step.number in known],
        cleared=_ranges(numbers),
        failed=sorted(known & record.failed.keys()),
        replaced=sorted(known & record.added.keys()),
        caught=_caught(codes, record.failed.keys() - known),
        skipped=_skipped(record, codes, extent, known),
    )


def _caught(codes: StepCodes, failed: Collection[int]) -> int:
    """Count the deaths that the run does not wait for."""
    return sum(codes[number] == CAUGHT for number in failed if number in codes)


def _skipped(record: Record, codes: StepCodes, extent: Extent, known: Collection[int]) -> int:
    """Count the steps that do not run, unless a step fails for good, or is replaced, once more."""
    kept = {number: raw for number, raw in record.added.items() if number not in known}
    tree = read_tree(record.tree)
    assert tree is not None
    shown = count_first(StepCodes(tree, kept).tree) + sum(_ran_instead(codes, extent))
    return max(0, (record.head.total or 0) - shown)


def _ran_instead(codes: StepCodes, extent: Extent) -> Iterator[int]:
    """Yield the number of steps of each fallback that ran, and stays."""
    for position, node in codes.policies.items():
        if isinstance(node, CatchNode) and codes.codes[position] == CAUGHT and not extent.positions[position]:
            yield count_first(node.fallback)


def _ranges(numbers: Sequence[int]) -> list[range]:
    """Join numbers, which are in order."""
    found: list[range] = []
    for number in numbers:
        if found and found[-1].stop == number:
            found[-1] = range(found[-1].start, number + 1)
        else:
            found.append(range(number, number + 1))
    return found
