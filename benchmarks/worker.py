"""The worker process: ``python -m benchmarks.worker PEER --url URL``.

It is led over its standard input and answers on its standard output, one JSON
object a line, so that leading it and counting its jobs costs Redis nothing.

    {"do": "expect", "jobs": N}       forget what was counted; N jobs are to come
    {"do": "start"}                   start to consume
    {"do": "wait", "seconds": S}      answer when N jobs are acknowledged, or after S seconds
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import sys
import threading
import time
from typing import Any

import dramatiq

from .peers import PEERS, peer_named

#: Dramatiq's own default.
THREADS = 8


class Meter(dramatiq.Middleware):
    """Counts jobs where they start and where they are acknowledged.

    A start is recorded by the actor itself, the first line of user code.  An
    acknowledgement counts when the broker says that it is done: a job that
    could still be lost is not finished.
    """

    def __init__(self) -> None:
        self.expect(0)

    def expect(self, jobs: int) -> None:
        self.expected = jobs
        # list.append and next() are atomic under the GIL: no lock between the
        # threads, which would be measured along.
        self.starts: list[tuple[int, float]] = []
        self.acks = itertools.count(1)
        self.acked = 0
        self.last_ack = 0.0
        self.cpu = time.process_time()
        self.done = threading.Event()

    def step(self, index: int) -> None:
        """The actor."""
        self.starts.append((index, time.monotonic()))

    def after_ack(self, broker: dramatiq.Broker, message: Any) -> None:
        self.acked = count = next(self.acks)
        if count == self.expected:
            self.last_ack = time.monotonic()
            self.cpu = time.process_time() - self.cpu
            self.done.set()

    def report(self) -> dict[str, Any]:
        # Failed tries are acknowledged too, so what really ran is looked at.
        indexes = [index for index, _ in self.starts]
        return {
            "done": self.done.is_set(),
            "acked": self.acked,
            "exact": sorted(indexes) == list(range(self.expected)),
            "ordered": indexes == list(range(self.expected)),
            "starts": dict(self.starts),
            "first_start": min((at for _, at in self.starts), default=0.0),
            "last_start": max((at for _, at in self.starts), default=0.0),
            "last_ack": self.last_ack,
            "cpu": self.cpu,
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker")
    parser.add_argument("peer", choices=[peer.name for peer in PEERS])
    parser.add_argument("--url", required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format=f"{options.peer}: %(levelname)s %(message)s")

    meter = Meter()
    # The meter's actor outlives each expect(): a bound method.
    peer = peer_named(options.peer)(options.url, meter.step)
    peer.broker.add_middleware(meter)
    dramatiq.set_broker(peer.broker)
    worker = dramatiq.Worker(peer.broker, worker_threads=THREADS)
    for line in sys.stdin:
        order = json.loads(line)
        answer: dict[str, Any] = {}
        match order["do"]:
            case "expect":
                meter.expect(order["jobs"])
            case "start":
                worker.start()
            case "wait":
                meter.done.wait(order["seconds"])
                answer = meter.report()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
