"""Run each command in a terminal of 80 and of 120 columns, and print and keep what it shows.

    python -m tests.captures [--only WORD] [--quiet]

The runs are written by hand into an embedded server: healthy ones, and the seven broken ones of
``tests/broken_runs.py``. Files: build/captures/WIDTH-NAME.txt. Exit code 1 if a line is longer than the terminal
is wide, or if a command ends with another exit code than expected.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import redis

from dramatiq_sidekiq_flow.cli.main import main as command_line
from dramatiq_sidekiq_flow.cli.program import ERROR
from dramatiq_sidekiq_flow.embedded import EmbeddedServer

from ..broken_runs import WAYS
from .commands import Command, commands, explain
from .runs import write_broken, write_runs
from .screen import Screen

FOLDER = Path(__file__).resolve().parents[2] / "build" / "captures"
WIDTHS = (80, 120)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.captures", description=__doc__)
    parser.add_argument("--only", default="", metavar="WORD", help="only commands that hold this word")
    parser.add_argument("--quiet", action="store_true", help="print faults only")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with EmbeddedServer() as server:
        warm_up(server.url)
        taken = [
            capture(command, width, url, arguments.quiet)
            for width in WIDTHS
            for command, url in prepare(server.url)
            if arguments.only in " ".join(command.words)
        ]
    faults = [fault for each in taken for fault in each]
    print(f"{len(taken)} captures in {FOLDER}, {len(faults)} faults")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


def warm_up(url: str) -> None:
    """Import what commands import when they run, for all children."""
    with contextlib.redirect_stdout(io.StringIO()):
        for words in (("runs", "list"), ("doctor",)):
            command_line((*words, "--url", url))


def prepare(url: str) -> Iterator[tuple[Command, str]]:
    """Write the runs anew; yield the commands with the addresses of their databases.

    Each broken run has a database of its own, where nothing else explains it.
    """
    redis.Redis.from_url(url).flushall()
    yield from ((each, url) for each in commands(write_runs(redis.Redis.from_url(url))))
    for number, way in enumerate(WAYS, 1):
        database = f"{url.rstrip('/')}/{number}"
        run_id = write_broken(redis.Redis.from_url(database), way)
        yield explain(way, run_id), database


def capture(command: Command, width: int, url: str, quiet: bool) -> list[str]:
    """Print and keep what a command shows, and return what is wrong with it."""
    screen = Screen(width)
    code = screen.run(command.words, url, command.is_live)
    text = screen.text()
    title = f"$ sidekiq-flow {' '.join(command.words)}"
    (FOLDER / f"{width}-{command.name}.txt").write_text(f"{title}\n{text}\n")
    if not quiet:
        print(f"{title}   [{width} columns, exit code {code}]\n{text}\n")
    # An error is one line, however long.
    lines = [] if code == ERROR else text.splitlines()
    faults = [f"{title}: {len(line)} of {width} columns: {line}" for line in lines if len(line) > width]
    if code != command.code:
        faults.append(f"{title}: exit code {code}, not {command.code}: {text}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
