"""Reader of one run: its record, the places of its jobs, and the state that follows from both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from ..errors import PayloadError
from ..store import run_records
from ..store.connection import Connection
from ..store.run_records import Record, RecordHead
from ..wire.tree_nodes import TreeNode, load_tree
from .job_finder import JobFinder
from .sightings import Sighting, Sightings
from .snapshot import Run, RunState
from .step import Progress, Step
from .step_codes import (
    CAUGHT,
    DEAD,
    DONE,
    INFERRED,
    LOST,
    PARKED,
    PENDING,
    QUEUED,
    RETRY,
    RUNNING,
    SCHEDULED,
    SIGNAL,
    SKIPPED,
    UNCAUGHT,
    UNKNOWN,
    StepCodes,
)
from .step_list import StepList, failed_step, seen_step, utc
from .step_marks import codes_of, outside
from .unknown_run import unknown_run

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
      open_codes: The codes of its steps, and of its jobs that are not in the tree.
      waits_for: Queues of Ruby steps whose jobs were not found; a run without a tree waits for any.
      sightings: The jobs that were found.
    """

    run: Run
    codes: StepCodes | None
    is_certain: bool
    waits_for: frozenset[str] | None = frozenset()
    open_codes: frozenset[int] = frozenset()
    sightings: Sightings = attrs.field(factory=lambda: Sightings(""))

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
          UnknownRun: if it has no record, and no job of it is found.
        """
        return self.view(run_id).run

    def view(self, run_id: str, *, thorough: bool = False) -> View:
        """Read a run, with the jobs that were found.

        Parameters:
          thorough: True searches for the jobs of dead steps, too.

        Raises:
          UnknownRun: if it has no record.
        """
        marks: object = None
        finder = JobFinder(self.connection, thorough=thorough)
        for _ in range(LOOKS):
            record, view = self.look(run_id, finder)
            if view.is_certain and not view.lost:
                self._missing.pop(run_id, None)
                return view
            if self.is_elsewhere:
                break
            if marks == record.marks:
                return attrs.evolve(view, run=self._concluded(record, view))
            marks = record.marks
        if self.is_elsewhere and view.codes is not None:
            view.codes.replace(LOST, UNKNOWN)
        if view.is_certain:
            return view
        return attrs.evolve(view, run=attrs.evolve(view.run, state="running", inferred=False))

    def look(self, run_id: str, finder: JobFinder | None = None) -> tuple[Record, View]:
        """Read a run, and look for its jobs once.

        Raises:
          UnknownRun: if it has no record, and no job of it is found.
        """
        record = run_records.read(self.connection, run_id) or run_records.unrecorded(run_id)
        memory = self.memory(run_id)
        tree = read_tree(record.tree)
        if record.head.state in ("done", "cancelled"):
            return record, view_of(record, tree, Sightings(run_id), memory)
        sightings = (finder or JobFinder(self.connection)).find(record, tree)
        # What was done meanwhile has a mark now.
        after = run_records.read(self.connection, run_id)
        if after is None and not any(sightings):
            raise unknown_run(run_id, "and no job of it")
        record = after or record
        return record, view_of(record, tree, sightings, memory)

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


def view_of(record: Record, tree: TreeNode | None, sightings: Sightings, memory: Mapping[str, Any]) -> View:
    """Make a run from its record and the jobs that were found."""
    if tree is None:
        return _without_tree(record, sightings, memory)
    codes = codes_of(record, tree, sightings)
    steps = StepList(codes, record.times, record.failed, {seen.number or 0: seen for seen in sightings})
    others = outside(codes, sightings)
    unseen = unseen_jobs(record, sightings)
    failures = (*steps.dead(), *(seen_step(seen) for seen in others if seen.code == DEAD), *unseen)
    open_codes = codes.present() | {seen.code for seen in others}.union([DEAD] if unseen else ())
    state, is_certain = _state(record.head.state, open_codes, codes)
    run = _run(record.head, state, steps, failures, memory, progress_of(codes))
    waits_for = frozenset(steps.step(number).queue for number in codes.numbers(UNKNOWN))
    return View(
        attrs.evolve(run, inferred=not is_certain), codes, is_certain, waits_for, frozenset(open_codes), sightings
    )


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
    if open_codes & {SCHEDULED, SIGNAL, RETRY, PARKED, UNCAUGHT}:
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
        waiting=codes.count(QUEUED, SCHEDULED, SIGNAL, RETRY, PARKED),
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
        waiting=sum(map(states.count, ("queued", "scheduled", "signal", "retry", "parked"))),
        failed=len(failures),
    )
    run = _run(record.head, state, steps, failures, memory, progress)
    return View(attrs.evolve(run, inferred=not is_certain), None, is_certain, None, sightings=sightings)


def _unseen_failures(record: Record, seen: Sequence[Sighting]) -> list[Step]:
    """The steps that are recorded as dead, and whose jobs were not found."""
    died = record.failed.keys() - {each.number for each in seen} - record.times.keys()
    return [*(failed_step(number, record.failed[number]) for number in sorted(died)), *unseen_jobs(record, seen)]


def unseen_jobs(record: Record, seen: Iterable[Sighting]) -> list[Step]:
    """Steps without numbers that are recorded as dead, and whose jobs were not found.

    Without those that the keeper recorded: plain Ruby, which leaves no trace, may have run them again.
    """
    died = record.failed_jobs.keys() - {each.jid for each in seen}
    recorded = [record.failed_jobs[jid] for jid in sorted(died)]
    return [failed_step(None, raw) for raw in recorded if not run_records.is_inferred(raw)]


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
