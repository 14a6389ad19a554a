"""``python -m tests.mutants``: exits with 1 if a mutant survives, or if a line that one changes is gone."""

from __future__ import annotations

import argparse
import json
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from .catalogue import ALL
from .mutant import LineGone, Mutant, path_of
from .trial import ROOT, Copy, Outcome

REPORT = ROOT / "build" / "mutants.json"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    part, parts = options.part
    mutants = [m for m in ALL if wanted(m, options)][part - 1 :: parts]
    if not mutants:
        print("No mutant has that name or file: python -m tests.mutants --list", file=sys.stderr)
        return 2
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name}  ({mutant.file})\n    {mutant.why}")
        return 0
    gone = check(mutants)
    if gone:
        print("\n\n".join(gone), file=sys.stderr)
        return 1
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = [Copy(Path(folder, f"copy-{n}")) for n in range(options.jobs)]
        try:
            if not options.skip_unchanged and not unchanged_passes(copies, mutants):
                return 1
            outcomes = run(copies, mutants)
        finally:
            for copy in copies:
                copy.stop()
    write(mutants, outcomes)
    return report(mutants, outcomes, time.monotonic() - began)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description="Break the code in each of many known ways, and see that a test fails each time. "
        f"The result is also in {REPORT.relative_to(ROOT)}.",
    )
    parser.add_argument("--only", metavar="NAME", action="append", help="mutants with this in their name (repeatable)")
    parser.add_argument("--file", metavar="FILE", action="append", help="mutants of this file, such as advance.lua")
    parser.add_argument(
        "--part", metavar="I/N", type=part_of, default=(1, 1), help="only part I of N parts of about the same length"
    )
    parser.add_argument("--list", action="store_true", help="print what there is, and run nothing")
    parser.add_argument("--jobs", metavar="N", type=int, default=2, help="how many run at a time (2)")
    parser.add_argument(
        "--skip-unchanged", action="store_true", help="do not see first that the tests pass on the unchanged code"
    )
    return parser.parse_args(arguments)


def part_of(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not part.isdigit() or not parts.isdigit() or not 1 <= int(part) <= int(parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 1/3")
    return int(part), int(parts)


def wanted(mutant: Mutant, options: argparse.Namespace) -> bool:
    if options.only and not any(part in mutant.name for part in options.only):
        return False
    return not options.file or any(mutant.file == name or mutant.file.endswith(f"/{name}") for name in options.file)


def check(mutants: Sequence[Mutant]) -> list[str]:
    """What keeps mutants from being tried: lines that are gone."""
    problems = []
    for mutant in mutants:
        try:
            mutant.applied(path_of(mutant, ROOT).read_text("utf-8"))
        except (LineGone, OSError) as e:
            problems.append(str(e))
    return problems


def unchanged_passes(copies: Sequence[Copy], mutants: Sequence[Mutant]) -> bool:
    """Whether all tests pass on the unchanged copies; else a killed mutant would say nothing."""
    tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    print(f"The unchanged code, with the {len(tests)} tests that are used:", flush=True)
    # By file, so that the module's fixtures are made once.
    tests.sort(key=lambda test: test.partition("::")[0])
    size = -(-len(tests) // len(copies))
    parts = [tests[i : i + size] for i in range(0, len(tests), size)]
    with ThreadPoolExecutor(len(copies)) as pool:
        outcomes = list(pool.map(lambda pair: pair[0].run(pair[1], 600), zip(copies, parts)))
    for outcome in outcomes:
        if outcome.state != "survived":
            print(f"{outcome.state}: {outcome.test}\n{outcome.error}", file=sys.stderr)
    passed = all(outcome.state == "survived" for outcome in outcomes)
    print(f"{'passed' if passed else 'failed'} ({max(o.seconds for o in outcomes):.0f} s)", flush=True)
    return passed


def run(copies: Sequence[Copy], mutants: Sequence[Mutant]) -> dict[str, Outcome]:
    """Try each mutant in a copy that is free."""
    free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)
    stopped = threading.Event()

    def one(mutant: Mutant) -> Outcome | None:
        if stopped.is_set():
            return None
        copy = free.get()
        try:
            return copy.try_mutant(mutant)
        finally:
            free.put(copy)

    outcomes: dict[str, Outcome] = {}
    with ThreadPoolExecutor(len(copies)) as pool:
        try:
            names = {pool.submit(one, mutant): mutant.name for mutant in mutants}
            for future in as_completed(names):
                outcome = future.result()
                if outcome is not None:
                    outcomes[names[future]] = outcome
                    print(progress(len(outcomes), len(mutants), names[future], outcome), flush=True)
        except BaseException:
            stopped.set()
            for copy in copies:
                copy.stop()
            raise
    return outcomes


def progress(done: int, total: int, name: str, outcome: Outcome) -> str:
    return f"[{done:3}/{total}] {outcome.state:8} {outcome.seconds:5.1f} s  {name}"


def write(mutants: Sequence[Mutant], outcomes: dict[str, Outcome]) -> None:
    found = []
    for mutant in mutants:
        outcome = outcomes[mutant.name]
        found.append(
            {
                "mutant": mutant.name,
                "why": mutant.why,
                "file": mutant.file,
                "state": outcome.state,
                "test": outcome.test,
                "error": outcome.error,
                "seconds": round(outcome.seconds, 2),
            }
        )
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def report(mutants: Sequence[Mutant], outcomes: dict[str, Outcome], seconds: float) -> int:
    """Print the table; the exit code."""
    file = ""
    for mutant in sorted(mutants, key=lambda m: m.file):
        if mutant.file != file:
            file = mutant.file
            print(f"\n{file}")
        outcome = outcomes[mutant.name]
        killer = outcome.test.rpartition("/")[2] or outcome.state.upper()
        print(f"  {mutant.name:38} {outcome.seconds:5.1f} s\n      {killer}")
    left = [m for m in mutants if outcomes[m.name].state not in ("killed", "hung")]
    print(f"\n{len(mutants) - len(left)} of {len(mutants)} mutants killed, in {seconds:.0f} s.")
    for mutant in left:
        outcome = outcomes[mutant.name]
        print(f"\n{outcome.state}: {mutant.name} ({mutant.file})\n  {mutant.why}\n  {outcome.error}".rstrip())
    return bool(left)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
