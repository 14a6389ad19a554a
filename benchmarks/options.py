"""The command line of ``python -m benchmarks``."""

from __future__ import annotations

import argparse
from pathlib import Path

import attrs

from .catalogue import measures
from .measures import Measure

#: Where the JSON object and the plots of a run go.
OUTPUT = Path("build") / "bench"


class WrongOption(ValueError):
    """An option that makes no sense; the message says why."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures this package and its peers.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small sizes and two rounds, without Ruby, and check the limits of limits.py (a minute)",
    )
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="only this measure (chain-100), or all of a kind (chain)"
    )
    parser.add_argument(
        "--ruby", metavar="7,8", help="these versions of Sidekiq, or none; by default all that run here"
    )
    parser.add_argument("--alone", action="store_true", help="measure only this package")
    parser.add_argument("--rounds", type=int, metavar="N", help="this many rounds of each measure")
    parser.add_argument("--url", help="an EMPTY Redis to measure on (it is emptied again and again); ours by default")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of the JSON object and the plots")
    parser.add_argument("--plots", type=Path, metavar="FILE", help="only plot this JSON object of a run")
    parser.add_argument("--goals", type=Path, metavar="FILE", help="only print the goals of this JSON object of a run")
    return parser.parse_args()


def choose(options: argparse.Namespace) -> list[Measure]:
    """The measures that the options ask for.

    Raises:
      WrongOption: if there are none of that name, or no rounds.
    """
    known = measures(options.quick)
    if options.only:
        chosen = _named(known, set(options.only))
    else:
        chosen = [measure for measure in known if measure.quick or not options.quick]
    if options.rounds is None:
        return chosen
    if options.rounds < 1:
        raise WrongOption("--rounds must be 1 or more")
    return [attrs.evolve(measure, rounds=options.rounds) for measure in chosen]


def _named(known: list[Measure], asked: set[str]) -> list[Measure]:
    names = set().union(*(measure.names for measure in known))
    if unknown := asked - names:
        raise WrongOption(f"There is no measure {', '.join(sorted(unknown))}, but: {', '.join(sorted(names))}")
    return [measure for measure in known if measure.names & asked]


def ruby_majors(options: argparse.Namespace) -> set[int] | None:
    """The versions of Sidekiq that must be there; None for those that can be had.

    Raises:
      WrongOption: if one is unknown.
    """
    asked = "none" if options.ruby is None and options.quick else options.ruby
    if asked is None:
        return None
    if asked == "none":
        return set()
    majors = set(asked.split(","))
    if not majors <= {"7", "8"}:
        raise WrongOption(f"--ruby is 7, 8, 7,8 or none, not {asked}")
    return {int(major) for major in majors}
