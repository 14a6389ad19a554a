"""Size of the record of a large run, and time of pages of runs: ``python -m benchmarks.runs``."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import uuid
from collections.abc import Callable
from typing import Any

import attrs
import dramatiq
import redis

from dramatiq_sidekiq_flow import Group, Runs, SidekiqBroker, Workflow
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from tests.web.site import broker_of, browser

#: Records of one write.
AT_ONCE = 1_000
TEMPLATES = ("documents", "invoices", "thumbnails", "mail", "reports")
STATES = ("running", "failed", "cancelled", "done")
TREE = json.dumps({"chain": [{"step": "extract", "queue": "python"}, {"step": "Load", "queue": "ruby", "ruby": True}]})
#: Runs on a page.
PAGE = 50


@attrs.frozen
class Look:
    """One thing to look at.

    Attributes:
      limit: Goal, in milliseconds.
    """

    name: str
    limit: int
    take: Callable[[], object]


def fill(client: redis.Redis, count: int) -> list[str]:
    """Write the records of runs of two steps, one a second; return their ids, the newest first."""
    ids = [str(uuid.uuid4()) for _ in range(count)]
    for start in range(0, count, AT_ONCE):
        pipe = client.pipeline(transaction=False)
        for number in range(start, min(start + AT_ONCE, count)):
            _write(pipe, ids[number], number)
        pipe.execute()
    return ids


def _write(pipe: redis.client.Pipeline, run_id: str, number: int) -> None:
    started = time.time() - number
    state, template = STATES[number % len(STATES)], TEMPLATES[number % len(TEMPLATES)]
    tags = [f"customer-{number % 1_000}"]
    record: dict[Any, Any] = {"state": state, "started": f"{started:.3f}", "total": 2}
    record |= {"keep": 604_800, "tree": TREE, "template": template, "tags": json.dumps(tags)}
    pipe.hset(f"swf:flow:{run_id}", mapping=record)
    pipe.hset(f"swf:flow:{run_id}:times", mapping={"0": "", "1": f"{started:.3f} {started + 1:.3f} 0 host:1:abc"})
    for index in (state, f"template:{template}", f"tag:{tags[0]}"):
        pipe.zadd(f"swf:flows:{index}", {run_id: started})


def large_run(broker: SidekiqBroker, members: int) -> str:
    """Run a group to its end in a worker; return its id."""

    @dramatiq.actor(queue_name="python", broker=broker)
    def scan(document: int, page: int, address: str) -> None:
        pass

    address = "https://example.org/documents/"
    tree = Group(*(scan.message(7, page, f"{address}{page}") for page in range(members)))
    run_id = Workflow(tree, broker, tags=["bulk"]).run()
    worker = dramatiq.Worker(broker, worker_threads=4)
    worker.start()
    Runs(broker).wait(run_id, timeout=300_000)
    worker.stop()
    return run_id


def size(client: redis.Redis, run_id: str) -> int:
    """Bytes of all keys of a record."""
    found = client.scan_iter(f"swf:flow:{run_id}*", count=10_000)
    return sum(client.memory_usage(key, samples=0) or 0 for key in found)


def looks(broker: SidekiqBroker, url: str, ids: list[str], run_id: str) -> list[Look]:
    """What is measured."""
    runs, pages = Runs(broker), browser(url)
    middle, last = ids[len(ids) // 2], ids[-PAGE - 1]

    def page(path: str) -> object:
        answer = pages.get(path)
        assert answer.status_code == 200, answer.text
        return answer

    return [
        Look("Runs.list, first page", 100, lambda: runs.list(limit=PAGE)),
        Look("Runs.list, a page in the middle", 100, lambda: runs.list(limit=PAGE, after=middle)),
        Look("Runs.list, the last page", 100, lambda: runs.list(limit=PAGE, after=last)),
        Look("Runs.list by state", 100, lambda: runs.list(limit=PAGE, state="failed")),
        Look("Runs.list by template", 100, lambda: runs.list(limit=PAGE, template=TEMPLATES[1])),
        Look("Runs.list by tag", 100, lambda: runs.list(limit=PAGE, tag="customer-7")),
        Look("Runs.list by state and tag", 100, lambda: runs.list(limit=PAGE, state="done", tag="customer-7")),
        Look("web page: the list", 1_000, lambda: page("/")),
        Look("web page: the list from the middle", 1_000, lambda: page(f"/?after={middle}")),
        Look("web page: the large run", 1_000, lambda: page(f"/runs/{run_id}")),
        Look("Runs.get of the large run", 1_000, lambda: runs.get(run_id)),
    ]


def main() -> int:
    """Fill a server of its own, measure, and print; return 1 if the record is too large."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runs", description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000, help="recorded runs of two steps")
    parser.add_argument("--members", type=int, default=10_000, help="members of the large run")
    parser.add_argument("--rounds", type=int, default=7, help="the median counts")
    options = parser.parse_args()
    with EmbeddedServer() as server, redis.Redis.from_url(server.url) as client:
        broker = broker_of(server.url)
        run_id = large_run(broker, options.members)
        used = size(client, run_id)
        print(f"record of a run of {options.members:,} members, done: {used:,} bytes (goal: 1,000,000)")
        ids = fill(client, options.runs)
        print(f"{options.runs:,} recorded runs, pages of {PAGE}; milliseconds:   median  longest  CPU  goal")
        for look in looks(broker, server.url, ids, run_id):
            print(_measured(look, options.rounds), flush=True)
        broker.close()
    return 0 if used < 1_000_000 else 1


def _measured(look: Look, rounds: int) -> str:
    took, cpu = [], []
    for _ in range(rounds):
        begun, used = time.perf_counter(), _cpu()
        look.take()
        took.append((time.perf_counter() - begun) * 1000)
        cpu.append((_cpu() - used) * 1000)
    middle, most = statistics.median(took), max(took)
    return f"  {look.name:<50}{middle:10.1f}{most:9.1f}{statistics.median(cpu):5.0f}{look.limit:6}"


def _cpu() -> float:
    times = os.times()
    return times.user + times.system


if __name__ == "__main__":
    raise SystemExit(main())
