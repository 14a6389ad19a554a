"""Time that ``Runs.explain`` needs on a Redis with many other jobs: ``python -m benchmarks.explain``.

Each run is broken in one way.  What counts is the time of one call, the first of a
``Runs``: one run is searched for in all places, and twice if a job is nowhere.
"""

from __future__ import annotations

import argparse
import json
import time
import uuid

import redis

from dramatiq_sidekiq_flow import Runs, SidekiqBroker, WorkflowMiddleware
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from tests.broken_runs import WAYS

#: Jobs of one write.
AT_ONCE = 5_000

#: Shares of the jobs in each place, in percent.
SHARES = {"queue:default": 60, "queue:mail": 10, "schedule": 20, "retry": 9, "dead": 1}


def fill(client: redis.Redis, count: int) -> None:
    """Write jobs of other runs, of about 400 bytes each."""
    client.sadd("queues", "default", "mail")
    now = time.time()
    for place, share in SHARES.items():
        left = count * share // 100
        while left > 0:
            some = min(left, AT_ONCE)
            jobs = [_job(place, now, number) for number in range(some)]
            if place.startswith("queue:"):
                client.lpush(place, *jobs)
            else:
                client.zadd(place, dict.fromkeys(jobs, now + 86400))
            left -= some


def _job(place: str, now: float, number: int) -> str:
    run = str(uuid.uuid4())
    stack = [[str(uuid.uuid4()), None, True]]
    job = {"class": "Newsletter::Deliver", "args": [number, "someone@example.com"], "queue": "default", "retry": True}
    job |= {"jid": uuid.uuid4().hex[:24], "created_at": now, "enqueued_at": now, "place": place}
    return json.dumps({**job, "workflow_run_id": run, "swf_step": 1, "workflow_completion_callbacks": stack})


def measure(url: str, client: redis.Redis, rounds: int) -> None:
    """Print the shortest and the longest time of each way."""
    for way in WAYS:
        took = []
        for _ in range(rounds):
            # Workers of the way before.
            client.delete("processes", "swf:workers")
            run_id = str(uuid.uuid4())
            way.make(client, run_id)
            broker = SidekiqBroker(url)
            broker.add_middleware(WorkflowMiddleware())
            runs = Runs(broker)
            begun = time.perf_counter()
            explanation = runs.explain(run_id)
            took.append(time.perf_counter() - begun)
            assert way.cause in {finding.cause for finding in explanation.findings}, str(explanation)
            broker.close()
        print(f"{way.cause:<16} {explanation.verdict:<8} {min(took):6.2f} s to {max(took):.2f} s", flush=True)


def main() -> None:
    """Fill a server of its own, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with EmbeddedServer() as server, redis.Redis.from_url(server.url) as client:
        fill(client, options.jobs)
        used = client.info("memory")["used_memory"] / 1e6
        print(f"{options.jobs:,} other jobs, {used:,.0f} MB")
        measure(server.url, client, options.rounds)


if __name__ == "__main__":
    main()
