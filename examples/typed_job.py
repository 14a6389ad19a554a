"""Declare the input and output of typed steps as attrs classes.

    python examples/typed_job.py

A typed step takes one object.  Fields that its arguments leave open are filled
from the run's memory; its output is checked and saved there.  The counterpart in
Ruby is a ``Sidekiq::Workflow::TypedJob``, with the same JSON.
"""

from __future__ import annotations

import sys
from typing import Any

import attrs
import dramatiq

from dramatiq_sidekiq_flow import Chain, RedisHashMemory, SidekiqBroker, Workflow, WorkflowMiddleware, actor
from dramatiq_sidekiq_flow.errors import InvalidInput

# Starts an embedded Redis server. To use your own, put its URL here: redis://localhost:6379/0
broker = SidekiqBroker(url="embedded://")
memory = RedisHashMemory()
broker.add_middleware(WorkflowMiddleware(memory=memory))
dramatiq.set_broker(broker)


@attrs.frozen
class Item:
    name: str
    price: float


@attrs.frozen
class Order:
    customer: str
    items: list[Item]
    currency: str = "EUR"


@attrs.frozen
class Total:
    total: float
    currency: str


@attrs.frozen
class Receipt:
    receipt: str


@attrs.frozen
class ReceiptInput:
    customer: str
    total: float
    currency: str
    greeting: str = "Dear"


@dramatiq.actor(queue_name="python")
def take() -> dict[str, Any]:
    return {"customer": "Ada", "items": [{"name": "tea", "price": 4.5}, {"name": "cup", "price": 9.25}]}


@actor(queue_name="python")
def add_up(order: Order) -> Total:
    print(f"  add_up({order})")
    return Total(sum(item.price for item in order.items), order.currency)


@actor(queue_name="python")
def write(input: ReceiptInput) -> Receipt:
    print(f"  write({input})")
    return Receipt(f"{input.greeting} {input.customer}, that makes {input.total:.2f} {input.currency}.")


def main() -> int:
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
    worker.start()
    # add_up needs no arguments, because they are in the memory. write gets one of four.
    run_id = Workflow(Chain(take.message(), add_up.message(), write.message(greeting="Hello"))).run()
    broker.join("python", timeout=30_000)
    worker.stop()
    kept = memory.read(run_id)
    print(f"run {run_id} knows {kept}")

    # Invalid input raises an error here, at the caller. In a worker, it moves the job to `dead`.
    try:
        add_up.send(Order("Ada", [Item("tea", 4.5), Item("cup", "9.25")]))  # type: ignore[arg-type]
        refused = ""
    except InvalidInput as e:
        refused = str(e)
        print(f"refused: {refused}")

    right = kept.get("receipt") == "Hello Ada, that makes 13.75 EUR." and "items[1].price" in refused
    print("OK" if right else "WRONG")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
