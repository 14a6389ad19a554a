"""dramatiq #233 and PR 545 (an acknowledgement that Redis refuses), NOREPLICAS / MISCONF in production.

Redis refuses every write for some seconds (min-replicas-to-write, or a full
disk with stop-writes-on-bgsave-error), while a step of a run and a plain job
have just been done.  Nothing may be lost, no job may count as failed, the
worker must go on by itself when writes work again, and what follows starts once.
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
client.config_set("min-replicas-to-write", 0)
broker = SidekiqBroker(url=URL)
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)
ran = []
go = threading.Event()
begun = threading.Semaphore(0)


@dramatiq.actor(queue_name="python", max_retries=0)
def step():
    ran.append("step")
    begun.release()
    go.wait(20)


@dramatiq.actor(queue_name="python", max_retries=0)
def plain():
    ran.append("plain")
    begun.release()
    go.wait(20)


@dramatiq.actor(queue_name="python")
def after():
    ran.append("after")


worker = dramatiq.Worker(broker, worker_threads=4, worker_timeout=100)
worker.start()
try:
    Workflow(Chain(step.message(), after.message())).run()
    plain.send()
    for _ in range(2):
        begun.acquire(timeout=10)
    client.config_set("min-replicas-to-write", 1)
    go.set()
    time.sleep(8)
finally:
    client.config_set("min-replicas-to-write", 0)
deadline = time.time() + 30
while time.time() < deadline and "after" not in ran:
    time.sleep(0.2)
time.sleep(2)
plain.send()
time.sleep(2)
stuck = sum(client.hlen(key) for key in client.scan_iter("swf:inflight:*"))
worker.stop()
broker.close()
again = [json.loads(m)["class"] for m in client.lrange("queue:python", 0, -1)]
print(
    "ran:",
    ran,
    "| dead:",
    [json.loads(m)["error_class"] for m, _ in client.zscan("dead")[1]],
    "| retry:",
    client.zcard("retry"),
    "| still in flight:",
    stuck,
    "| put back when the worker stops, to run again:",
    again,
)
bad = []
if client.zcard("dead") or client.zcard("retry"):
    bad.append("a job that was done counts as failed")
if ran.count("after") != 1:
    bad.append("what follows the step does not start while this process lives")
if again:
    bad.append(f"{len(again)} jobs that were done run again after the next restart")
if ran.count("plain") < 2:
    bad.append("the worker does not go on")
print("FAIL: " + "; ".join(bad) if bad else "PASS")
sys.exit(bool(bad))
