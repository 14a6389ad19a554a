"""Process a document in a Rails application and in Python, as one workflow.

    python examples/rails_like.py

    chain(Docs::Fetch          Ruby
          group(extract        Python
                Images::Thumbnail   Ruby)
          summarize            Python
          with_delay(Mailers::Notify, 300 ms)   Ruby)

Ruby is neither needed nor run. A second process of this package consumes the
queue `rails` under the names of the Ruby classes. It stands in for a Sidekiq
process with the gem sidekiq-workflow (see `make interop` for the real one). The
two sides share no broker, no actor and no process; only Sidekiq payloads in one
Redis pass between them.

If a step is missing, doubled or early, it names the violation and exits 1.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dramatiq
import redis

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    RedisHashMemory,
    RubyJob,
    SidekiqBroker,
    WithDelay,
    Workflow,
    WorkflowMiddleware,
    current_run,
)
from dramatiq_sidekiq_flow.embedded import EmbeddedServer

URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")


def side() -> SidekiqBroker:
    broker = SidekiqBroker(url=URL)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
    return broker


def step(broker: SidekiqBroker, name: str, queue: str, work: Any) -> dramatiq.Actor[Any, Any]:
    """An actor that does its work and records its events in the Redis list `example:events`."""

    def run(*args: Any) -> Any:
        here = current_run()
        with contextlib.closing(redis.Redis.from_url(URL)) as observer:

            def tell(what: str) -> None:
                event = {"what": what, "step": name, "queue": queue, "jid": here.jid}
                observer.rpush("example:events", json.dumps(event))

            tell("start")
            returned = work(here.memory, *args)
            tell("end")
        return returned

    return dramatiq.actor(actor_name=name, queue_name=queue, broker=broker)(run)


# -- the Python side: the subject of this example --------------------------------

python = side()
extract = step(python, "extract", "python", lambda memory: {"words": len(memory.read("text")["text"].split())})
summarize = step(
    python, "summarize", "python", lambda memory: {"summary": "{words} words".format(**memory.read("words"))}
)

# The Ruby classes and their job options, declared once.
Fetch = RubyJob("Docs::Fetch", queue="rails", retry=5)
Thumbnail = RubyJob("Images::Thumbnail", queue="rails", retry=3)
Notify = RubyJob("Mailers::Notify", queue="rails", retry=3)


def workflow(doc_id: int) -> Workflow:
    return Workflow(
        Chain(
            Fetch(doc_id),
            Group(extract.message(), Thumbnail(doc_id, 200)),
            summarize.message(),
            WithDelay(Notify(doc_id), delay=300),
        ),
        broker=python,
    )


# -- the stand-in for the Rails side: in Ruby, classes with `include Sidekiq::Job` --

rails = side()
step(rails, "Docs::Fetch", "rails", lambda memory, doc_id: {"text": f"the text of document {doc_id}"})
step(rails, "Images::Thumbnail", "rails", lambda memory, doc_id, size: {"thumbnail": f"{doc_id}-{size}.png"})
step(rails, "Mailers::Notify", "rails", lambda memory, doc_id: {"mailed": memory.read("summary")["summary"]})


# -- run and check --------------------------------------------------------------------

STEPS = ("Docs::Fetch", "extract", "Images::Thumbnail", "summarize", "Mailers::Notify")
ORDER = [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)]
MEMORY = {
    "text": "the text of document 42",
    "words": 5,
    "thumbnail": "42-200.png",
    "summary": "5 words",
    "mailed": "5 words",
}


def violations(events: list[dict[str, Any]], memory: dict[str, Any]) -> list[str]:
    wrong = []
    places = {(event["what"], event["step"]): place for place, event in enumerate(events)}
    for name in STEPS:
        jobs = {event["jid"] for event in events if event["step"] == name}
        if len(jobs) != 1 or ("end", name) not in places:
            wrong.append(f"{name} was enqueued {len(jobs)} times")
    for before, after in ORDER:
        started = places.get(("start", STEPS[after]), len(events))
        if started < places.get(("end", STEPS[before]), len(events)):
            wrong.append(f"{STEPS[after]} started before {STEPS[before]} had ended")
    if memory != MEMORY:
        wrong.append(f"the memory holds {memory}")
    return wrong


def main() -> int:
    if "REDIS_URL" not in os.environ:
        with EmbeddedServer() as server:
            return subprocess.run([sys.executable, __file__], env={**os.environ, "REDIS_URL": server.url}).returncode
    client = redis.Redis.from_url(URL)
    dramatiq_command = [sys.executable, "-m", "dramatiq", "--path", str(Path(__file__).parent), "-p", "1", "-t", "2"]
    sides = [subprocess.Popen([*dramatiq_command, f"rails_like:{name}"]) for name in ("python", "rails")]
    try:
        run_id = workflow(42).run()
        print(f"run {run_id} started", flush=True)
        events: list[dict[str, Any]] = []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(events) < 2 * len(STEPS):
            for raw in client.lrange("example:events", len(events), -1):
                events.append(json.loads(raw))
                print("  {queue:7} {what:5} {step}".format(**events[-1]), flush=True)
            time.sleep(0.02)
        # The output of the last step is saved when the step is acknowledged.
        while time.monotonic() < deadline and not client.hexists(f"swf:mem:{run_id}", "mailed"):
            time.sleep(0.02)
        found: dict[Any, Any] = client.hgetall(f"swf:mem:{run_id}")
        memory = {name.decode(): json.loads(value) for name, value in found.items()}
    finally:
        for process in sides:
            process.terminate()
        for process in sides:
            process.wait()
    print(f"memory: {memory}")
    wrong = violations(events, memory)
    for text in wrong:
        print(f"VIOLATION: {text}")
    if not wrong:
        print("OK: both sides ran their steps, in order, each enqueued once.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
