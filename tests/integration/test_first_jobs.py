"""The first jobs of a worker: what they need was imported before the worker was ready."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, sys, time
import dramatiq
from dramatiq_sidekiq_flow import Chain, Group, RedisHashMemory, SidekiqBroker, Workflow, WorkflowMiddleware

broker = SidekiqBroker(url=sys.argv[1])
broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
dramatiq.set_broker(broker)

@dramatiq.actor(queue_name="python", max_retries=1, min_backoff=1, max_backoff=1)
def step(name, fails=False):
    if fails:
        raise ValueError("on purpose")
    return {name: 1}

worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
worker.start()
before = set(sys.modules)
step.send("alone")
step.send("fails", True)
Workflow(Chain(step.message("a"), Group(step.message("b"), step.message("c")), step.message("d"))).run()
broker.join("python", timeout=60_000)
print(json.dumps(sorted(set(sys.modules) - before)))
worker.stop()
"""


def test_the_first_jobs_import_nothing_of_the_package(redis_url: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, redis_url], stdout=subprocess.PIPE, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert [name for name in loaded if name.startswith("dramatiq_sidekiq_flow")] == []
