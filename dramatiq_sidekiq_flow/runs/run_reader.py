"""Reader of one run: its record, the places of its jobs, and the state that follows from both."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from ..errors import PayloadError, UnknownRun, shortened
from ..store import job_search, run_records
from ..store.connection import Connection
from ..store.job_search import FoundJob
from ..store.run_records import Record, RecordHead
from ..wire.tree_nodes import TreeNode, load_tree
from .sightings import Sighting, Sightings
from .snapshot import Run, RunState
from .step import Progress, Step
from .step_codes import (
    CANCELLED,
    CAUGHT,
    DEAD,
    DONE,
    INFERRED,
    LOST,
    PENDING,
    QUEUED,
    RETRY,
    RUNNING,
    SCHEDULED,
    SKIPPED,
    UNCAUGHT,
    UNKNOWN,
    StepCodes,
)
from .step_list import StepList, failed_step, seen_step, utc

#: Most searches for jobs that were not found: a job may have moved meanwhile.
LOOKS = 4

#: Seconds after which a thread of a Ruby process is seen to work on a job: Sidekiq writes that at
#: each beat, each 10 seconds.
RUBY_BEAT = 15.0

#: Runs whose missing jobs are remembered.
MOST_MISSING = 1000


@attrs.frozen
class View:
    """A run that was read.

    Attributes:
      codes: The states of its steps; None without a tree.
      is_certain: False if its state follows from jobs that were not found.
      waits_for: Queues of Ruby steps whose jobs were not found; a run without a tree waits for any.
    """

    run: Run
    codes: StepCodes | None
    is_certain: bool
    waits_for: frozenset[str] | None = frozenset()

    @property
    def lost(self) -> int:
        """Number of steps whose jobs should exist; another look may find them."""
        return 0 if self.codes is None else self.codes.count(LOST)


class RunReader:
    """Reads runs.

    Parameters:
      memory: Run id -> values of its memory.
      ruby_queues: Returns the queues that Ruby processes consume now.
      is_elsewhere: True if steps may be on another broker, where they are not searched for.
    """

    def __init__(
        self,
        connection: Connection,
        memory: Callable[[str], Mapping[str, Any]],
        ruby_queues: Callable[[], frozenset[str]],
        is_elsewhere: bool = False,
    ) -> None:
        self.connection = connection
        self.memory = memory
        self.ruby_queues = ruby_queues
        self.is_elsewhere = is_elsewhere
        #: Run id -> its marks, and when its jobs were missing for the first time since then.
        self._missing: dict[str, tuple[object, float]] = {}

    def get(self, run_id: str) -> Run:
        """Read a run.

        Raises:
          UnknownRun: if it has no record.
        """
        marks: object = None
        for _ in range(LOOKS):
            record, view = self._look(run_id)
            if view.is_certain and not view.lost:
                self._missing.pop(run_id, None)
                return view.run
            if self.is_elsewhere:
                break
            if marks == record.marks:
                return self._concluded(record, view)
            marks = record.marks
        if self.is_elsewhere and view.codes is not None:
            view.codes.replace(LOST, UNKNOWN)
        if view.is_certain:
            return view.run
        return attrs.evolve(view.run, state="running", inferred=False)

    def _look(self, run_id: str) -> tuple[Record, View]:
        record = self._record(run_id)
        memory = self.memory(run_id)
        tree = read_tree(record.tree)
        if record.head.state in ("done", "cancelled"):
            return record, view_of(record, tree, Sightings(run_id), memory)
        sightings = self._search(run_id, record, tree)
        # What was done meanwhile has a mark now.
        record = self._record(run_id)
        return record, view_of(record, tree, sightings, memory)

    def _record(self, run_id: str) -> Record:
        record = run_records.read(self.connection, run_id)
        if record is None:
            raise UnknownRun(
                f"There is no record of the run {shortened(run_id)}: no workflow has this id, its record has expired, "
                "or records are switched off (WorkflowMiddleware(records=False)).",
                run_id,
            )
        return record

    def _search(self, run_id: str, record: Record, tree: TreeNode | None) -> Sightings:
        sightings = Sightings(run_id)
        taken = wanted = 0

        def enough(found: Sequence[FoundJob]) -> bool:
            nonlocal taken, wanted
            if tree is None or len(found) < wanted:
                return False
            sightings.add_found(found[taken:])
            taken = len(found)
            missing = codes_of(record, tree, sightings).count(LOST, UNKNOWN)
            # Ask again when as many were found: a job may show that other steps are done, but rarely does.
            wanted = taken + missing
            return not missing

        sightings.add_work(job_search.work(self.connection))
        found = job_search.search(self.connection, run_id, job_search.places(self.connection), enough)
        sightings.add_found(found[taken:])
        return sightings

    def _concluded(self, record: Record, view: View) -> Run:
        """Return a run whose jobs were not found twice, once a Ruby process cannot have begun one of them unseen."""
        if view.is_certain:
            return view.run
        if self._may_begin(view.waits_for) and self._missing_for(record) < RUBY_BEAT:
            return attrs.evolve(view.run, state="running", inferred=False)
        if view.run.state == "done" and view.codes is not None:
            # Nothing comes after the steps of Ruby whose jobs are gone.
            view.codes.replace(UNKNOWN, INFERRED)
            return attrs.evolve(view.run, progress=progress_of(view.codes))
        return view.run

    def _may_begin(self, queues: frozenset[str] | None) -> bool:
        """Return True if a Ruby process consumes one of these queues."""
        if queues is not None and not queues:
            return False
        ruby = self.ruby_queues()
        return bool(ruby if queues is None or "" in queues else ruby & queues)

    def _missing_for(self, record: Record) -> float:
        """Seconds since the jobs of a run are missing, as far as this reader knows."""
        marks, since = self._missing.get(record.head.id, (None, 0.0))
        if marks != record.marks:
            if len(self._missing) >= MOST_MISSING:
                self._missing.clear()
            since = time.monotonic()
            self._missing[record.head.id] = (record.marks, since)
        return time.monotonic() - since


def read_tree(raw: bytes) -> TreeNode | None:
    """Read the tree of a record; None if it has none, or one that cannot be read."""
    if not raw:
        return None
    try:
        return load_tree(raw)
    except PayloadError:
        return None


def codes_of(record: Record, tree: TreeNode, sightings: Sightings) -> StepCodes:
    """Compute the states of the steps of a run that may go on."""
    codes = _marked(record, tree, sightings)
    if record.head.state == "done":
        codes.skip(over=(0, DONE))
        codes.replace(0, INFERRED)
        return codes
    codes.infer()
    codes.skip()
    codes.settle()
    if any(seen.code != DEAD for seen in _outside(tree, sightings)):
        # The job of a delayed empty group comes before the next step.
        codes.replace(LOST, PENDING)
    for code in _NOT_OPEN.get(record.head.state, ()):
        codes.replace(code, CANCELLED if record.head.state == "cancelled" else PENDING)
    return codes


#: Recorded state -> codes of steps that do not start: of a paused run, the next steps are parked.
_NOT_OPEN = {"cancelled": (LOST, UNKNOWN, PENDING), "paused": (LOST,)}


def _marked(record: Record, tree: TreeNode, sightings: Sightings) -> StepCodes:
    """Mark the steps that are recorded, and those whose jobs were found."""
    codes = StepCodes(tree)
    codes.mark_bits(record.bits)
    for number in record.times:
        codes.mark(number, DONE)
    for seen in sightings:
        codes.mark(seen.number or 0, seen.code)
    codes.mark_caught(record.failed)
    codes.mark_dead(record.failed)
    return codes


def view_of(record: Record, tree: TreeNode | None, sightings: Sightings, memory: Mapping[str, Any]) -> View:
    """Make a run from its record and the jobs that were found."""
    if tree is None:
        return _without_tree(record, sightings, memory)
    codes = codes_of(record, tree, sightings)
    steps = StepList(codes, record.times, record.failed, {seen.number or 0: seen for seen in sightings})
    others = _outside(tree, sightings)
    failures = (*steps.dead(), *(seen_step(seen) for seen in others if seen.code == DEAD))
    open_codes = codes.present() | {seen.code for seen in others}
    state, is_certain = _state(record.head.state, open_codes, codes)
    run = _run(record.head, state, steps, failures, memory, progress_of(codes))
    waits_for = frozenset(steps.step(number).queue for number in codes.numbers(UNKNOWN))
    return View(attrs.evolve(run, inferred=not is_certain), codes, is_certain, waits_for)


def _outside(tree: TreeNode, sightings: Sightings) -> list[Sighting]:
    """Jobs that are not in the tree: that of a delayed empty group, and steps that were added later."""
    return [seen for seen in sightings if not 0 < (seen.number or 0) <= tree.count]


def _state(recorded: str, open_codes: set[int], codes: StepCodes | None) -> tuple[RunState, bool]:
    """State of a run, and whether it is certain.

    Parameters:
      open_codes: The codes of jobs that were found, and of dead steps.
      codes: None without a tree.
    """
    if recorded == "done" or recorded == "cancelled" or recorded == "paused":
        return recorded, True  # type: ignore[return-value]
    if DEAD in open_codes:
        return "failed", True
    if open_codes & {RUNNING, QUEUED}:
        return "running", True
    if open_codes & {SCHEDULED, RETRY, UNCAUGHT}:
        return "waiting", True
    if codes is not None and codes.count(LOST, PENDING):
        return "stuck", False
    # Nothing comes after the steps that are open, if any: Ruby leaves no trace of the end.
    return "done", False


def progress_of(codes: StepCodes) -> Progress:
    """Count the steps."""
    return Progress(
        total=codes.tree.count - codes.count(SKIPPED),
        done=codes.count(DONE, INFERRED),
        running=codes.count(RUNNING),
        waiting=codes.count(QUEUED, SCHEDULED, RETRY),
        failed=codes.count(DEAD, CAUGHT, UNCAUGHT),
    )


def _without_tree(record: Record, sightings: Sightings, memory: Mapping[str, Any]) -> View:
    seen = [each for each in sightings if each.number not in record.times]
    steps = (*map(seen_step, seen), *_unseen_failures(record, seen))
    failures = tuple(step for step in steps if step.state == "dead")
    open_codes = {each.code for each in seen}.union([DEAD] if failures else ())
    state, is_certain = _state(record.head.state, open_codes, None)
    states: list[str] = [step.state for step in steps]
    progress = Progress(
        total=record.head.total,
        done=record.head.done,
        running=states.count("running"),
        waiting=sum(map(states.count, ("queued", "scheduled", "retry"))),
        failed=len(failures),
    )
    run = _run(record.head, state, steps, failures, memory, progress)
    return View(attrs.evolve(run, inferred=not is_certain), None, is_certain, None)


def _unseen_failures(record: Record, seen: Sequence[Sighting]) -> list[Step]:
    """The steps that are recorded as dead, and whose jobs were not found."""
    died = record.failed.keys() - {each.number for each in seen} - record.times.keys()
    return [failed_step(number, record.failed[number]) for number in sorted(died)]


def _run(
    head: RecordHead,
    state: RunState,
    steps: Sequence[Step],
    failures: tuple[Step, ...],
    memory: Mapping[str, Any],
    progress: Progress,
) -> Run:
    return Run(
        id=head.id,
        state=state,
        template=head.template,
        tags=head.tags,
        started_at=utc(head.started),
        finished_at=utc(head.finished),
        progress=progress,
        steps=steps,
        failures=failures,
        memory=memory,
        reason=head.reason,
    )


def head_run(head: RecordHead) -> Run:
    """Make a run of a list, in which nothing was looked up."""
    total, done = head.total, head.done
    if head.state == "done" and total is not None:
        total -= head.skipped
        done = total - head.failed
    progress = Progress(total=total, done=done, running=None, waiting=None, failed=head.failed)
    return _run(head, head.state, (), (), {}, progress)  # type: ignore[arg-type]
