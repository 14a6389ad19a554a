"""dramatiq #618, sidekiq's own rule (processor.rb, Sidekiq::Shutdown): a deploy is no failure of the job.

An actor asks to be told of a shutdown (notify_shutdown) and has retry=0 (or
is at its last try).  It runs when the worker is stopped.  Sidekiq puts a job
that a shutdown interrupted back into its queue, and counts no try.
"""

import json
import os
import sys
import threading
import time

import dramatiq
import redis

from dramatiq_sidekiq_flow import Chain, SidekiqBroker, Workflow, WorkflowMiddleware

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()
begun = threading.Event()


def work():
    begun.set()
    for _ in range(600):
        time.sleep(0.05)


bad = []
for retries in (0, 3):  # each with a broker of its own, which ends with its worker
    client.flushdb()
    begun.clear()
    broker = SidekiqBroker(url=URL)
    broker.add_middleware(WorkflowMiddleware())
    dramatiq.set_broker(broker)
    actor = dramatiq.actor(
        work, queue_name="python", actor_name=f"works{retries}", notify_shutdown=True, max_retries=retries
    )
    after = dramatiq.actor(lambda: None, queue_name="python", actor_name="after")
    Workflow(Chain(actor.message(), after.message())).run()
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    begun.wait(10)
    worker.stop(timeout=10_000)
    broker.close()
    where = {
        "queue": client.lrange("queue:python", 0, -1),
        "retry": [m for m, _ in client.zscan("retry")[1]],
        "dead": [m for m, _ in client.zscan("dead")[1]],
    }
    print(
        actor.actor_name,
        {
            k: [(json.loads(m)["class"], json.loads(m).get("error_class"), json.loads(m).get("retry_count")) for m in v]
            for k, v in where.items()
            if v
        },
    )
    if not where["queue"]:
        bad.append(
            f"{actor.actor_name} (max_retries={actor.options['max_retries']}) is in {[k for k, v in where.items() if v]}"
        )
if bad:
    print("FAIL: a shutdown counted as a failure:", "; ".join(bad))
    sys.exit(1)
print("PASS: interrupted jobs are back in their queue, no try counted")
