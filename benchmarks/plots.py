"""Plots of a run, as PNG."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .document import Document

OURS = "sidekiq-flow"
COLOURS = {
    OURS: "#2a6fbb",
    "sidekiq-8": "#c0392b",
    "sidekiq-7": "#e59866",
    "dramatiq-workflow": "#7f8c8d",
    "redis-broker": "#27ae60",
}


class MatplotlibMissing(Exception):
    """The message says how to install it."""


def draw(document: Document, folder: Path) -> Iterator[Path]:
    """Draw each plot that has data, and yield its file.

    Raises:
      MatplotlibMissing: if matplotlib is not installed.
    """
    pyplot = _pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    for name, fill in PLOTS.items():
        figure = pyplot.figure(figsize=(9, 4), layout="constrained")
        if fill(document, figure):
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=100)
            yield path
        pyplot.close(figure)


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise MatplotlibMissing("No plots: they need matplotlib: pip install -e '.[bench]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _chain(document: Document, figure: Any) -> bool:
    """Time and bytes of a step over the number of steps."""
    steps = {int(name.split("-")[1]): name for name in document.measured("chain") if name.split("-")[1].isdigit()}
    left, right = figure.subplots(1, 2)
    for peer in reversed(COLOURS):
        label = document.title(peer)
        _line(left, peer, label, {count: document.value(name, "step", peer) for count, name in steps.items()})
        _line(right, peer, label, {count: _bytes(document, name, peer) for count, name in steps.items()})
    _scale(left, "time a step, ms")
    _scale(right, "bytes a step, in and out of Redis")
    if not left.lines:
        return False
    right.legend(loc="upper left", fontsize=8, reverse=True)
    return True


def _line(axes: Any, peer: str, label: str, values: dict[int, float | None]) -> None:
    points = sorted((count, value) for count, value in values.items() if value is not None)
    if points:
        # The two versions of Sidekiq lie on each other.
        style = "--" if peer == "sidekiq-8" else "-"
        axes.plot(*zip(*points), style, marker="o", color=COLOURS[peer], label=label)


def _scale(axes: Any, title: str) -> None:
    """Both axes logarithmic, with plain numbers."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set(xscale="log", yscale="log", title=title, xlabel="steps of the chain")
    axes.grid(True, which="both", alpha=0.3)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_formatter(NullFormatter())


def _bytes(document: Document, measure: str, peer: str) -> float | None:
    sides = [document.value(measure, figure, peer) for figure in ("bytes_in", "bytes_out")]
    return sum(side for side in sides if side is not None) or None


def _throughput(document: Document, figure: Any) -> bool:
    """Bars of the no-op jobs a second."""
    panels = {
        "throughput-1": "1 process",
        "throughput-2": "2 processes",
        "throughput-1ms": "1 process, 1 ms of latency",
    }
    return _bars(document, figure, "rate", panels, "no-op jobs a second")


def _members(document: Document, figure: Any) -> bool:
    """Bars of the time of a member of a group."""
    panels = {
        "members-1": "members of a group",
        "join": "with a step behind it",
        "members-1ms": "1 ms of latency",
    }
    return _bars(document, figure, "member", panels, "us a member")


def _bars(document: Document, figure: Any, name: str, panels: dict[str, str], unit: str) -> bool:
    found = {measure: _values(document, measure, name) for measure in panels}
    shown = {measure: values for measure, values in found.items() if values}
    if not shown:
        return False
    for axes, (measure, values) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items()):
        names = [document.title(peer).replace(" with the gem", "\nwith the gem") for peer in values]
        bars = axes.bar(range(len(values)), list(values.values()), color=[COLOURS[peer] for peer in values])
        axes.bar_label(bars, labels=[f"{value:,.0f}" for value in values.values()], fontsize=8)
        axes.set_xticks(range(len(values)), names, fontsize=7, rotation=30, ha="right")
        axes.set_title(panels[measure], fontsize=10)
        axes.margins(y=0.12)
    figure.axes[0].set_ylabel(unit)
    return True


def _values(document: Document, measure: str, figure: str) -> dict[str, float]:
    """The contenders that have a figure, in the order of the colours."""
    found = {peer: document.value(measure, figure, peer) for peer in COLOURS}
    return {peer: value for peer, value in found.items() if value is not None}


PLOTS: dict[str, Callable[[Document, Any], bool]] = {
    "chain": _chain,
    "throughput": _throughput,
    "members": _members,
}
