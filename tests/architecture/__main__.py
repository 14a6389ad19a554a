"""Compare each measure with its limit: ``python -m tests.architecture``.

Exit code 1 if a limit does not hold; the places are printed then.  ``--show NAME``
prints the places of one measure, ``--write`` brings the list of files on the page
up to date.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from . import limits, page
from .measures import MEASURES, Measured, finished_job

ROOT = Path(__file__).parent.parent.parent

#: How many places of a measure are printed if its limit does not hold.
SHOWN = 30


def number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def holds(limit: limits.Limit, value: float) -> bool:
    return limit.least <= value <= limit.limit


def row(limit: limits.Limit, value: float) -> str:
    if not holds(limit, value):
        verdict = "FAILS"
    elif limit.limit <= limit.goal:
        verdict = "ok"
    else:
        verdict = "ok: lower" if value < limit.limit else "ok so far"
    return f"{limit.title:<49}{number(value):>6}{number(limit.limit):>6}{number(limit.goal):>6}  {verdict}"


def report(found: dict[str, Measured]) -> Iterator[str]:
    """A table of all measures, and the places of those that fail."""
    yield f"{'':<49}{'now':>6}{'limit':>6}{'goal':>6}"
    for name, measured in found.items():
        yield row(limits.LIMITS[name], measured.value)
    for name, measured in found.items():
        if not holds(limits.LIMITS[name], measured.value):
            yield f"\n{limits.LIMITS[name].title}: {number(measured.value)}"
            yield from (f"  {place}" for place in measured.places[:SHOWN])
            if len(measured.places) > SHOWN:
                yield f"  and {len(measured.places) - SHOWN} more: python -m tests.architecture --show {name}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.architecture", description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="another tree of the project")
    parser.add_argument("--show", choices=MEASURES, help="the places of one measure")
    parser.add_argument("--write", action="store_true", help="write the list of files on the page anew")
    options = parser.parse_args(arguments)
    if options.show:
        measured = MEASURES[options.show](options.root)
        print(limits.LIMITS[options.show].title, number(measured.value), sep=": ")
        print("\n".join(f"  {place}" for place in measured.places))
        return 0
    if options.write:
        path = options.root / limits.TRIP_PAGE
        path.write_text(page.written(path.read_text("utf-8"), finished_job(options.root).files), "utf-8")
        return 0
    found = {name: measure(options.root) for name, measure in MEASURES.items()}
    print("\n".join(report(found)))
    return 0 if all(holds(limits.LIMITS[name], measured.value) for name, measured in found.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
