"""sidekiq #2893, #4926, #3240: `retry: false` for a member of a batch.

A step with retry=False fails.  Sidekiq throws such a job away; a batch in
Sidekiq Pro calls its death callback all the same.  A step that fails for good
is in `dead` whatever its options say, since its run waits for it.
"""

import json
import os
import sys
import time

import dramatiq
import redis

from dramatiq_sidekiq_flow import Chain, SidekiqBroker, Workflow, WorkflowMiddleware

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()
broker = SidekiqBroker(url=URL)
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)
ran = []


@dramatiq.actor(queue_name="python", retry=False)
def fragile():
    ran.append("fragile")
    raise ValueError("no")


@dramatiq.actor(queue_name="python", dead=False, max_retries=0)
def undead():
    ran.append("undead")
    raise ValueError("no")


@dramatiq.actor(queue_name="python")
def after():
    ran.append("after")


for step in (fragile, undead):
    Workflow(Chain(step.message(), after.message())).run()
worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
worker.start()
time.sleep(3)
worker.stop()
dead = [json.loads(m)["class"] for m, _ in client.zscan("dead")[1]]
barriers = [k for k in client.scan_iter() if client.type(k) == b"string" and not k.endswith(b"_ran") and len(k) == 36]
print("ran:", ran, "| dead:", dead, "| barriers left waiting:", len(barriers))
gone = {"fragile", "undead"} - set(dead)
broker.close()
if gone or "after" in ran:
    print(f"FAIL: the runs of {gone} ended in the middle, and nothing is in dead to resume them")
    sys.exit(1)
print("PASS")
