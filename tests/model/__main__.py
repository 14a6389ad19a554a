"""Explore the protocol, the plain gem, and the protocol with parts left out.

Prints a table, and how each thing that goes wrong comes about; writes build/model.json.
Exits with 1 where a property of this package's protocol does not hold, or where
the model no longer finds what it must find.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .configurations import BROKEN, FAST, GEM, MIXED, OURS, Configuration
from .explorer import Result, explore
from .ours import BREAKS

OUTPUT = Path("build", "model.json")

#: Columns: name, states, transitions, seconds, verdict.
ROW = "{:<40}{:>9}{:>13}{:>9}  {}"

SECTIONS = [
    ("This package: every kind of fault in every place", OURS),
    ("The same, with jobs that are kept and steps that are handed over", FAST),
    ("Beside the plain gem's workers: faults of Python's", MIXED),
    ("The plain gem", GEM),
    ("This package with one part left out", BROKEN),
]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__.splitlines()[0])
    parser.add_argument("--deep", action="store_true", help="also what takes minutes and some GB of memory")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the JSON file (%(default)s)")
    options = parser.parse_args()
    rows, right = [], True
    print(ROW.format("configuration", "states", "transitions", "seconds", "verdict"))
    for title, configurations in SECTIONS:
        print(f"\n{title}")
        for configuration in configurations:
            if configuration.deep and not options.deep:
                continue
            found = explore(configuration.model())
            right = right and found.property == configuration.finds
            print(row(configuration, found), flush=True)
            rows.append({"section": title, "configuration": configuration.name, **found._asdict()})
    for found_row in rows:
        if found_row["trace"] and found_row["section"] == SECTIONS[3][0]:
            print(f"\n{found_row['configuration']}: {found_row['problem']}")
            for number, words in enumerate(found_row["trace"], 1):
                print(f"  {number:>2}. {words}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"right": right, "rows": rows}, indent=1) + "\n")
    total = sum(found_row["states"] for found_row in rows)
    print(f"\n{total:,} states; {options.output}")
    return 0 if right else 1


def row(configuration: Configuration, found: Result) -> str:
    if found.problem:
        verdict = f"{found.property} after {len(found.trace)} steps"
    else:
        verdict = "holds"
    if found.property != configuration.finds:
        verdict = f"WRONG: {verdict}, not {configuration.finds or 'holds'}"
    name = f"without: {configuration.name}" if configuration.name in BREAKS else configuration.name
    return ROW.format(name, f"{found.states:,}", f"{found.transitions:,}", f"{found.seconds:.2f}", verdict)


if __name__ == "__main__":
    sys.exit(main())
