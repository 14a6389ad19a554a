"""What the records of runs cost, as a ratio to the same runs without: ``python -m benchmarks.records``."""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from typing import Any

import attrs
import dramatiq

from dramatiq_sidekiq_flow import Chain, Group, RedisHashMemory, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.embedded import EmbeddedServer

Tree = Callable[["dramatiq.Actor[[int], None]"], Any]


@attrs.frozen
class Scene:
    """Runs to work off.

    Attributes:
      size: Steps of a run.
    """

    tree: Tree
    size: int


#: Steps of a round.
STEPS = 10_000


def chain(size: int) -> Scene:
    return Scene(lambda step: Chain(*(step.message(number) for number in range(size))), size)


def group(size: int) -> Scene:
    return Scene(lambda step: Group(*(step.message(number) for number in range(size))), size)


SCENES = {
    "one chain": chain(STEPS),
    "chains of 100": chain(100),
    "chains of 2": chain(2),
    "one group": group(STEPS),
}


@attrs.frozen
class Cost:
    """CPU time of worker and server, in microseconds a step, and the server's commands a step."""

    worker: float
    server: float
    commands: float

    @property
    def cpu(self) -> float:
        return self.worker + self.server


def measured(url: str, name: str, records: bool) -> Cost:
    """The cost of a step, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer: SimpleQueue[Cost] = context.SimpleQueue()
    process = context.Process(target=_work, args=(url, name, records, answer))
    process.start()
    cost = answer.get()
    process.join()
    return cost


def _work(url: str, name: str, records: bool, answer: SimpleQueue[Cost]) -> None:
    scene = SCENES[name]
    broker = SidekiqBroker(url=url)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(), records=records))
    call = broker.connection.call

    @dramatiq.actor(actor_name="step", queue_name="bench", broker=broker)
    def step(number: int) -> None:
        pass

    call("FLUSHALL")
    for _ in range(STEPS // scene.size):
        Workflow(scene.tree(step), broker).run()
    call("CONFIG", "RESETSTAT")
    server, began = _server_cpu(call), time.process_time()
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    broker.join("bench", timeout=300_000)
    cost = Cost(
        (time.process_time() - began) / STEPS * 1e6,
        (_server_cpu(call) - server) / STEPS * 1e6,
        _commands(call) / STEPS,
    )
    worker.stop()
    broker.close()
    answer.put(cost)


def _info(call: Callable[..., Any], section: str) -> dict[str, str]:
    lines = call("INFO", section).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _server_cpu(call: Callable[..., Any]) -> float:
    found = _info(call, "cpu")
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


def _commands(call: Callable[..., Any]) -> int:
    calls = (value.split(",")[0].removeprefix("calls=") for value in _info(call, "commandstats").values())
    return sum(map(int, calls))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.records", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="rounds; the median ratio counts, 9 by default")
    options = parser.parse_args()
    with EmbeddedServer() as server:
        print(f"{'':14}CPU of a step, us: without   with   ratio   commands: without   with")
        for name in SCENES:
            pairs = []
            for number in range(options.rounds):
                order = (False, True) if number % 2 else (True, False)
                costs = {records: measured(server.url, name, records) for records in order}
                pairs.append((costs[False], costs[True]))
                print(f"{name}: round {number + 1} of {options.rounds}", file=sys.stderr)
            ratio = statistics.median(there.cpu / without.cpu for without, there in pairs)
            cpu = [statistics.median(cost.cpu for cost in column) for column in zip(*pairs)]
            commands = [statistics.median(cost.commands for cost in column) for column in zip(*pairs)]
            print(f"{name:14}{cpu[0]:27.1f}{cpu[1]:7.1f}{ratio:8.3f}{commands[0]:20.2f}{commands[1]:7.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
