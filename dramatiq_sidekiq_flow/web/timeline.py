"""Timeline of steps: a bar from the start of each to its end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from datetime import datetime

import attrs

from ..runs import Step
from .wording import cut, length, seconds

#: Width of the picture, of the names, and at the right; height of a row, and of the scale.
WIDTH, NAMES, RIGHT, ROW, SCALE = 960, 220, 80, 24, 24

#: Intervals of the scale, about.
INTERVALS = 6

#: Multiples of a power of ten seconds, and of a minute and an hour.
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)


@attrs.frozen
class Bar:
    """The bar of a step.

    Attributes:
      is_open: True if it runs.
    """

    name: str
    state: str
    x: float
    y: float
    width: float
    label: str
    is_open: bool


@attrs.frozen
class Tick:
    """A line of the scale."""

    x: float
    label: str


@attrs.frozen
class Timeline:
    """Bars over a scale."""

    bars: Sequence[Bar]
    ticks: Sequence[Tick]
    height: float
    width: float = WIDTH


def timeline(steps: Iterable[Step], now: float | None = None) -> Timeline | None:
    """Draw the steps whose starts are known; None if there are none.

    Parameters:
      now: Epoch seconds, at which the bars of running steps end.
    """
    shown = [(step, step.started_at) for step in steps if step.started_at is not None]
    if not shown:
        return None
    start = min(at for _, at in shown).timestamp()
    span = max(_end(step, at, start, now or time.time()) for step, at in shown) - start
    scale = _Scale(start, max(span, 0.001))
    bars = [_bar(scale, index, step, at) for index, (step, at) in enumerate(shown)]
    return Timeline(bars, scale.ticks(), SCALE + ROW * len(bars))


def _end(step: Step, started: datetime, first: float, now: float) -> float:
    """The end of a step; of a running one, a time of now that changes seldom."""
    if step.state != "running":
        return max(step.ended_at or started, started).timestamp()
    elapsed = max(now - first, 1.0)
    grain = interval(elapsed) / 4
    return first + math.ceil(elapsed / grain) * grain


@attrs.frozen
class _Scale:
    start: float
    span: float

    def x(self, at: float) -> float:
        share = min(1.0, max(0.0, (at - self.start) / self.span))
        return round(NAMES + share * (WIDTH - NAMES - RIGHT), 1)

    def ticks(self) -> list[Tick]:
        each = interval(self.span)
        times = [index * each for index in range(int(self.span / each) + 1)]
        return [Tick(self.x(self.start + at), seconds(at) if at else "0") for at in times]


def interval(span: float) -> float:
    """A round interval that divides a span of seconds into a few parts."""
    wanted = span / INTERVALS
    if wanted < 1:
        power: float = 10.0 ** math.floor(math.log10(wanted))
        return next(power * each for each in (1, 2, 5, 10) if power * each >= wanted)
    return next((float(each) for each in _STEPS if each >= wanted), math.ceil(wanted / 86_400) * 86_400.0)


def _bar(scale: _Scale, index: int, step: Step, started: datetime) -> Bar:
    is_open = step.state == "running"
    ended = step.ended_at or started
    x, end = scale.x(started.timestamp()), scale.x(math.inf if is_open else ended.timestamp())
    number = "" if step.number is None else f"{step.number} "
    return Bar(
        name=cut(f"{number}{step.name}", 30),
        state=step.state,
        x=x,
        y=SCALE + index * ROW,
        width=max(3.0, round(end - x, 1)),
        label="" if is_open else length(started, ended),
        is_open=is_open,
    )
