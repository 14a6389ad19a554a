"""The tables that a person reads: ratios first, then the figures themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .measures import COSTS
from .peers import Peer
from .results import Result, Spread

#: Widths of the columns.
_NAME = 28
_MAIN = 36
_COST = 13

COSTS_NOTE = "costs are per job, CPU in us; worker peak: the largest resident memory of a worker process, in MB"


def headline(about: dict[str, Any]) -> str:
    """The machine and the versions, in one line."""
    packages = "; ".join(f"{name} {number}" for name, number in about["versions"].items())
    server = about["server"]
    cpus = f"{about['cpus']} CPUs ({about['cpu']})"
    return f"Python {about['python']}, {cpus}, {server['name']} {server['version']}; {packages}"


def tables(results: Iterable[Result], peers: list[type[Peer]]) -> str:
    """Both tables, and the notes below them."""
    results = list(results)
    ours, *others = peers
    lines = (
        []
        if not others
        else [
            f"RATIOS: {ours.title} divided by each peer",
            "within a round, median of the rounds [lowest - highest]",
            COSTS_NOTE,
            "",
        ]
    )
    for result in results if others else ():
        lines += _block(result, others, lambda result, peer, name: result.ratio(ours.name, peer, name), "/ ", "x")
    lines += ["", "FIGURES: median of the rounds [lowest - highest]", COSTS_NOTE, ""]
    for result in results:
        lines += _block(result, peers, lambda result, peer, name: result.absolute(peer, name), "", "")
    lines += [f"{peer.title}: {peer.note}." for peer in peers if peer.note]
    return "\n".join(lines)


def _block(
    result: Result,
    peers: Iterable[type[Peer]],
    spread_of: Callable[[Result, str, str], Spread | None],
    before: str,
    unit: str,
) -> list[str]:
    costs = [name for name in COSTS if any(name in s for samples in result.samples.values() for s in samples)]
    lines = [result.measure.title]
    for number, (main, figure) in enumerate(result.measure.figures.items()):
        # Costs belong to the measure, not to one of its figures: once.
        shown = [] if number else costs
        better = "higher" if figure.higher_is_better else "lower"
        head = f"{figure.title}{'' if unit else f', {figure.unit}'} ({better} is better)"
        lines.append(f"{'':{_NAME}}{head:<{_MAIN}}" + "".join(f"{COSTS[cost].title:>{_COST}}" for cost in shown))
        for peer in peers:
            if peer.name in result.measure.peers:
                cells = result.reason(peer.name) or _cells(result, peer.name, main, shown, spread_of, unit)
                lines.append(f"  {before + peer.title:<{_NAME - 2}}{cells}".rstrip())
    return [*lines, ""]


def _cells(
    result: Result,
    peer: str,
    main: str,
    costs: list[str],
    spread_of: Callable[[Result, str, str], Spread | None],
    unit: str,
) -> str:
    cells = [spread_of(result, peer, cost) for cost in costs]
    shown = "".join(f"{number(cell.median) + unit if cell else '-':>{_COST}}" for cell in cells)
    return f"{_main(spread_of(result, peer, main), unit):<{_MAIN}}{shown}"


def _main(spread: Spread | None, unit: str) -> str:
    if spread is None:
        return "-"
    return f"{number(spread.median)}{unit} [{number(spread.low)} - {number(spread.high)}]"


def number(value: float) -> str:
    """Three digits that matter."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    if abs(value) >= 0.1:
        return f"{value:.2f}"
    return f"{value:.2g}"
