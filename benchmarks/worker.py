"""The worker process: ``python -m benchmarks.worker PEER --url URL``.

It is led over its standard input and answers on its standard output, one JSON
object a line, so that leading it and counting its jobs costs Redis nothing.

    {"do": "expect", "jobs": N, "ms": M, "record": true}
                                      forget what was counted; N jobs of M ms are to come;
                                      record the start of each
    {"do": "start"}                   start to consume
    {"do": "count"}                   answer how many jobs are acknowledged
    {"do": "memory"}                  answer the resident memory, in MB
    {"do": "wait", "seconds": S}      report when N jobs are acknowledged, or after S seconds
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import os
import queue
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import dramatiq

from .peers import PEERS, peer_named

STATUS = Path("/proc/self/status")


class Meter(dramatiq.Middleware):
    """Counts jobs where they start and where they are acknowledged.

    A start is recorded by the actor itself, the first line of user code.  An
    acknowledgement counts when the broker says that it is done: a job that
    could still be lost is not finished.
    """

    def __init__(self) -> None:
        self.expect(0, 0, record=True)

    def expect(self, jobs: int, ms: int, *, record: bool) -> None:
        self.expected = jobs
        self.seconds = ms / 1000
        self.record = record
        self.starts: list[tuple[int, float]] = []
        self.numbers = itertools.count(1)
        #: Of each thread: the number of its last acknowledgement, and when it was.
        self.acks: dict[int, tuple[int, float]] = {}
        self.cpu = time.process_time()
        self.done = threading.Event()

    def step(self, index: int, padding: str = "") -> None:
        """The actor."""
        if self.record:
            self.starts.append((index, time.monotonic()))
        if self.seconds:
            time.sleep(self.seconds)

    async def step_async(self, index: int, padding: str = "") -> None:
        """The actor, as a coroutine."""
        if self.record:
            self.starts.append((index, time.monotonic()))
        if self.seconds:
            await asyncio.sleep(self.seconds)

    def after_ack(self, broker: dramatiq.Broker, message: Any) -> None:
        # Without a lock: one that all threads take for each job would be measured, not the peer.
        number = next(self.numbers)
        self.acks[threading.get_ident()] = (number, time.monotonic())
        if number == self.expected:
            self.done.set()

    @property
    def acked(self) -> int:
        """How many jobs are acknowledged."""
        return max((number for number, _ in list(self.acks.values())), default=0)

    def report(self) -> dict[str, Any]:
        return {
            "acked": self.acked,
            "starts": self.starts,
            "last_ack": max((at for _, at in list(self.acks.values())), default=0.0),
            "cpu": time.process_time() - self.cpu,
            **memory(),
        }


def memory() -> dict[str, float]:
    """The resident memory in MB, now and at its peak; 0 where the system does not say."""
    status = STATUS.read_text() if STATUS.exists() else ""
    found = dict(re.findall(r"(VmRSS|VmHWM):\s+(\d+)", status))
    return {"rss": int(found.get("VmRSS", 0)) / 1024, "peak": int(found.get("VmHWM", 0)) / 1024}


def main() -> None:
    options = _options()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format=f"{options.peer}: %(levelname)s %(message)s")

    meter = Meter()
    # The meter's actor outlives each expect(): a bound method.
    step = meter.step_async if options.awaiting else meter.step
    peer = peer_named(options.peer)(options.url, step)
    peer.broker.add_middleware(meter)
    dramatiq.set_broker(peer.broker)
    worker = dramatiq.Worker(peer.broker, worker_threads=options.threads)
    orders: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read, args=(orders,), daemon=True).start()
    while True:
        order = orders.get()
        answer: dict[str, Any] = {}
        match order["do"]:
            case "expect":
                meter.expect(order["jobs"], order["ms"], record=order["record"])
            case "start":
                worker.start()
            case "count":
                answer = {"acked": meter.acked}
            case "memory":
                answer = memory()
            case "wait":
                meter.done.wait(order["seconds"])
                answer = meter.report()
        print(json.dumps(answer), flush=True)


def _read(orders: queue.Queue[dict[str, Any]]) -> None:
    """Read orders; end with the input, even while an order waits: the measuring process has died."""
    for line in sys.stdin:
        orders.put(json.loads(line))
    # Not stopped: its server is emptied anyway.
    os._exit(0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker")
    parser.add_argument("peer", choices=[peer.name for peer in PEERS])
    parser.add_argument("--url", required=True)
    parser.add_argument("--threads", type=int, default=8, help="8 by default, as in Dramatiq")
    parser.add_argument("--awaiting", action="store_true", help="the actor is a coroutine")
    return parser.parse_args()


if __name__ == "__main__":
    main()
