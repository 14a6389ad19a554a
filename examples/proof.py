"""Prove the order of chain(task1, group(task2, task3), task4), many runs at once.

    python examples/proof.py

Each task records its start and its end; every ordered pair is then checked.
Exits 1 if an order was violated, or if a task ran twice or never.
(`make demo` shows the same while a worker is killed in the middle.)
"""

from __future__ import annotations

import random
import sys
import threading
import time

import dramatiq

from dramatiq_sidekiq_flow import Chain, Group, SidekiqBroker, Workflow, WorkflowMiddleware, current_run

# Starts an embedded Redis server. To use your own, put its URL here: redis://localhost:6379/0
broker = SidekiqBroker(url="embedded://")
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)

RUNS = 20
TASKS = ("task1", "task2", "task3", "task4")
ORDER = [("task1", "task2"), ("task1", "task3"), ("task2", "task4"), ("task3", "task4")]

events: list[tuple[str, str, str]] = []  # (run id, "start" or "end", task), in order of time
lock = threading.Lock()


def note(what: str, task: str) -> None:
    with lock:
        events.append((current_run().run_id, what, task))


def work(task: str) -> None:
    note("start", task)
    time.sleep(random.uniform(0, 0.02))
    note("end", task)


task1, task2, task3, task4 = (
    dramatiq.actor(actor_name=task, queue_name="python")(lambda task=task: work(task)) for task in TASKS
)


def violations(run_id: str) -> list[str]:
    happened = [(what, task) for run, what, task in events if run == run_id]
    wrong = [
        f"{task} has {happened.count((what, task))} times a{' start' if what == 'start' else 'n end'}"
        for task in TASKS
        for what in ("start", "end")
        if happened.count((what, task)) != 1
    ]
    if not wrong:
        wrong = [
            f"{after} started before {before} had ended"
            for before, after in ORDER
            if happened.index(("start", after)) < happened.index(("end", before))
        ]
    return [f"run {run_id}: {text}" for text in wrong]


def main() -> int:
    tree = Chain(task1.message(), Group(task2.message(), task3.message()), task4.message())
    print("chain(task1, group(task2, task3), task4)")
    worker = dramatiq.Worker(broker, worker_threads=8, worker_timeout=100)
    worker.start()
    runs = [Workflow(tree).run() for _ in range(RUNS)]
    broker.join("python", timeout=60_000)
    worker.stop()
    for what, task in ((what, task) for run, what, task in events if run == runs[0]):
        print(f"  {task} {what}")
    wrong = [text for run_id in runs for text in violations(run_id)]
    for text in wrong:
        print(f"VIOLATION: {text}")
    if wrong:
        return 1
    print(f"OK: {RUNS} runs, {len(events) // 2} tasks, each once and in its order.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
