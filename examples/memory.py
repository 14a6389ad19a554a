"""Pass values between steps in the memory of a run.

    python examples/memory.py

A step returns a mapping, and its fields are saved in the run's memory.  Later
steps read them there, in Python and in Ruby.  Branches that would write the same
fields each get a namespace.
"""

from __future__ import annotations

import sys
from datetime import timedelta

import dramatiq

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    Namespace,
    RedisHashMemory,
    SidekiqBroker,
    Workflow,
    WorkflowMiddleware,
    current_run,
)

# Starts an embedded Redis server. To use your own, put its URL here: redis://localhost:6379/0
broker = SidekiqBroker(url="embedded://")
memory = RedisHashMemory(ttl=timedelta(hours=1))  # kept for an hour after the run
broker.add_middleware(WorkflowMiddleware(memory=memory))
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="python")
def fetch(doc_id: str) -> dict[str, str]:
    print(f"  fetch({doc_id!r})")
    return {"text": "The quick brown fox jumps over the lazy dog"}


@dramatiq.actor(queue_name="python")
def select(last: bool) -> dict[str, list[str]]:
    words = current_run().memory.read("text")["text"].split()
    selected = words[-3:] if last else words[:3]
    print(f"  select({last}) returns {selected}")
    return {"words": selected}


@dramatiq.actor(queue_name="python")
def measure() -> dict[str, int]:
    # Inside a namespace, `words` is the value of this branch.
    words = current_run().memory.read("words")["words"]
    return {"letters": sum(map(len, words))}


@dramatiq.actor(queue_name="python")
def compare() -> dict[str, str]:
    head = current_run().memory.within("head").read("words", "letters")
    tail = current_run().memory.within("tail").read("words", "letters")
    print(f"  compare: head is {head}, tail is {tail}")
    return {"longer": "head" if head["letters"] > tail["letters"] else "tail"}


def main() -> int:
    workflow = Workflow(
        Chain(
            fetch.message("42"),
            Group(
                Namespace("head", Chain(select.message(False), measure.message())),
                Namespace("tail", Chain(select.message(True), measure.message())),
            ),
            compare.message(),
        )
    )
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
    worker.start()
    run_id = workflow.run()
    print(f"run {run_id}")
    broker.join("python", timeout=30_000)
    worker.stop()

    kept = memory.read(run_id)
    print(f"in the memory, Redis key {memory.key(run_id)}:")
    for name, value in sorted(kept.items()):
        print(f"  {name:12} {value}")
    right = {
        "text": "The quick brown fox jumps over the lazy dog",
        "head.words": ["The", "quick", "brown"],
        "head.letters": 13,
        "tail.words": ["the", "lazy", "dog"],
        "tail.letters": 10,
        "longer": "head",
    }
    print("OK" if kept == right else f"WRONG, it should be {right}")
    return 0 if kept == right else 1


if __name__ == "__main__":
    sys.exit(main())
