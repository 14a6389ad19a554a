"""Disturbs workers of both languages and their server while random workflows run, and counts what went wrong.

    python -m interop.soak --minutes 10
    python -m interop.soak --quick
    python -m interop.soak --minutes 2 --columns companion,gem --seed 7

Workers are killed with -9, stopped with TERM, and paused for so long that they
are taken for dead; their connections are cut; the server (redis-server, which
writes what it accepts to its disk before it replies) is killed and started
again, forgets its scripts, and answers OOM, READONLY and BUSY for seconds.  At
the end every step must have run (else: lost), pushed once (else: doubled), and
after all steps before it (else: early).  The exit code is 1 where one of these
is not 0 with the companion, or where jobs are left over.

Beside it, for a quarter of the time each: Ruby with the plain gem, the gem alone,
and dramatiq-workflow.  They are only reported.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interop.tests.processes import ROOT, RUN

from . import report
from .column import Column, Outcome
from .settings import Settings
from .systems import SYSTEMS, versions

#: Seconds of disturbance of --quick.
QUICK = 40.0

RUBY_VERSIONS = 'puts "Sidekiq " + Sidekiq::VERSION + ", Ruby " + RUBY_VERSION'


def columns_of(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in SYSTEMS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"choose from {', '.join(SYSTEMS)}")
    return names


def parser() -> argparse.ArgumentParser:
    plain = Settings(seed=0, seconds=0)
    parser = argparse.ArgumentParser(prog="python -m interop.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of the first column; others take a quarter (10)")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK:.0f} s, and only the column {next(iter(SYSTEMS))}"
    )
    parser.add_argument("--columns", type=columns_of, metavar="NAME,...", help=f"of {', '.join(SYSTEMS)} (all)")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="of workflows and disturbances")
    for name in ("python", "ruby"):
        default = getattr(plain, name)
        parser.add_argument(f"--{name}", type=int, default=default, help=f"workers of this language ({default})")
    parser.add_argument("--rate", type=float, default=plain.rate, help=f"workflows a second ({plain.rate:.0f})")
    parser.add_argument(
        "--heartbeat",
        type=float,
        default=plain.heartbeat,
        help=f"seconds until a silent worker is dead ({plain.heartbeat:.0f})",
    )
    parser.add_argument("--references", type=int, metavar="BYTES", help="keep chains of so many bytes by reference")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "soak.json", help="file (build/soak.json)")
    parser.add_argument("--logs", type=Path, help="keep records and logs in this folder")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    names = options.columns or ([next(iter(SYSTEMS))] if options.quick else list(SYSTEMS))
    for name in names:
        if SYSTEMS[name].missing:
            print(SYSTEMS[name].missing, file=sys.stderr)
            return 2
    found = {**versions(), "python": platform.python_version(), "ruby": ruby_versions()}
    print(f"seed {options.seed}; {found['ruby']}; {os.cpu_count()} cores", flush=True)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder = options.logs or Path(temporary)
        for name in names:
            seconds = QUICK if options.quick else options.minutes * 60
            settings = Settings(
                seed=options.seed,
                seconds=seconds if SYSTEMS[name].must_hold else seconds / 4,
                python=options.python,
                ruby=options.ruby,
                heartbeat=options.heartbeat,
                rate=options.rate,
                references=options.references,
            )
            print(f"\n{name}: {settings.seconds:.0f} s of disturbances", flush=True)
            outcomes.append(Column(SYSTEMS[name], settings, folder / name).run())
    found["redis-server"] = outcomes[0].server
    show(options, outcomes, found)
    return 1 if any(o.system.must_hold and not o.holds for o in outcomes) else 0


def show(options: argparse.Namespace, outcomes: Sequence[Outcome], found: dict[str, str]) -> None:
    """Print the table, and write the file."""
    print(f"\n{report.table(outcomes)}\n")
    for outcome in outcomes:
        print(report.remarks(outcome))
    full: dict[str, Any] = {"seed": options.seed, **report.as_json(outcomes, found)}
    report.write(options.output, full)
    print(f"\nseed {options.seed}; all of it is in {options.output}", flush=True)


def ruby_versions() -> str:
    """Of Sidekiq and Ruby; builds the container where there is none yet."""
    command = [str(RUN), "ruby", "-rsidekiq", "-e", RUBY_VERSIONS]
    environment = {**os.environ, "INTEROP_ENGINE": "chroot"}
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    # As Ctrl-C: no process is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
