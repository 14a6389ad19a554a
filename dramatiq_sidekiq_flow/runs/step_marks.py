"""States of the steps of a run, from its record and the jobs that were found."""

from __future__ import annotations

from ..store.run_records import Record, is_inferred, is_spared
from ..wire.run_end import OF_RUN
from ..wire.tree_nodes import TreeNode
from .sightings import Sighting, Sightings
from .step_codes import CANCELLED, DEAD, DONE, INFERRED, LOST, OVER, PENDING, UNKNOWN, StepCodes


def codes_of(record: Record, tree: TreeNode, sightings: Sightings) -> StepCodes:
    """Compute the states of the steps of a run that may go on."""
    codes = _marked(record, tree, sightings)
    if record.head.state == "done":
        _end(codes)
        return codes
    if any(seen.number == OF_RUN for seen in sightings):
        _end(codes)
    codes.settle_members()
    codes.infer()
    codes.skip()
    codes.settle()
    if any(seen.code != DEAD for seen in outside(codes, sightings)):
        # The job of a delayed empty group comes before the next step.
        codes.replace(LOST, PENDING)
    for code in _NOT_OPEN.get(record.head.state, ()):
        codes.replace(code, CANCELLED if record.head.state == "cancelled" else PENDING)
    return codes


def _end(codes: StepCodes) -> None:
    """Mark the steps that have no code as done: nothing of the run is left but late members."""
    codes.settle_members()
    codes.skip(over=(0, DONE))
    for code in (0, LOST, UNKNOWN):
        codes.replace(code, INFERRED)


#: Recorded state -> codes of steps that do not start: of a paused run, the next steps are parked.
_NOT_OPEN = {"cancelled": (LOST, UNKNOWN, PENDING), "paused": (LOST,)}


def _marked(record: Record, tree: TreeNode, sightings: Sightings) -> StepCodes:
    """Mark the steps that are recorded, and those whose jobs were found."""
    codes = StepCodes(tree, record.added)
    codes.mark_bits(record.bits)
    for number in record.times:
        codes.mark(number, DONE)
    for seen in sightings:
        codes.mark(seen.number or 0, seen.code)
    codes.mark_caught(record.failed)
    codes.mark_spared(_spared(record), record.failed)
    codes.mark_dead(number for number, failure in record.failed.items() if not is_inferred(failure))
    return codes


def _spared(record: Record) -> list[int]:
    """The steps that are dead, and that the run does not wait for; not those that the keeper saw and that moved."""
    return [number for number, failure in record.failed.items() if is_spared(failure)]


def late_steps(record: Record, tree: TreeNode | None) -> int:
    """Number of the steps of a run that is done whose jobs may exist: in groups that need some of their members."""
    if tree is None or record.head.state != "done":
        return 0
    return codes_of(record, tree, Sightings(record.head.id)).in_needing(INFERRED)


def number_missing(record: Record, tree: TreeNode, sightings: Sightings) -> int:
    """Count the jobs that should exist, or may, and were not found."""
    codes = codes_of(record, tree, sightings)
    if record.head.end and codes.present() <= {*OVER} and not any(seen.is_end for seen in sightings):
        # All steps are done: the job that ends the run is to come.
        return 1
    return codes.count(LOST, UNKNOWN) + codes.in_needing(INFERRED)


def outside(codes: StepCodes, sightings: Sightings) -> list[Sighting]:
    """Jobs that are not in the tree, such as that of a delayed empty group."""
    return [seen for seen in sightings if (seen.number or 0) not in codes]
