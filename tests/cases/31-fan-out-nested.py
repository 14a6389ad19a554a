"""bullmq #3410: a fan-out of many children, each with a tail.

Group of 300 chains, each of which fans out into 20 and joins, then one more
step, then all join: 300 * 22 = 6600 jobs and one last.  The last one must run
once, after all others; Redis must be empty of barriers that wait; payloads
must stay small (`references` as argument: with RedisCallbackStorage).
"""

import os
import sys
import threading
import time

import dramatiq
import redis

from dramatiq_sidekiq_flow import Chain, Group, RedisCallbackStorage, SidekiqBroker, Workflow, WorkflowMiddleware

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()
storage = RedisCallbackStorage() if "references" in sys.argv else None
broker = SidekiqBroker(url=URL)
broker.add_middleware(WorkflowMiddleware(callback_storage=storage))
dramatiq.set_broker(broker)
lock = threading.Lock()
count = {"leaf": 0, "tail": 0, "last": 0}
early = []


@dramatiq.actor(queue_name="python")
def step(kind):
    with lock:
        if kind == "last" and (count["leaf"], count["tail"]) != (6000, 300):
            early.append(dict(count))
        count[kind] += 1


tree = Chain(
    Group(
        *(
            Chain(
                step.message("leaf") if False else Group(*(step.message("leaf") for _ in range(20))),
                step.message("tail"),
            )
            for _ in range(300)
        )
    ),
    step.message("last"),
)
t0 = time.time()
Workflow(tree).run()
started = time.time() - t0
biggest = max(len(m) for m in client.lrange("queue:python", 0, 50))
worker = dramatiq.Worker(broker, worker_threads=8, worker_timeout=100)
worker.start()
while time.time() - t0 < 60 and not count["last"]:
    time.sleep(0.05)
took = time.time() - t0
time.sleep(1)
worker.stop()
broker.close()
waiting = 0
for key in client.scan_iter(count=1000):
    if len(key) == 36 and client.type(key) == b"string" and int(client.get(key)) > 0:
        waiting += 1
print(
    count,
    "early:",
    early,
    f"| run(): {started:.2f} s, all: {took:.1f} s | payload: {biggest} bytes | barriers that wait: {waiting} | keys left: {client.dbsize()}",
)
ok = count == {"leaf": 6000, "tail": 300, "last": 1} and not early and not waiting
print("PASS" if ok else "FAIL")
sys.exit(not ok)
