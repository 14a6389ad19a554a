"""What the sweep prints and writes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from .judge import KINDS
from .lane import Outcome

_HEADS = ("scenario", "commands", "points", "lost", "doubled", "early", "stuck", "no TTL", "unrecorded", "clean")


def rows(outcomes: Sequence[Outcome], commands: Mapping[str, int]) -> list[list[str]]:
    """A row for each scenario, and their sum."""
    found = []
    for name in dict.fromkeys(outcome.point.scenario for outcome in outcomes):
        found.append([name, str(commands.get(name, 0)), *_cells([o for o in outcomes if o.point.scenario == name])])
    found.append(["all", str(sum(commands.values())), *_cells(outcomes)])
    return found


def _cells(outcomes: Sequence[Outcome]) -> list[str]:
    hit = [outcome for outcome in outcomes if outcome.hit]
    kinds = Counter(kind for outcome in hit for kind in {finding.kind for finding in outcome.findings})
    return [str(len(hit)), *(str(kinds[kind]) for kind in KINDS), str(sum(outcome.clean for outcome in hit))]


def table(outcomes: Sequence[Outcome], commands: Mapping[str, int]) -> str:
    """Scenario x what was found; at most 80 columns."""
    lines = [list(_HEADS), *rows(outcomes, commands)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEADS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))
        )
        for line in lines
    )


def by_mode(outcomes: Iterable[Outcome]) -> str:
    """How many points each mode has hit."""
    counts = Counter(outcome.point.mode for outcome in outcomes if outcome.hit)
    return ", ".join(f"{mode} {count}" for mode, count in counts.items())


def by_command(outcomes: Iterable[Outcome]) -> str:
    """How many points hit each script or command, the most frequent ones first."""
    counts = Counter(outcome.hit for outcome in outcomes if outcome.hit)
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def reproduction(outcome: Outcome) -> str:
    """The command line of one point."""
    point = outcome.point
    return f'make sweep SWEEP="--scenario {point.scenario} --mode {point.mode} --point {point.number}"'


def finding_lines(outcome: Outcome) -> str:
    """What was found at a point, and how to see it again."""
    point = outcome.point
    head = f"FOUND  {point.scenario} {point.mode} {point.number}, at {outcome.hit or 'no command'}"
    if outcome.error:
        head += f" ({outcome.error.split()[0]})"
    found = [f"    {finding.kind}: {finding.text}" for finding in outcome.findings[:8]]
    return "\n".join((head, *found, f"    {reproduction(outcome)}"))


def write(path: Path, outcomes: Sequence[Outcome], commands: Mapping[str, int], **more: Any) -> None:
    """All of it as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table_ = [dict(zip(_HEADS, row)) for row in rows(outcomes, commands)]
    points = [attrs.asdict(outcome) for outcome in outcomes]
    path.write_text(json.dumps({**more, "table": table_, "points": points}, indent=1) + "\n")
