"""Words, numbers and times for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from ..wire.run_tree import shown

#: State of a run or of a step -> the symbol in front of it; others have that of ``pending``.
MARKS = {
    "cancelled": "cancelled",
    "dead": "dead",
    "done": "done",
    "failed": "dead",
    "lost": "lost",
    "parked": "paused",
    "paused": "paused",
    "queued": "queued",
    "retry": "retry",
    "running": "running",
    "scheduled": "scheduled",
    "signal": "scheduled",
    "skipped": "cancelled",
    "stuck": "lost",
    "unknown": "unknown",
    "waiting": "scheduled",
}

#: Characters of a short id: those of a UUID up to its first dash.
SHORT = 8


def mark(state: str) -> str:
    """The name of the symbol, and of the colour, of a state."""
    return MARKS.get(state, "pending")


def short(run_id: str) -> str:
    """The beginning of a run id; all of it, if it was chosen by a person."""
    is_uuid = len(run_id) == 36 and run_id[SHORT] == "-"
    return run_id[:SHORT] if is_uuid else cut(run_id, 24)


def cut(text: str, width: int) -> str:
    """A text of at most as many characters."""
    return text if len(text) <= width else text[: width - 1] + "\N{HORIZONTAL ELLIPSIS}"


def moment(at: datetime | None) -> str:
    """A time in UTC."""
    return "" if at is None else f"{at.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S}"


def clock(at: datetime | None) -> str:
    """The time of a day in UTC; with the day, if that is not today."""
    if at is None:
        return ""
    utc = at.astimezone(timezone.utc)
    return f"{utc:%H:%M:%S}" if utc.date() == datetime.now(timezone.utc).date() else f"{utc:%m-%d %H:%M:%S}"


def machine(at: datetime) -> str:
    """A time for programs."""
    return at.astimezone(timezone.utc).isoformat(timespec="milliseconds")


def length(start: datetime | None, end: datetime | None) -> str:
    """The time between two moments; "" if one is missing."""
    return "" if start is None or end is None else seconds((end - start).total_seconds())


_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))


def seconds(time: float) -> str:
    """A duration in one or two units, as the script of the page writes it, too."""
    time = max(time, 0.0)
    for size, unit, part, smaller in _UNITS:
        if time >= size:
            whole, rest = int(time // size), int(time % size // part)
            return f"{whole} {unit} {rest} {smaller}" if rest else f"{whole} {unit}"
    if time < 1:
        return f"{time * 1000:.0f} ms"
    return f"{time:.1f} s" if time < 10 else f"{time:.0f} s"


def number(count: int | None) -> str:
    """A number with separators."""
    return "?" if count is None else f"{count:,}"


def value(content: Any) -> str:
    """A value of the memory, shortened."""
    return shown([content])


def first_line(text: str | None) -> str:
    """The first line of an error."""
    return (text or "").strip().partition("\n")[0]


FILTERS: Mapping[str, Callable[..., str]] = {
    each.__name__: each for each in (mark, short, cut, moment, clock, machine, seconds, number, value, first_line)
} | {"length_to": length}
