"""Explanation of a run on the terminal, and the lines of the doctor."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from ..runs.explanation_text import MARKS, WIDTH, explanation_lines
from .terminal import UNLIMITED, length, open_console, plain, print_line, state

if TYPE_CHECKING:
    from ..runs import Explanation, Finding
    from ..runs.remedies import Action

#: Columns of text, at most: longer lines are hard to read.
WIDEST = 100

#: Actions that are shown of each run, at most.
ACTIONS = 20

#: The mark in front of a finding, and its colour.
_STYLES = {MARKS["blocked"]: "bold red", MARKS["waits"]: "blue", MARKS["moves"]: "cyan"}

#: The word in front of an action.
_OUTCOMES = {"planned": "would", "done": "done", "refused": "not"}


def print_explanation(explanation: Explanation) -> None:
    """Print an explanation, as wide as the terminal, up to 100 columns."""
    console = open_console()
    width = WIDTH if console.width == UNLIMITED else min(console.width, WIDEST)
    for line in explanation_lines(explanation.run, explanation.verdict, explanation.findings, width):
        print_line(console, _styled(line))


def _styled(line: str) -> Text:
    text = plain(line)
    style = _STYLES.get(line[:1])
    if style is not None:
        text.stylize(style, 0, 1)
    elif line.startswith("Run "):
        text.stylize("bold")
    return text


def print_illness(explanation: Explanation, actions: Iterable[Action]) -> None:
    """Print what the doctor has found of a run, a line for each cause, and what is done about it."""
    console = open_console()
    template = f" {explanation.run.template}" if explanation.run.template else ""
    head = Text.assemble(plain(f"{explanation.run.id} "), state(explanation.verdict), plain(template))
    head.truncate(console.width, overflow="ellipsis")
    print_line(console, head)
    for line in _causes(explanation):
        _print_cut(console, line)
    for line in _done(list(actions), min(console.width, WIDEST)):
        print_line(console, plain(line))


def _done(actions: Sequence[Action], width: int) -> Iterator[str]:
    texts = [*_folded(actions)]
    for text in texts[:ACTIONS]:
        yield from textwrap.wrap(text, width, subsequent_indent=" " * 9)
    if len(texts) > ACTIONS:
        yield f"  ... and {len(texts) - ACTIONS:,} more"


def _folded(actions: Iterable[Action]) -> Iterator[str]:
    """Yield a text for each action; one for successive actions that differ in the step only."""
    for (outcome, rest), equal in groupby(actions, lambda action: (action.outcome, _after_step(action))):
        first, *others = equal
        text = f"each of {1 + len(others):,} steps from {first.step} on, {rest}" if others else first.text
        yield f"  {_OUTCOMES[outcome] + ':':<7}{text}"


def _after_step(action: Action) -> str:
    """The text of an action without the number of its step."""
    return action.text.removeprefix(f"step {action.step} ")


def _causes(explanation: Explanation) -> Iterator[str]:
    findings = explanation.blocked or explanation.findings
    for finding in findings:
        yield f"  {finding.cause.replace('_', ' ')}: {finding.label}{_age(finding)}. {finding.why}"


def _age(finding: Finding) -> str:
    return "" if finding.since is None else f" for {length(datetime.now(timezone.utc) - finding.since)}"


def _print_cut(console: Console, line: str) -> None:
    text = plain(line)
    text.truncate(console.width, overflow="ellipsis")
    print_line(console, text)
