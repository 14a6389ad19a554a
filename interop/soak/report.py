"""The table and the JSON file of a soak."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from .column import Outcome
from .judge import percentile
from .settings import KINDS

#: Problems of each sort that are printed, for each column.
PROBLEMS = 5

LABEL, WIDTH = 26, 13


def table(outcomes: Sequence[Outcome]) -> str:
    """At most 80 columns wide, for four systems."""
    lines = [_row("", [o.system.heading[0] for o in outcomes]), _row("", [o.system.heading[1] for o in outcomes])]
    lines.append("-" * (LABEL + WIDTH * len(outcomes)))

    def row(label: str, value: Callable[[Outcome], Any]) -> None:
        lines.append(_row(label, [_cell(value(outcome)) for outcome in outcomes]))

    def times(kind: str) -> Callable[[Outcome], int | None]:
        return lambda o: o.done.get(kind, 0) if kind in o.system.kinds else None

    def steered(what: str) -> Callable[[Outcome], int | None]:
        return lambda o: o.steered.get(what)

    def of_runs(sort: str) -> Callable[[Outcome], int | None]:
        return lambda o: len(getattr(o.runs, sort)) if o.system.steered else None

    row("disturbed for, s", lambda o: o.settings.seconds)
    row("workflows", lambda o: o.verdict.runs - o.dropped)
    row("jobs (steps)", lambda o: o.verdict.steps)
    row("executions", lambda o: o.verdict.executions)
    for kind, title in KINDS.items():
        row(title, times(kind))
    row("-9 that hit running jobs", lambda o: o.verdict.hits.get("kill", 0))
    row("TERM that hit running jobs", lambda o: o.verdict.hits.get("term", 0))
    row("recoveries", lambda o: len(o.verdict.recoveries))
    row("recovery time p50, s", lambda o: percentile(o.verdict.recoveries, 0.5))
    row("recovery time p99, s", lambda o: percentile(o.verdict.recoveries, 0.99))
    row("executed again", lambda o: o.verdict.again)
    row("  though its worker lived", lambda o: len(o.verdict.unexplained))
    row("LOST", lambda o: len(o.verdict.lost))
    row("DOUBLED", lambda o: len(o.verdict.doubled))
    row("EARLY", lambda o: len(o.verdict.early))
    if any(outcome.system.steered for outcome in outcomes):
        for what in ("paused", "cancelled", "signalled", "retried"):
            row(f"runs {what}", steered(what))
        row("RECORDED WRONGLY", of_runs("unrecorded"))
        row("CALLBACKS NOT CALLED ONCE", of_runs("calls"))
        row("STARTED TOO LATE", of_runs("late"))
    row("workflows not finished", lambda o: o.verdict.runs - o.verdict.finished)
    return "\n".join(lines)


def _row(label: str, cells: Sequence[str]) -> str:
    return (f"{label:{LABEL}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells)).rstrip()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.2f}" if isinstance(value, float) and value != int(value) else f"{value:,.0f}"


def remarks(outcome: Outcome) -> str:
    """What else is to be known of one column."""
    lines = []
    sorts: list[tuple[Any, str]] = [(outcome.verdict, sort) for sort in ("lost", "doubled", "early")]
    sorts += [(outcome.runs, sort) for sort in ("unrecorded", "calls", "late")]
    for verdict, sort in sorts:
        problems = getattr(verdict, sort)
        lines += [f"  {sort}: {problem}" for problem in problems[:PROBLEMS]]
        if len(problems) > PROBLEMS:
            lines.append(f"  {sort}: and {len(problems) - PROBLEMS} more")
    counts = {what: count for what, count in outcome.done.items() if what not in KINDS}
    counts |= outcome.nursed
    counts |= {f"dead: {error}": count for error, count in outcome.dead.items()}
    counts |= {f"left in {where}": count for where, count in outcome.left.items()}
    counts |= {
        "disturbances without a worker that is up": outcome.missed,
        "starts of workflows that raised": outcome.refused,
        "workflows not counted, since their start raised": outcome.dropped,
    }
    lines += [f"  {what}: {count}" for what, count in counts.items() if count]
    return "\n".join([f"{outcome.system.name}:", *(lines or ["  nothing else"])])


def as_json(outcomes: Sequence[Outcome], versions: dict[str, str]) -> dict[str, Any]:
    """All of it, as plain values."""
    columns = {}
    for outcome in outcomes:
        verdict = attrs.asdict(outcome.verdict)
        recoveries = outcome.verdict.recoveries
        columns[outcome.system.name] = {
            "settings": attrs.asdict(outcome.settings),
            "plan": outcome.plan,
            "holds": outcome.holds,
            "must_hold": outcome.system.must_hold,
            "counts": {sort: len(verdict[sort]) for sort in ("lost", "doubled", "early")},
            "recovery": {"p50": percentile(recoveries, 0.5), "p99": percentile(recoveries, 0.99)},
            **{name: getattr(outcome, name) for name in ("done", "missed", "seconds", "refused", "dropped")},
            **{name: getattr(outcome, name) for name in ("nursed", "left", "dead", "server")},
            "verdict": verdict,
            "runs": attrs.asdict(outcome.runs),
            "steered": dict(outcome.steered),
        }
    return {"versions": versions, "columns": columns}


def write(path: Path, report: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
