"""Explanation of a run as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from .finding import Finding
from .run_text import count_text, moment_lines, plain_text

if TYPE_CHECKING:
    from .snapshot import Run

#: Columns of text, unless they are given.
WIDTH = 80

#: Columns in front of what a line says.
_INDENT = 9

#: What a command begins with.
_COMMAND = "sidekiq-flow "

#: The mark in front of a finding, by its outlook.
MARKS = {"moves": ">", "waits": "~", "blocked": "!"}


def explanation_lines(run: Run, verdict: str, findings: Iterable[Finding], width: int = WIDTH) -> Iterator[str]:
    """Write an explanation; commands stay on one line, even if they are longer than the width."""
    template = f" {run.template}" if run.template else ""
    yield plain_text(f"Run {run.id}{template}: {verdict}")
    yield count_text(run.progress)
    yield from moment_lines(run.started_at, run.finished_at)
    if run.reason:
        yield plain_text(f"reason: {run.reason}")
    for finding in findings:
        yield ""
        yield from finding_lines(finding, width)


def finding_lines(finding: Finding, width: int) -> Iterator[str]:
    """Write a finding."""
    mark = "." if finding.cause == "after_others" else MARKS[finding.outlook]
    queue = f", queue {finding.queue!r}" if finding.queue else ""
    yield plain_text(f"{mark} {finding.label}{queue}: {finding.cause.replace('_', ' ')}")
    yield from _named("where", f"{finding.where}{_since(finding.since)}{_due(finding.due)}", width)
    yield from _named("why", finding.why, width)
    for cure in finding.cures:
        yield from _named("cure", cure, width)


def _named(name: str, text: str, width: int) -> Iterator[str]:
    lines = list(_wrapped(plain_text(text), max(width - _INDENT, 20)))
    for title, line in zip([name, *[""] * len(lines)], lines):
        # With the id of a run, a command fits into 80 columns.
        indent = 2 if line.startswith(_COMMAND) and not title else _INDENT - 2
        yield f"  {title:<{indent}}{line}"


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Wrap a text; a command begins a line of its own, and is not wrapped, so that it can be copied."""
    before, command, rest = text.partition(_COMMAND)
    if not command:
        yield from textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        return
    yield from textwrap.wrap(before, width, break_long_words=False, break_on_hyphens=False)
    words, _, rest = rest.partition(", ")
    yield command + words
    yield from textwrap.wrap(rest, width, break_long_words=False, break_on_hyphens=False)


def _since(at: datetime | None) -> str:
    if at is None:
        return ""
    return f" since {at:%Y-%m-%d %H:%M:%S} UTC ({_ago((datetime.now(timezone.utc) - at).total_seconds())})"


def _due(at: datetime | None) -> str:
    if at is None:
        return ""
    left = (at - datetime.now(timezone.utc)).total_seconds()
    when = f"in {_ago(left)}" if left >= 0 else f"{_ago(-left)} ago"
    return f", due {at:%Y-%m-%d %H:%M:%S} UTC ({when})"


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
