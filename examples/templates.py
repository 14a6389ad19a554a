"""Define the shape of a workflow once, as a template, and run it with different parameters.

    python examples/templates.py

The parameters are checked, completed with their defaults, and saved in the run's
memory before the first job exists. Typed steps read their input there, and need no
arguments.
"""

from __future__ import annotations

import sys

import attrs
import dramatiq

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    RedisHashMemory,
    SidekiqBroker,
    WorkflowMiddleware,
    actor,
    template,
    templates,
)
from dramatiq_sidekiq_flow.errors import InvalidInput

# Starts an embedded Redis server. To use your own, put its URL here: redis://localhost:6379/0
broker = SidekiqBroker(url="embedded://")
memory = RedisHashMemory()
broker.add_middleware(WorkflowMiddleware(memory=memory))
dramatiq.set_broker(broker)


@attrs.frozen
class FetchInput:
    doc_id: str


@attrs.frozen
class Document:
    text: str
    language: str = "en"


@attrs.frozen
class IndexInput:
    doc_id: str
    length: int
    summary: str = "(none)"


@actor(queue_name="python")
def fetch(input: FetchInput) -> dict[str, str]:
    return {"text": f"the text of {input.doc_id}"}


@actor(queue_name="python")
def summarize(document: Document) -> dict[str, str]:
    return {"summary": f"{document.text.upper()} ({document.language})"}


@actor(queue_name="python")
def measure(document: Document) -> dict[str, int]:
    return {"length": len(document.text)}


@actor(queue_name="python")
def index(input: IndexInput) -> dict[str, str]:
    print(f"  index({input})")
    return {"indexed_as": f"doc-{input.doc_id}"}


@attrs.frozen
class EnrichParams:
    doc_id: str
    language: str = "en"
    with_summary: bool = True


@template("enrich_and_index")
def enrich_and_index(params: EnrichParams) -> Chain:
    # A plain function, so the tree may depend on the parameters.
    enrich = [measure.message()] + [summarize.message()] * params.with_summary
    return Chain(fetch.message(), Group(*enrich), index.message())


def main() -> int:
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
    worker.start()
    print(f"templates: {templates.names()}")
    runs = [
        templates.run("enrich_and_index", {"doc_id": "123"}),
        templates.run("enrich_and_index", EnrichParams("7", language="fr", with_summary=False)),
    ]
    broker.join("python", timeout=30_000)
    worker.stop()
    found = [memory.read(run_id) for run_id in runs]
    for run_id, values in zip(runs, found):
        print(f"run {run_id} knows {values}")

    # Invalid parameters raise an error here, at the caller, and nothing is enqueued.
    try:
        templates.run("enrich_and_index", {"doc_id": "123", "langauge": "fr"})
        refused = ""
    except InvalidInput as e:
        refused = str(e)
        print(f"refused: {refused}")

    right = (
        found[0]["summary"] == "THE TEXT OF 123 (en)"
        and found[1]["language"] == "fr"
        and "summary" not in found[1]
        and [values["indexed_as"] for values in found] == ["doc-123", "doc-7"]
        and "langauge" in refused
    )
    print("OK" if right else "WRONG")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
