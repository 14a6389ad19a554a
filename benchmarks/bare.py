"""The same jobs without a broker: ``python -m benchmarks.bare --jobs N --ms M --threads T [--awaiting]``.

Bare threads, or coroutines of one loop, take the jobs from a counter.  The seconds
from the first start to the last end are what is possible on this machine now: a
sleep of 10 ms takes longer than 10 ms, and more so if others use the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import threading
import time

from .pipes import ROOT


def possible(jobs: int, ms: int, threads: int, awaiting: bool) -> float:
    """Seconds that the jobs take in a process of their own."""
    numbers = ("--jobs", str(jobs), "--ms", str(ms), "--threads", str(threads))
    command = [sys.executable, "-m", "benchmarks.bare", *numbers, *(["--awaiting"] if awaiting else [])]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout)


def in_threads(jobs: int, seconds: float, threads: int) -> float:
    """Run jobs in threads; the seconds that it took."""
    waiting = iter(range(jobs))

    def work() -> None:
        for _ in waiting:
            time.sleep(seconds)

    running = [threading.Thread(target=work) for _ in range(threads)]
    began = time.monotonic()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return time.monotonic() - began


async def in_coroutines(jobs: int, seconds: float, count: int) -> float:
    """Run jobs in coroutines; the seconds that it took."""
    waiting = iter(range(jobs))

    async def work() -> None:
        for _ in waiting:
            await asyncio.sleep(seconds)

    began = time.monotonic()
    await asyncio.gather(*(work() for _ in range(count)))
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bare")
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--ms", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--awaiting", action="store_true", help="coroutines instead of threads")
    options = parser.parse_args()
    seconds = options.ms / 1000
    if options.awaiting:
        print(asyncio.run(in_coroutines(options.jobs, seconds, options.threads)))
    else:
        print(in_threads(options.jobs, seconds, options.threads))


if __name__ == "__main__":
    main()
