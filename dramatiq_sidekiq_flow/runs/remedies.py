"""Fixes of a run that does not go on: what each does about each step, and why it cannot."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import attrs

from ..errors import BarrierExpired, FlowError, cut
from ..process.poller import promotion
from ..store import keys, run_records, sets
from ..store.job_search import FoundJob
from ..store.sets import Promotion
from ..store.step_records import death_key
from ..wire import codec
from ..wire.tree_nodes import BranchNode, CatchNode, DelayNode, RepeatedNode, StepNode, TreeNode
from ..workflow.engine import Engine
from ..workflow.resume import release_step
from .run_reader import View
from .run_retry import retry_step
from .step import Step
from .step_codes import OVER, StepCodes

Fix = Literal["rerun", "release", "fail", "cancel"]

#: Why a step whose job is nowhere can neither run again nor be released.
NOT_KNOWN = (
    "its job is nowhere, and the record has neither its arguments nor its next steps as they were: start the workflow "
    "again, and cancel this run"
)

#: How to release a step whose group is not known.
BY_HAND = "count the members that are left: sidekiq-flow release app:broker {} --members N"

#: Characters of an error that are shown.
MOST_OF_ERROR = 200


@attrs.frozen
class Action:
    """What a fix does about one step, or about a run.

    Attributes:
      run_id: The run.
      fix: ``rerun``, ``release``, ``fail`` or ``cancel``.
      step: Number of the step; None for the whole run, or if it is not known.
      text: What is done, or why it cannot be done.
      outcome: ``planned`` (in a dry run), ``done``, or ``refused``.
    """

    run_id: str
    fix: Fix
    step: int | None
    text: str
    outcome: Literal["planned", "done", "refused"]


@attrs.frozen
class Remedy:
    """What can be done about one step.

    Attributes:
      act: Does it; None if it cannot be done.
    """

    step: int | None
    text: str
    act: Callable[[], object] | None = None


def taken(fix: Fix, run_id: str, remedy: Remedy, *, dry: bool) -> Action:
    """Do what is to be done, unless ``dry``."""
    if remedy.act is None:
        return Action(run_id, fix, remedy.step, remedy.text, "refused")
    if dry:
        return Action(run_id, fix, remedy.step, remedy.text, "planned")
    try:
        remedy.act()
    except FlowError as e:
        return Action(run_id, fix, remedy.step, f"{remedy.text}: {cut(e, MOST_OF_ERROR)}", "refused")
    return Action(run_id, fix, remedy.step, remedy.text, "done")


class Remedies:
    """Remedies for the steps of a run that was read."""

    def __init__(self, engine: Engine, view: View) -> None:
        self.engine = engine
        self.connection = engine.broker.connection
        self.view = view
        self.jobs = view.sightings.jobs

    def of(self, fix: Fix, step: Step) -> Remedy:
        """The remedy for a step that is dead or blocked."""
        makers: Mapping[str, Callable[[Step], Remedy]] = {
            "rerun": self._rerun,
            "release": self._release,
            "fail": self._fail,
        }
        return makers[fix](step)

    # -- rerun ------------------------------------------------------------------

    def _rerun(self, step: Step) -> Remedy:
        job, run_id = self.jobs.get(step.jid), self.view.run.id
        if job is None:
            return Remedy(step.number, f"{_named(step)}: {NOT_KNOWN}")
        if job.place.kind not in ("dead", "retry"):
            return Remedy(step.number, f"{_named(step)}: its job is in {_place(job)}, and runs as soon as it can")
        if _lacks_barrier(step):
            return Remedy(
                step.number, f"{_named(step)}: its barrier is gone, so it would end in dead again: release it"
            )
        moved = promotion(job.payload, time.time())
        if moved.queue is None:
            return Remedy(step.number, f"{_named(step)}: its job cannot be read")
        text = f"{_named(step)} runs again: from {job.place.kind} to queue {moved.queue!r}"
        death = death_key(step.number, step.jid)
        if job.place.key == keys.DEAD:
            return Remedy(step.number, text, lambda: retry_step(self.connection, run_id, job.payload, death))
        return Remedy(step.number, text, lambda: sets.promote(self.connection, job.place.key, time.time(), [moved]))

    # -- release ----------------------------------------------------------------

    def _release(self, step: Step) -> Remedy:
        job = self.jobs.get(step.jid)
        if job is None:
            return Remedy(step.number, f"{_named(step)}: {NOT_KNOWN}")
        if job.place.kind not in ("dead", "retry"):
            return Remedy(step.number, f"{_named(step)}: its job is in {_place(job)}, not in dead or retry")
        if _lacks_barrier(step) and not self._is_in_tree(step):
            return Remedy(step.number, f"{_named(step)}: its place is not known; {BY_HAND.format(step.jid)}")
        counts = list(self._open_members(step))
        text = f"{_named(step)} counts as done, and the run goes on without it"
        return Remedy(step.number, text, lambda: release_step(self.engine, job.place.key, job.payload, counts))

    def _is_in_tree(self, step: Step) -> bool:
        return self.view.codes is not None and (step.number or 0) in self.view.codes

    def _open_members(self, step: Step) -> Iterator[int]:
        """For each group around a step, the innermost first: the number of members that are not done."""
        codes, number = self.view.codes, step.number
        if codes is None or number is None or not self._is_in_tree(step):
            return
        for group, first in reversed(list(_groups(codes.tree, 1, codes.order.position(number)))):
            left = sum(not _is_done(codes, start, count) for start, count in _members(group, first))
            spare = group.members - group.need if isinstance(group, BranchNode) and group.need else 0
            yield max(0, left - spare)

    # -- fail -------------------------------------------------------------------

    def _fail(self, step: Step) -> Remedy:
        if step.state == "dead":
            return Remedy(step.number, f"{_named(step)}: it is recorded as dead")
        if step.number is None:
            return Remedy(None, f"{_named(step)}: its number is not known")
        job = self.jobs.get(step.jid)
        if job is None:
            text = f"{_named(step)} is recorded as dead, and its run as failed"
            return Remedy(step.number, text, lambda: self._mark_dead(step, "Lost", "Its job was nowhere."))
        if job.place.kind not in ("retry", "schedule"):
            return Remedy(step.number, f"{_named(step)}: its job is in {_place(job)}; cancel the run")
        text = f"{_named(step)} goes from {job.place.kind} to dead, and its run is recorded as failed"
        return Remedy(step.number, text, lambda: self._bury(step, job))

    def _mark_dead(self, step: Step, error_class: str, message: str) -> None:
        failure = {
            "jid": step.jid,
            "class": step.name,
            "queue": step.queue,
            "error_class": error_class,
            "error_message": message,
            "at": time.time(),
        }
        run_records.mark_dead(self.view.run.id, step.number or 0, codec.encode(failure)).run(self.connection)

    def _bury(self, step: Step, job: FoundJob) -> None:
        error_class, _, message = (step.error or "Lost: A person ended it.").partition(": ")
        self._mark_dead(step, error_class, message)
        sets.promote(self.connection, job.place.key, time.time(), [Promotion(job.payload, None, job.payload)])


def _groups(node: TreeNode, first: int, position: int) -> Iterator[tuple[BranchNode | RepeatedNode, int]]:
    """Yield the groups around a step, with the position of their first step, the outermost first."""
    while not isinstance(node, StepNode):
        if isinstance(node, DelayNode):
            node = node.node
        elif isinstance(node, RepeatedNode):
            first += (position - first) // node.node.count * node.node.count
            node = node.node
        elif isinstance(node, CatchNode):
            if position == first:
                return
            node, first = node.fallback, first + 1
        else:
            if node.kind == "group":
                yield node, first
            index = max(
                i for i, start in enumerate(node.starts) if first + start <= position and node.children[i].count
            )
            first += node.starts[index]
            node = node.children[index]


def _members(group: BranchNode | RepeatedNode, first: int) -> Iterator[tuple[int, int]]:
    """Yield the position of the first step of each member of a group, and its number of steps."""
    assert isinstance(group, BranchNode)
    for child, start in zip(group.children, group.starts):
        each = child.node if isinstance(child, RepeatedNode) else child
        times = child.times if isinstance(child, RepeatedNode) else 1
        for index in range(times):
            yield first + start + index * each.count, each.count


def _is_done(codes: StepCodes, first: int, count: int) -> bool:
    part = codes.codes[first : first + count]
    return sum(map(part.count, OVER)) == count


def _lacks_barrier(step: Step) -> bool:
    return (step.error or "").startswith(BarrierExpired.__name__)


def _named(step: Step) -> str:
    return f"step {'?' if step.number is None else step.number} {step.name!r}"


def _place(job: FoundJob) -> str:
    return f"queue {job.place.name!r}" if job.place.kind == "queue" else job.place.kind
