"""Hurt each command of each scenario in seven ways; see ``python -m tests.sweep --help``."""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import signal
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from . import report
from .lane import Lane, Outcome, Point
from .modes import DROP, MODES
from .scenarios import ALL, SCENARIOS

ROOT = Path(__file__).parent.parent.parent

#: Of ``--quick``: every so many-th point, and at most so many of a scenario.
QUICK, MOST = 7, 40

#: Seconds between two lines of progress.
EVERY = 5.0

#: Findings that are shown as they come; all are in the file.
SHOWN = 40


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.list:
        for scenario in ALL:
            print(f"{scenario.name:14} {scenario.what}")
        print()
        for mode in MODES.values():
            print(f"{mode.name:14} {mode.what}")
        return 0
    try:
        if options.point is not None:
            return _single(options)
        with Lanes(options.jobs) as lanes:
            return _sweep(options, lanes)
    except KeyboardInterrupt:
        print("stopped")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.sweep", description=_ABOUT)
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), metavar="NAME", help="only this one")
    parser.add_argument("--mode", action="append", choices=list(MODES), metavar="NAME", help="only this one")
    parser.add_argument("--quick", action="store_true", help=f"every {QUICK}th point, or fewer")
    parser.add_argument("--point", type=int, metavar="K", help="only this command, with a log of all commands")
    parser.add_argument("--jobs", type=int, default=3 * (os.cpu_count() or 1), help="points at once (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of points, and where a stride begins")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "sweep.json", help="(build/sweep.json)")
    parser.add_argument("--list", action="store_true", help="show the scenarios and the modes")
    return parser


_ABOUT = (
    "A proxy between one worker and Redis hurts one command at a time, in each of seven ways; then a clean worker "
    "finishes. Nothing may be lost, doubled, early or stuck, and no key may stay for ever. The exit code is 1 where "
    "something was found."
)


def _single(options: argparse.Namespace) -> int:
    """One point, with everything that can be seen of it."""
    good = True

    async def run() -> None:
        nonlocal good
        async with Lane(verbose=True) as lane:
            for name in options.scenario or list(SCENARIOS):
                for mode in options.mode or list(MODES):
                    print(f"---- {name} {mode} {options.point}", flush=True)
                    outcome = await lane.run(Point(name, mode, options.point))
                    print(lane.log.read_text("utf-8", "replace"))
                    print(
                        f"hit: {outcome.hit or 'nothing'}; refused with: {outcome.error or '-'}; repeated: "
                        f"{outcome.repeated}; clean worker needed: {outcome.clean}; {outcome.seconds:.2f} s"
                    )
                    if outcome.findings:
                        good = False
                        print(report.finding_lines(outcome))

    asyncio.run(run())
    return 0 if good else 1


def _sweep(options: argparse.Namespace, lanes: Lanes) -> int:
    began = time.monotonic()
    names = list(dict.fromkeys(options.scenario or list(SCENARIOS)))
    outcomes: list[Outcome] = []
    counts: dict[str, list[int]] = {name: [] for name in names}
    # Three times: what the process does beside its jobs makes the number vary.
    for outcome in lanes.run([Point(name, DROP.name, 0) for name in names for _ in range(3)]):
        name = outcome.point.scenario
        counts[name].append(outcome.commands)
        if outcome.findings:
            print(report.finding_lines(outcome))
            print(f"{name} goes wrong without any harm.\n{outcome.log}")
            return 1
    commands = {name: sorted(found)[1] for name, found in counts.items()}
    print(f"{time.monotonic() - began:4.0f} s  commands: " + ", ".join(f"{n} {commands[n]}" for n in names), flush=True)
    points = _points(options, names, commands)
    shown = time.monotonic()
    bad = 0
    for outcome in lanes.run(points):
        outcomes.append(outcome)
        if outcome.findings:
            bad += 1
            if bad <= SHOWN:
                print(report.finding_lines(outcome), flush=True)
        if time.monotonic() - shown > EVERY:
            shown = time.monotonic()
            hit = sum(bool(o.hit) for o in outcomes)
            print(
                f"{shown - began:4.0f} s  {len(outcomes)} of {len(points)} points, {hit} hit, {bad} with findings"
                f"  ({outcome.point.scenario})",
                flush=True,
            )
    seconds = time.monotonic() - began
    outcomes.sort(key=lambda o: (names.index(o.point.scenario), o.point.mode, o.point.number))
    hit = sum(bool(o.hit) for o in outcomes)
    print()
    print(report.table(outcomes, commands))
    print()
    print(textwrap.fill(f"points by mode: {report.by_mode(outcomes)}", 80, subsequent_indent="  "))
    print(textwrap.fill(f"by command: {report.by_command(outcomes)}", 80, subsequent_indent="  "))
    print(f"{hit} points hit, {len(outcomes) - hit} not reached, {bad} with findings, in {seconds:.0f} s")
    report.write(options.json, outcomes, commands, seconds=round(seconds, 1), seed=options.seed)
    print(f"all points: {options.json}")
    return 1 if bad else 0


def _points(options: argparse.Namespace, names: Sequence[str], commands: dict[str, int]) -> list[Point]:
    found = [
        Point(name, mode, number)
        for name in names
        for offset, mode in enumerate(options.mode or list(MODES))
        for number in SCENARIOS[name].points(commands[name], offset + options.seed)
    ]
    rng = random.Random(options.seed)
    if options.quick:
        stride = max(QUICK, -(-len(found) // (MOST * len(names))))
        found = found[rng.randrange(stride) :: stride]
    # The long ones first, so that no lane ends with one alone.
    found.sort(key=lambda point: -SCENARIOS[point.scenario].patience)
    return found


class Lanes:
    """Several lanes, each a process.  Use as a context manager."""

    def __init__(self, count: int) -> None:
        self._context = multiprocessing.get_context("fork")
        self._count = max(1, count)
        self._lanes: list[tuple[Any, Any]] = []

    def __enter__(self) -> Lanes:
        for _ in range(self._count):
            mine, its = self._context.Pipe()
            others = [connection for _, connection in self._lanes]
            process = self._context.Process(target=_lane, args=(its, [mine, *others]))
            process.start()
            its.close()
            self._lanes.append((process, mine))
        return self

    def __exit__(self, *_: object) -> None:
        for _, connection in self._lanes:
            connection.close()
        for process, _ in self._lanes:
            process.join(30)
            if process.is_alive():
                process.kill()

    def run(self, points: Sequence[Point]) -> Iterator[Outcome]:
        """Take points; outcomes as they come."""
        waiting = list(reversed(points))
        busy: set[Any] = set()
        for _, connection in self._lanes:
            if waiting:
                connection.send(waiting.pop())
                busy.add(connection)
        while busy:
            for ready in _ready(busy):
                try:
                    outcome = ready.recv()
                except EOFError:
                    raise SystemExit("A lane has ended by itself; see above.") from None
                if waiting:
                    ready.send(waiting.pop())
                else:
                    busy.discard(ready)
                yield outcome


def _ready(busy: set[Any]) -> list[Any]:
    """The connections that have something to read, once there is one."""
    return list(wait(list(busy)))


def _lane(connection: Any, others: Sequence[Any]) -> None:
    """The process of a lane: points in, outcomes out, until the connection is closed."""
    # Ctrl-C is for the one that holds the connections.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for other in others:
        other.close()

    async def work() -> None:
        async with Lane() as lane:
            while True:
                try:
                    point = await asyncio.to_thread(connection.recv)
                except EOFError:
                    return
                connection.send(await lane.run(point))

    try:
        asyncio.run(work())
    except (BrokenPipeError, ConnectionResetError):
        # Nobody waits for the outcome any more.
        return


if __name__ == "__main__":
    sys.exit(main())
