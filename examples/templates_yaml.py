"""Keep the defaults of a template in a YAML file; a run sets only its own values.

    pip install 'dramatiq-sidekiq-flow[yaml]'
    python examples/templates_yaml.py

Values of a run take precedence over the file, and the file over the class.
"""

from __future__ import annotations

import sys

import attrs
import dramatiq

from dramatiq_sidekiq_flow import (
    Chain,
    RedisHashMemory,
    SidekiqBroker,
    WorkflowMiddleware,
    current_run,
    template,
    templates,
)

# Starts an embedded Redis server. To use your own, put its URL here: redis://localhost:6379/0
broker = SidekiqBroker(url="embedded://")
memory = RedisHashMemory()
broker.add_middleware(WorkflowMiddleware(memory=memory))
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="python")
def fetch() -> dict[str, str]:
    return {"text": f"the text of {current_run().memory.read('doc_id')['doc_id']}"}


@dramatiq.actor(queue_name="python")
def enrich() -> dict[str, str]:
    known = current_run().memory.read("text", "model")
    return {"enriched": f"{known['text']}, by the {known['model']} model"}


@dramatiq.actor(queue_name="python")
def index() -> dict[str, str]:
    known = current_run().memory.read("enriched", "index_name", "priority")
    print(f"  index into {known['index_name']}: {known['enriched']} (priority {known['priority']})")
    return {"indexed_in": known["index_name"]}


@attrs.frozen
class EnrichParams:
    doc_id: str
    model: str = "small"
    index_name: str = "documents"
    priority: int = 5


# The file is read and checked when the module is loaded, so a mistake in it is
# found at startup. Its path is relative to the folder of this module.
@template("enrich_and_index", defaults="config/enrich_and_index.yml")
def enrich_and_index(params: EnrichParams) -> Chain:
    return Chain(fetch.message(), enrich.message(), index.message())


def main() -> int:
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
    worker.start()
    runs = [
        templates.run("enrich_and_index", {"doc_id": "123"}),
        templates.run("enrich_and_index", {"doc_id": "7", "model": "tiny"}),
    ]
    broker.join("python", timeout=30_000)
    worker.stop()
    found = [memory.read(run_id, ["model", "index_name", "priority", "indexed_in"]) for run_id in runs]
    for run_id, values in zip(runs, found):
        print(f"run {run_id}: {values}")
    file = {"index_name": "documents-2026", "priority": 5, "indexed_in": "documents-2026"}
    right = [{"model": "large", **file}, {"model": "tiny", **file}]
    print("OK" if found == right else f"WRONG, it should be {right}")
    return 0 if found == right else 1


if __name__ == "__main__":
    sys.exit(main())
