"""What a record says: lost, doubled and early steps, and how long recovery took.  Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from tests.trees import Shape, before, build, violations

from .record import Death, Event, Pause, Place


@attrs.frozen
class Verdict:
    """Of one column.  Problems are texts that name step and run."""

    runs: int
    steps: int
    finished: int
    executions: int
    #: A step that never ended, though all before it had.
    lost: tuple[str, ...]
    #: A step that was pushed more than once.
    doubled: tuple[str, ...]
    #: A step that started before one that it waits for had ended.
    early: tuple[str, ...]
    #: Executions of a step that had been executed, without those after a failure.
    again: int
    #: Of these, the ones whose worker before was neither killed, nor stopped, nor paused.
    unexplained: tuple[str, ...]
    #: How a worker ended -> how often it was executing steps then.
    hits: Mapping[str, int]
    #: Pauses of workers that were executing steps.
    pauses_hit: int
    #: Seconds from the death of the worker that executed a step to the start of
    #: its next execution, in rising order.
    recoveries: tuple[float, ...]

    @property
    def holds(self) -> bool:
        return not (self.lost or self.doubled or self.early)


def judge(
    shapes: Sequence[Shape],
    events: Sequence[Event],
    deaths: Iterable[Death] = (),
    pauses: Iterable[Pause] = (),
    cancelled: Collection[int] = (),
) -> Verdict:
    """Judge a record.

    Parameters:
      shapes: The tree of each run, by its number.
      events: In the order in which they happened.
      deaths: How workers ended.
      pauses: When they stood still.
      cancelled: Runs whose steps need not end.
    """
    deaths, pauses = list(deaths), list(pauses)
    by_run: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        by_run[event.run].append(event)
    lost: list[str] = []
    doubled: list[str] = []
    early: list[str] = []
    steps = finished = 0
    for run, shape in enumerate(shapes):
        count = steps_of(shape)
        steps += count
        own = by_run[run]
        missing = set(range(count)) - {event.step for event in own if event.what == "end"}
        finished += not missing or run in cancelled
        # What comes after a lost step is not lost, but waits.
        waiting = {later for earlier, later in before(shape) if earlier in missing}
        if run not in cancelled:
            lost += [f"step {step} of run {run}" for step in sorted(missing - waiting)]
        doubled += _doubled(run, own)
        order = [(event.what, event.step) for event in own if event.what != "fail"]
        early += [f"run {run}: {problem}" for problem in violations(shape, count, order) if "before" in problem]
    starts = sum(event.what == "start" for event in events)
    hits = Counter(death.how for death in deaths if _executing(events, death.worker, death.asked))
    again = _again(events)
    return Verdict(
        runs=len(shapes),
        steps=steps,
        finished=finished,
        executions=starts,
        lost=tuple(lost),
        doubled=tuple(doubled),
        early=tuple(early),
        again=len(again),
        unexplained=tuple(
            f"step {first.step} of run {first.run}, by worker {first.worker} and worker {second.worker}"
            for first, second in again
            if not _explained(first, second, deaths, pauses)
        ),
        hits=dict(hits),
        pauses_hit=sum(bool(_executing(events, pause.worker, pause.at)) for pause in pauses),
        recoveries=tuple(sorted(_recoveries(events, deaths))),
    )


def steps_of(shape: Shape) -> int:
    """How many steps a tree has."""
    return build(shape, lambda number: number, kinds=((lambda *parts: parts),) * 3)[1]


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest rank, of values in rising order; None where there are none."""
    if not values:
        return None
    return values[max(0, math.ceil(share * len(values)) - 1)]


def _doubled(run: int, events: Iterable[Event]) -> list[str]:
    origins: dict[int, set[str]] = defaultdict(set)
    for event in events:
        origins[event.step].add(event.origin)
    return [
        f"step {step} of run {run}, pushed as {', '.join(sorted(found))}"
        for step, found in sorted(origins.items())
        if len(found) > 1
    ]


def _executing(events: Iterable[Event], worker: int, at: float) -> dict[Place, Event]:
    """What a worker was executing at an instant: place -> its start."""
    found: dict[Place, Event] = {}
    for event in events:
        if event.worker != worker or event.at > at:
            continue
        if event.what == "start":
            found[event.place] = event
        else:
            found.pop(event.place, None)
    return found


def _again(events: Iterable[Event]) -> list[tuple[Event, Event]]:
    """Pairs of starts of one step, the second not caused by a failure."""
    last: dict[tuple[Place, str], Event] = {}
    failed: set[tuple[Place, str]] = set()
    pairs = []
    for event in events:
        key = (event.place, event.origin)
        if event.what == "fail":
            failed.add(key)
        if event.what != "start":
            continue
        if key in last and key not in failed:
            pairs.append((last[key], event))
        last[key] = event
        failed.discard(key)
    return pairs


def _explained(first: Event, second: Event, deaths: Iterable[Death], pauses: Iterable[Pause]) -> bool:
    died = any(death.worker == first.worker and first.at <= death.at <= second.at for death in deaths)
    stood = any(pause.worker == first.worker and pause.at <= second.at and first.at <= pause.until for pause in pauses)
    return died or stood


def _recoveries(events: Sequence[Event], deaths: Iterable[Death]) -> Iterable[float]:
    starts: dict[tuple[Place, str], list[float]] = defaultdict(list)
    for event in events:
        if event.what == "start":
            starts[event.place, event.origin].append(event.at)
    for death in deaths:
        for place, start in _executing(events, death.worker, death.at).items():
            later = [at for at in starts[place, start.origin] if at > death.at]
            if later:
                yield min(later) - death.at
