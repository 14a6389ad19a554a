"""One run: its head, its tree or its steps, and what failed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from itertools import islice
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from ..runs.run_text import MARKS, step_lines
from .columns import Column
from .terminal import STYLES, age, length, moment, open_console, plain, print_line, print_table, state

if TYPE_CHECKING:
    from ..runs import Progress, Run, Step

#: Steps that are read, and printed, at a time.
ROWS = 1_000

#: The mark in front of a line has the colour of its state.
_MARK_STYLES = {mark: STYLES.get(word, "") for word, mark in MARKS.items()}


def print_run(run: Run, steps: bool) -> None:
    """Print a run: its tree, or a row for each of its steps."""
    console = open_console()
    for line in head(run):
        print_line(console, line)
    print_line(console, Text())
    if steps:
        _print_steps(console, run.steps)
    else:
        for line in tree(run):
            print_line(console, line)
    if run.failures:
        print_line(console, Text())
        for line in failures(run.failures):
            console.print(line, overflow="fold")


def head(run: Run) -> Iterator[Text]:
    """What a run is, since when, and how far."""
    yield _named("Run", plain(run.id))
    yield _named("State", _state(run))
    if run.template:
        yield _named("Template", plain(run.template))
    if run.tags:
        yield _named("Tags", plain(", ".join(run.tags)))
    if run.started_at is not None:
        yield _named("Started", Text(f"{moment(run.started_at)}, {age(run.started_at)} ago"))
        if run.finished_at is not None:
            yield _named("Ended", Text(f"{moment(run.finished_at)}, after {length(run.finished_at - run.started_at)}"))
    yield _named("Steps", progress(run.progress))


def _state(run: Run) -> Text:
    reason = f": {run.reason}" if run.reason else ""
    return Text.assemble(state(run.state), " (inferred)" if run.inferred else "", plain(reason))


def _named(name: str, text: Text) -> Text:
    return Text.assemble((f"{name:<10}", "bold"), text)


def progress(found: Progress) -> Text:
    """The numbers of steps in words; those that are 0 are left out."""
    text = Text(f"{found.done:,} of {'?' if found.total is None else format(found.total, ',')} done")
    for number, word in ((found.running, "running"), (found.waiting, "waiting"), (found.failed, "failed")):
        if number:
            text.append(f", {number:,} ").append_text(state(word))
    return text


def tree(run: Run) -> list[Text]:
    """The tree with the state of each step."""
    return [_marked(line) for line in step_lines(run.steps)]


def _marked(line: str) -> Text:
    text, style = plain(line), _MARK_STYLES.get(line[:1], "")
    text.stylize(style, 0, 1)
    return text


def failures(steps: Iterable[Step]) -> Iterator[Text]:
    """The dead steps, with their errors."""
    for step in steps:
        yield Text.assemble(state("failed"), " ", plain(f"{_number(step)} {step.name}: {step.error or 'no error'}"))


def _print_steps(console: Console, steps: Iterable[Step]) -> None:
    remaining, titles = iter(steps), True
    while rows := list(islice(remaining, ROWS)):
        errors = any(step.error for step in rows)
        columns = [
            Column("NO", right=True),
            Column("STEP", flexible=True),
            Column("STATE"),
            Column("QUEUE", flexible=True),
            Column("STARTED"),
            Column("TOOK", right=True),
            Column("ATTEMPTS", right=True),
            *([Column("ERROR", flexible=True)] if errors else []),
        ]
        print_table(console, columns, [_row(step, errors) for step in rows], titles)
        titles = False


def _row(step: Step, errors: bool) -> Sequence[Text]:
    row = [
        Text(_number(step)),
        plain(step.name),
        _step_state(step),
        plain(step.queue or "-"),
        Text(f"due {step.due_at.astimezone():%m-%d %H:%M:%S}" if step.due_at else moment(step.started_at)),
        Text(_took(step.started_at, step.ended_at)),
        Text(str(step.attempts)),
    ]
    return [*row, plain(step.error or "")] if errors else row


def _number(step: Step) -> str:
    return "-" if step.number is None else str(step.number)


def _step_state(step: Step) -> Text:
    """The word of a step's state, with a star if it is inferred."""
    return Text.assemble(state(step.state), "*" if step.inferred else "")


def _took(start: datetime | None, end: datetime | None) -> str:
    if start is None:
        return "-"
    return length((end or datetime.now(timezone.utc)) - start)
