"""Pages of runs as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from .columns import Column
from .terminal import UNLIMITED, age, open_console, plain, print_table, state

if TYPE_CHECKING:
    from ..runs import Progress, Run

#: With fewer characters in a line, tags are left out.
WIDE = 100


def print_runs(runs: Sequence[Run], limit: int) -> None:
    """Print a page, and how to get the next one."""
    console = open_console()
    if not runs:
        console.print("No runs.")
        return
    tags = console.width >= WIDE
    started = Column("STARTED") if console.width == UNLIMITED else Column("AGE")
    columns = [Column("RUN"), Column("STATE"), Column("DONE", right=True), started, Column("TEMPLATE", flexible=True)]
    if tags:
        columns.append(Column("TAGS", flexible=True))
    print_table(console, columns, [_row(run, console, tags) for run in runs])
    if len(runs) == limit and console.is_terminal:
        console.print(plain(f"More: --after {runs[-1].id}", "dim"))


def _row(run: Run, console: Console, tags: bool) -> list[Text]:
    row = [plain(run.id), state(run.state), share(run.progress), _started(run, console), plain(run.template or "-")]
    return [*row, plain(", ".join(run.tags))] if tags else row


def share(progress: Progress) -> Text:
    """The number of steps that are done, of all."""
    total = "?" if progress.total is None else f"{progress.total:,}"
    return Text(f"{progress.done:,}/{total}")


def _started(run: Run, console: Console) -> Text:
    if console.width == UNLIMITED and run.started_at is not None:
        return Text(run.started_at.isoformat(timespec="seconds"))
    return Text(age(run.started_at))
