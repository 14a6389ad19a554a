"""What the records of steered runs say, compared with what their steps have put down.  Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from .record import Event, Place
from .steerer import Plan, Window

#: The callbacks of a run, as the steps of these numbers.
FAILURE, COMPLETE = 200_000, 200_001

#: Seconds by which a start may be late: between the look of a worker and the line of its step.
SLACK = 0.5


@attrs.frozen
class Look:
    """A run, as ``Runs.get`` shows it.

    Attributes:
      left: Steps that are neither done nor dead, of its progress.
      done, dead, skipped: The numbers of steps.
    """

    state: str
    left: int
    done: frozenset[int]
    dead: frozenset[int]
    skipped: frozenset[int]


@attrs.frozen
class RunVerdict:
    """Of the runs of one column.

    Attributes:
      unrecorded: Records that say something else than the steps.
      calls: Callbacks that were not called once.
      late: Steps that started in a paused or cancelled run.
    """

    unrecorded: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    late: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return not (self.unrecorded or self.calls or self.late)


def judge_runs(
    plans: Mapping[int, Plan],
    cancelled: Iterable[int],
    looks: Mapping[int, Look],
    events: Sequence[Event],
    windows: Iterable[Window] = (),
    *,
    pills: frozenset[Place] = frozenset(),
    disturbed: Sequence[tuple[float, float]] = (),
) -> RunVerdict:
    """Judge the runs that were started.

    Parameters:
      looks: Run -> what its record says; a run that is missing has none.
      windows: Times in which no step of a run may start.
      pills: Steps that may fail, and have died with their workers: what takes their place may run.
      disturbed: Times in which workers may not have reached Redis, or stood still.
    """
    stopped = frozenset(cancelled)
    ended: dict[int, set[int]] = defaultdict(set)
    calls: dict[Place, set[str]] = defaultdict(set)
    for event in events:
        if event.what == "end":
            ended[event.run].add(event.step)
        if event.what == "start" and event.step >= FAILURE:
            calls[event.place].add(event.origin)
    unrecorded: list[str] = []
    wrong_calls: list[str] = []
    for run, plan in plans.items():
        pilled = frozenset(step for number, step in pills if number == run)
        problems = _record(plan, run in stopped, looks.get(run), ended[run], pilled)
        unrecorded += [f"run {run} ({plan.run_id}): {problem}" for problem in problems]
        wrong_calls += [f"run {run} ({plan.run_id}): {problem}" for problem in _calls(run, plan, run in stopped, calls)]
    return RunVerdict(tuple(unrecorded), tuple(wrong_calls), tuple(_late(events, windows, disturbed)))


def _record(plan: Plan, cancelled: bool, look: Look | None, ended: set[int], pilled: frozenset[int]) -> Iterator[str]:
    if look is None:
        yield "it has no record"
        return
    wanted = "cancelled" if cancelled else "done"
    if look.state != wanted:
        yield f"the record says {look.state}, and not {wanted}"
    if unseen := look.done - ended:
        yield f"the steps {sorted(unseen)} are recorded as done, and have not ended"
    if cancelled or pilled:
        return
    dead = frozenset(plan.planting.dead)
    if look.done != frozenset(range(plan.count)) - dead:
        yield f"the steps {sorted(look.done)} are recorded as done, of {plan.count} and without {sorted(dead)}"
    if look.dead != dead:
        yield f"the steps {sorted(look.dead)} are recorded as dead, and not {sorted(dead)}"
    if look.skipped != plan.planting.skipped:
        yield f"the steps {sorted(look.skipped)} are recorded as skipped, and not {sorted(plan.planting.skipped)}"
    if look.left:
        yield f"{look.left} steps are recorded as open"


def _calls(run: int, plan: Plan, cancelled: bool, calls: Mapping[Place, set[str]]) -> Iterator[str]:
    complete, failure = len(calls.get((run, COMPLETE), ())), len(calls.get((run, FAILURE), ()))
    if complete != 1:
        yield f"on_complete was called {complete} times"
    # A step that dies with its workers is retried, too: then it is called as well.
    if failure > 1 or (plan.planting.mended and not failure and not cancelled):
        yield f"on_failure was called {failure} times"


def _late(
    events: Iterable[Event], windows: Iterable[Window], disturbed: Sequence[tuple[float, float]]
) -> Iterator[str]:
    by_run: dict[int, list[Window]] = defaultdict(list)
    for window in windows:
        by_run[window.run].append(window)
    for event in events:
        if event.what != "start" or event.step >= FAILURE:
            continue
        for window in by_run.get(event.run, ()):
            is_in = window.at + SLACK < event.at < window.until
            if is_in and not any(at <= event.at and until >= window.at - 2 for at, until in disturbed):
                seconds = event.at - window.at
                yield f"step {event.step} of run {event.run} started {seconds:.2f} s late, by worker {event.worker}"
