"""A Python worker of a soak: one process, so that -9 hits all of it.

    python -m interop.soak.worker companion redis://... --number 7

Started by ``fleet.py``, with the record as its standard input.
"""

from __future__ import annotations

import argparse
import random
import signal
import time
from typing import Any

import dramatiq

from . import record
from .systems import SYSTEMS


def step(run: int, number: int, options: dict[str, Any]) -> dict[str, str]:
    """Take a while, fail sometimes, and put it on record."""
    origin = SYSTEMS[arguments.system].origin()
    record.write("start", run, number, origin, arguments.number)
    time.sleep(options["ms"] / 1000)
    # Of no state: a step that fails is tried again until it does not.
    if random.random() < options["fail"]:
        record.write("fail", run, number, origin, arguments.number)
        raise RuntimeError("told to fail")
    record.write("end", run, number, origin, arguments.number)
    return {f"step{number}": "python"}


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for all threads to come
    broker = SYSTEMS[arguments.system].broker(arguments.url, arguments.heartbeat, arguments.references, step)
    # What the command `dramatiq` does in each process that it forks.
    broker.emit_after("process_boot")
    worker = dramatiq.Worker(broker, worker_threads=arguments.threads, worker_timeout=100)
    worker.start()
    signal.sigwait({signal.SIGTERM})
    worker.stop()
    broker.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m interop.soak.worker")
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("url")
    parser.add_argument("--number", type=int, required=True, help="of this process, for the record")
    parser.add_argument("--threads", type=int, default=5)
    parser.add_argument("--heartbeat", type=float, default=3.0, help="seconds until a silent worker is dead (3)")
    parser.add_argument("--references", type=int, help="keep chains of so many bytes by reference")
    arguments = parser.parse_args()
    main()
