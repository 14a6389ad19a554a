"""Send a hundred thousand jobs from a generator, and wait for the result of some of them.

    python examples/send_many.py

The generator is read as the jobs are pushed, and nothing is kept of them but what
their ids are made of.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import dramatiq
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend

from dramatiq_sidekiq_flow import SidekiqBroker, send_many

# Starts an embedded Redis server. To use your own, put its URL here: redis://localhost:6379/0
broker = SidekiqBroker(url="embedded://")
broker.add_middleware(Results(backend=StubBackend()))
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="later")
def import_row(number: int, name: str) -> None: ...


@dramatiq.actor(queue_name="python", store_results=True)
def square(number: int) -> int:
    return number * number


def rows(count: int) -> Iterator[tuple[int, str]]:
    for number in range(count):
        yield number, f"row {number}"


def main() -> int:
    began = time.monotonic()
    sent = send_many(import_row, rows(100_000))
    print(f"{len(sent):,} jobs in {time.monotonic() - began:.2f} s, the last one is {sent.message_ids[-1]}")
    broker.flush("later")

    squares = send_many(square, [(number,) for number in range(10)])
    worker = dramatiq.Worker(broker, queues={"python"}, worker_threads=2, worker_timeout=100)
    worker.start()
    results = [message.get_result(block=True) for message in squares]
    worker.stop()
    print(f"squares: {results}")
    if len(sent) != 100_000 or results != [number * number for number in range(10)]:
        print("FAILED")
        return 1
    print("OK")
    return 0


if __name__ == "__main__":
    sys.exit(main())
