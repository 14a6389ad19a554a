"""Watching a run: a live view on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from ..runs.run_text import MARKS
from .program import TERMINATED
from .run_view import failures, head, progress, tree
from .terminal import open_console

if TYPE_CHECKING:
    from ..runs import Run, Runs

#: Seconds between two looks, at least; and how many times longer than a look itself takes.
PAUSE, SHARE = 0.5, 10
#: Failures that are shown while there may be more.
FAILURES = 5
#: Columns of the bar, at most.
BAR = 60
#: What a line that shows an open step begins with.
OPEN = tuple(mark for word, mark in MARKS.items() if word not in ("done", "cancelled", "pending"))


def watch_run(runs: Runs, run_id: str) -> Run:
    """Show a run until it is at rest; the run then."""
    console = open_console()
    show = _live if console.is_terminal else _lines
    return show(console, _looks(lambda: runs.get(run_id)))


def _looks(look: Callable[[], Run]) -> Iterator[Run]:
    """Yield the run again and again until it is at rest; a large Redis is looked at less often."""
    while True:
        began = time.monotonic()
        run = look()
        yield run
        if run.at_rest:
            return
        time.sleep(max(PAUSE, SHARE * (time.monotonic() - began)))


def _lines(console: Console, looks: Iterator[Run]) -> Run:
    before = ""
    for run in looks:
        line = f"{run.state}: {progress(run.progress)}"
        if line != before:
            print(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {line}", flush=True)
        before = line
    return run


def _live(console: Console, looks: Iterator[Run]) -> Run:
    # The cursor is hidden: a process that is ended has to show it again.
    signals = _Signals()
    with Live(console=console, auto_refresh=False) as live:
        for run in looks:
            live.update(_view(run, console.width, console.height), refresh=True)
            signals.check()
    return run


class _Signals:
    """SIGINT and SIGTERM: checked again, since Python ignores what a handler raises while an object is deleted."""

    def __init__(self) -> None:
        self.last = 0
        signal.signal(signal.SIGINT, self.receive)
        signal.signal(signal.SIGTERM, self.receive)

    def receive(self, number: int, _frame: Any) -> None:
        self.last = number
        self.check()

    def check(self) -> None:
        """Raise what ends the process, if one was received."""
        if self.last == signal.SIGINT:
            raise KeyboardInterrupt
        if self.last:
            sys.exit(TERMINATED)


def _view(run: Run, width: int, height: int) -> RenderableType:
    """What fits on the terminal: the head, a bar, the part of the tree around the first open step, failures."""
    top, below = [*head(run)], [*islice(failures(run.failures), FAILURES)]
    middle = part(tree(run), max(3, height - len(top) - len(below) - 4))
    for line in (*top, *middle, *below):
        line.truncate(width, overflow="ellipsis")
    bar = ProgressBar(total=run.progress.total or None, completed=run.progress.done, width=min(width, BAR))
    return Group(*top, bar, Text(), *middle, *below, fit=True)


def part(lines: Sequence[Text], room: int) -> list[Text]:
    """As many lines as there is room for, around the first step that is not done."""
    if len(lines) <= room:
        return [*lines]
    shown = room - 2
    first = next((place for place, line in enumerate(lines) if line.plain.startswith(OPEN)), 0)
    start = max(0, min(first - shown // 3, len(lines) - shown))
    above, under = start, len(lines) - start - shown
    return [_more(above, "above"), *lines[start : start + shown], _more(under, "below")]


def _more(count: int, where: str) -> Text:
    return Text(f"  {count:,} lines {where}" if count else "", "dim")
