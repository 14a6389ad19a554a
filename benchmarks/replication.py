"""What waiting for a replica costs, as a ratio to the same run without: ``python -m benchmarks.replication``."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import dramatiq
import redis

from dramatiq_sidekiq_flow import Chain, Replication, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.embedded import EmbeddedServer

Measure = Callable[[SidekiqBroker, "dramatiq.Actor[[int], None]", int], float]


def send(broker: SidekiqBroker, step: dramatiq.Actor[[int], None], count: int) -> float:
    """``send()`` one by one."""
    began = time.perf_counter()
    for number in range(count):
        step.send(number)
    return time.perf_counter() - began


def jobs(broker: SidekiqBroker, step: dramatiq.Actor[[int], None], count: int) -> float:
    """Jobs without a workflow, on eight threads; the queue was filled before."""
    for number in range(count):
        step.send(number)
    return _worked_off(broker)


def chain(broker: SidekiqBroker, step: dramatiq.Actor[[int], None], count: int) -> float:
    """The steps of one chain: each waits for the one before it."""
    Workflow(Chain(*(step.message(number) for number in range(count // 10))), broker).run()
    return _worked_off(broker)


def _worked_off(broker: SidekiqBroker) -> float:
    worker = dramatiq.Worker(broker, worker_threads=8, worker_timeout=100)
    began = time.perf_counter()
    worker.start()
    try:
        broker.join("bench", timeout=300_000)
        return time.perf_counter() - began
    finally:
        worker.stop()


def _in_step(client: redis.Redis) -> bool:
    client.set("mark", 1, ex=60)
    return bool(client.wait(1, 1_000))


def measured(measure: Measure, client: redis.Redis, url: str, replication: Replication | None, count: int) -> float:
    """Seconds of one run on an empty server."""
    client.flushall()
    _in_step(client)
    broker = SidekiqBroker(url=url, replication=replication)
    broker.add_middleware(WorkflowMiddleware())

    @dramatiq.actor(actor_name="step", queue_name="bench", broker=broker)
    def step(number: int) -> None:
        pass

    try:
        return measure(broker, step, count)
    finally:
        broker.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replication", description=__doc__)
    parser.add_argument("--count", type=int, default=2_000, help="jobs of a run (a chain has a tenth), 2000 by default")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median ratio counts, 5 by default")
    options = parser.parse_args()
    with EmbeddedServer(repl_diskless_sync_delay=0) as primary:
        host, port = primary.url.removeprefix("redis://").split("/")[0].split(":")
        with EmbeddedServer(replicaof=f"{host} {port}"):
            client = redis.Redis.from_url(primary.url)
            deadline = time.monotonic() + 30
            while not _in_step(client):
                if time.monotonic() > deadline:
                    sys.exit("The replica is not in step after 30 seconds.")
            print(f"{'':8}without: s  with: s  ratio (median of {options.rounds} rounds; with / without)")
            for measure in (send, jobs, chain):
                pairs = []
                for number in range(options.rounds):
                    without = measured(measure, client, primary.url, None, options.count)
                    pairs.append((without, measured(measure, client, primary.url, Replication(), options.count)))
                    print(f"{measure.__name__}: round {number + 1} of {options.rounds}", file=sys.stderr)
                ratio = statistics.median(there / without for without, there in pairs)
                without, there = (statistics.median(column) for column in zip(*pairs))
                print(f"{measure.__name__:8}{without:10.3f}{there:9.3f}{ratio:7.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
