"""Steps of a run as a sequence: each is made when it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, overload

import attrs

from ..errors import PayloadError
from ..store.run_records import read_times
from ..wire import codec
from ..wire.tree_nodes import Numbered, step_at, steps
from .sightings import Sighting, error_text
from .step import Step, StepState
from .step_codes import (
    CANCELLED,
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

#: The state of a step by its code.
STATES: tuple[StepState, ...] = (
    "pending",
    "done",
    "done",
    "running",
    "queued",
    "scheduled",
    "retry",
    "dead",
    "pending",
    "unknown",
    "lost",
    "cancelled",
    "parked",
    "dead",
    "dead",
    "skipped",
    "signal",
)


#: Codes, the most urgent one first.
_URGENT = (
    DEAD,
    UNCAUGHT,
    LOST,
    RETRY,
    RUNNING,
    UNKNOWN,
    QUEUED,
    SCHEDULED,
    SIGNAL,
    PARKED,
    CANCELLED,
    PENDING,
    CAUGHT,
    DONE,
    INFERRED,
    SKIPPED,
)


@attrs.frozen(eq=False, repr=False)
class StepList(Sequence[Step]):
    """The steps of a run with a tree.

    Parameters:
      codes: The codes of the steps, and their tree.
      times: Step number -> entry of a step that is done.
      failed: Step number -> JSON of its error.
      sightings: Step number -> the job that was found.
    """

    codes: StepCodes
    times: Mapping[int, bytes]
    failed: Mapping[int, bytes]
    sightings: Mapping[int, Sighting]

    def __len__(self) -> int:
        return self.codes.tree.count

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Step, ...]: ...
    def __getitem__(self, index: int | slice) -> Step | tuple[Step, ...]:
        if isinstance(index, slice):
            return tuple(map(self._by_number, range(*index.indices(len(self)))))
        if not -len(self) <= index < len(self):
            raise IndexError("A run has no such step.")
        return self._by_number(index % len(self))

    def __iter__(self) -> Iterator[Step]:
        if self.codes.order.numbers is None:
            return map(self._made, steps(self.codes.tree))
        return map(self.at, self.codes.order.in_order())

    def __repr__(self) -> str:
        return f"<{len(self)} steps>"

    def step(self, number: int) -> Step:
        """Make the step of a number."""
        return self.at(self.codes.order.position(number))

    def at(self, position: int) -> Step:
        """Make the step at a position of the tree."""
        return self._made(step_at(self.codes.tree, position))

    def _by_number(self, index: int) -> Step:
        return self.at(self.codes.order.in_order()[index])

    def state_of(self, first: int, count: int) -> StepState:
        """The state that a range of positions is shown with: the most urgent one."""
        codes = self.codes.codes[first : first + count]
        return STATES[next((code for code in _URGENT if code in codes), 0)]

    def dead(self) -> tuple[Step, ...]:
        """Make the steps that are dead."""
        return tuple(map(self.step, self.codes.numbers(DEAD, CAUGHT, UNCAUGHT)))

    def _made(self, numbered: Numbered) -> Step:
        number, node = self.codes.order.number(numbered.number), numbered.node
        code = self.codes.codes[numbered.number]
        step = Step(
            number=number,
            path=numbered.path,
            name=node.name,
            queue=node.queue,
            state=STATES[code],
            args=node.args,
            inferred=code == INFERRED,
        )
        seen = self.sightings.get(number)
        if code == DONE:
            return self._done(step)
        if seen is not None and code not in (INFERRED, CAUGHT):
            step = with_sighting(step, seen)
        if code in (DEAD, CAUGHT, UNCAUGHT) and number in self.failed:
            return _with_failure(step, self.failed[number])
        return step

    def _done(self, step: Step) -> Step:
        entry = self.times.get(step.number or 0)
        if entry is None:
            return step
        times = read_times(entry)
        return attrs.evolve(
            step,
            attempts=times.attempts + 1,
            started_at=utc(times.started),
            ended_at=utc(times.ended),
            worker=times.worker,
        )


def with_sighting(step: Step, seen: Sighting) -> Step:
    """Add what the job of a step says."""
    return attrs.evolve(
        step,
        queue=seen.queue or step.queue,
        jid=seen.jid,
        attempts=seen.attempts,
        started_at=utc(seen.started),
        ended_at=utc(seen.ended),
        due_at=utc(seen.due),
        worker=seen.worker,
        error=seen.error,
    )


def seen_step(seen: Sighting) -> Step:
    """Make a step of a job whose place in the tree is not known."""
    step = Step(number=seen.number, path="", name=seen.name, queue=seen.queue, state=STATES[seen.code])
    return with_sighting(step, seen)


def failed_step(number: int | None, raw: bytes) -> Step:
    """Make a dead step that is in no tree, of what is recorded of its death."""
    failure = _read_failure(raw)
    name = failure.get("class")
    step = Step(number=number, path="", name=name if type(name) is str else "", queue="", state="dead")
    return _with_failure(step, raw)


def _with_failure(step: Step, raw: bytes) -> Step:
    """Add the error that the record has of a dead step; the job in ``dead`` says more where it exists."""
    failure = _read_failure(raw)
    jid, at, queue = failure.get("jid"), failure.get("at"), failure.get("queue")
    return attrs.evolve(
        step,
        jid=step.jid or (jid if type(jid) is str else ""),
        queue=step.queue or (queue if type(queue) is str else ""),
        ended_at=step.ended_at or utc(at),
        error=step.error or error_text(failure.get("error_class"), failure.get("error_message")),
    )


def _read_failure(raw: bytes) -> dict[str, Any]:
    try:
        return codec.decode(raw)
    except PayloadError:
        return {}


def utc(seconds: Any) -> datetime | None:
    """Epoch seconds as a time in UTC; None for anything else."""
    if type(seconds) not in (int, float) or not 0 < seconds < 253_402_300_799:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc)
