"""The terminal, or the pipe, that output goes to."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from itertools import islice

from rich.console import Console
from rich.text import Text

from .columns import Column, lines

#: Colours help, but each state is there as a word, too.
STYLES = {
    "running": "cyan",
    "waiting": "blue",
    "paused": "yellow",
    "failed": "bold red",
    "stuck": "bold magenta",
    "cancelled": "dim",
    "done": "green",
    "queued": "blue",
    "scheduled": "blue",
    "signal": "blue",
    "retry": "yellow",
    "dead": "bold red",
    "lost": "bold magenta",
    "unknown": "magenta",
    "parked": "yellow",
}

#: The width of output to a pipe: nothing is shortened.
UNLIMITED = 100_000


def open_console() -> Console:
    """The console on standard output; text from Redis is never read as markup."""
    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else UNLIMITED
    return Console(width=width, markup=False, emoji=False, highlight=False)


def print_table(
    console: Console, columns: Sequence[Column], rows: Sequence[Sequence[Text]], titles: bool = True
) -> None:
    """Print rows below the titles of their columns; without the titles if the table continues another one."""
    for line in islice(lines(columns, rows, console.width), 0 if titles else 1, None):
        print_line(console, line)


def print_line(console: Console, line: Text) -> None:
    """Print a line as it is, even if it is longer than the terminal is wide."""
    console.print(line, no_wrap=True, overflow="ignore", crop=False)


def plain(text: str, style: str = "") -> Text:
    """A text from Redis on one line, without characters that control a terminal."""
    return Text("".join(each if each.isprintable() else " " for each in text), style)


def state(word: str) -> Text:
    """The word of a state in its colour."""
    return Text(word, STYLES.get(word, ""))


def moment(at: datetime | None) -> str:
    """A time for people, in their time zone."""
    return "-" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def age(at: datetime | None) -> str:
    """How long ago a time is."""
    return "-" if at is None else length(datetime.now(timezone.utc) - at)


def length(time: timedelta) -> str:
    """A duration for people, in one unit."""
    seconds = max(0.0, time.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
