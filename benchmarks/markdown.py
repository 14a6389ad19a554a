"""The tables of docs/performance.md: ``python -m benchmarks.markdown build/bench/out.json``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import goals, scale
from .document import Document
from .report import number

OURS = "sidekiq-flow"
#: Without a figure of its own; all others are columns.
COSTS = ("reads", "commands", "bytes_in", "bytes_out", "server_cpu", "cpu", "peak")


def figures(document: Document) -> str:
    """A row for each figure of each measure, with the median of each contender."""
    peers = list(document.data["peers"])
    lines = _head(["", *(document.title(peer) for peer in peers)])
    for entry in document.data["measures"]:
        for name, figure in entry["figures"].items():
            if name not in COSTS:
                title = f"{entry['title']}: {figure['title']}, {figure['unit']}"
                lines.append(_row([title, *_values(document, entry["name"], name, peers)]))
    return "\n".join(lines)


def costs(document: Document, peer: str) -> str:
    """A row for each measure, with the costs of one contender."""
    titles = ["", "network reads", "commands", "bytes in", "bytes out", "Redis CPU, us", "worker CPU, us", "peak, MB"]
    lines = _head(titles)
    for entry in document.data["measures"]:
        cells = [_cell(document.value(entry["name"], cost, peer)) for cost in COSTS]
        if set(cells) != {""}:
            lines.append(_row([entry["name"], *cells]))
    return "\n".join(lines)


def reached(document: Document) -> str:
    """A row for each goal."""
    lines = _head(["", "measured", "goal", ""])
    lines += [_row(goals.row(goal, document)) for goal in goals.GOALS]
    return "\n".join(lines)


def page(document: Document) -> str:
    """All tables, each under its heading."""
    about: dict[str, Any] = document.data
    server = about["server"]
    versions = "; ".join(f"{name} {version}" for name, version in about["versions"].items())
    parts = [
        f"{about['machine']}, {about['cpus']} CPUs ({about['cpu']}), Python {about['python']}, "
        f"{server['name']} {server['version']}; {versions}.",
        "### Goals\n\n" + reached(document),
        "### Figures\n\n" + figures(document),
    ]
    for peer in (OURS, *goals.RUBY):
        if document.has(peer):
            parts.append(f"### Costs: {document.title(peer)}\n\n" + costs(document, peer))
    parts.append("### At scale\n\n" + scale.table(document))
    return "\n\n".join(parts)


def _values(document: Document, measure: str, figure: str, peers: Sequence[str]) -> list[str]:
    return [_cell(document.value(measure, figure, peer)) for peer in peers]


def _cell(value: float | None) -> str:
    return "" if value is None else number(value)


def _head(titles: Sequence[str]) -> list[str]:
    return [_row(titles), "|" + "---|" * len(titles)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.markdown", description=__doc__)
    parser.add_argument("file", type=Path, help="the JSON object of a run")
    print(page(Document.read(parser.parse_args().file)))


if __name__ == "__main__":
    main()
