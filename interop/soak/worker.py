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

from dramatiq_sidekiq_flow import current_run
from dramatiq_sidekiq_flow.context import current_job
from dramatiq_sidekiq_flow.process import upkeep
from dramatiq_sidekiq_flow.runs import resting_runs

from . import record
from .steps import node
from .systems import SYSTEMS


def step(run: int, number: int, options: dict[str, Any], told: Any = None) -> dict[str, str]:
    """Take a while, fail sometimes, and put it on record; die, or let other steps follow, if it is told to."""
    origin = SYSTEMS[arguments.system].origin()
    record.write("start", run, number, origin, arguments.number)
    time.sleep(options["ms"] / 1000)
    # Of no state: a step that fails is tried again until it does not.
    if random.random() < options["fail"] or (options.get("mends") and not _was_dead()):
        record.write("fail", run, number, origin, arguments.number)
        raise RuntimeError("told to fail")
    if "inner" in options:
        (current_run().replace if options["kind"] == "grows" else current_run().add)(node(options["inner"]))
    record.write("end", run, number, origin, arguments.number)
    if options.get("dies"):
        raise RuntimeError("has ended, and is dead")
    return {f"step{number}": "python"}


def _was_dead() -> bool:
    job = current_job()
    return job is not None and job.fields.get("failed_at") is not None


def hurry_keeper() -> None:
    """Let another process take the place of a keeper that was killed soon."""
    upkeep.BETWEEN = upkeep.IDLE = 0.5
    upkeep.INTERVAL = 2
    upkeep.CLAIM = 3
    resting_runs.FIRST = 0.5


def main() -> None:
    hurry_keeper()
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
