"""kombu / celery: keys that pile up in Redis (reply.celery.pidbox and the like); a server with a thread for each request.

Django's runserver, gunicorn's gevent workers, or a pool that is made anew for
each request: each job is sent from a thread of its own.  5000 jobs are sent
so, and run.  What the library leaves in Redis must not grow with the number
of jobs that were sent.
"""

import os
import sys
import threading
import time

import dramatiq
import redis

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()
broker = SidekiqBroker(url=URL)
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)
ran = []


@dramatiq.actor(queue_name="python")
def note(x):
    ran.append(x)


before = client.info("memory")["used_memory"]
for first in range(0, 5000, 50):
    threads = [threading.Thread(target=note.send, args=(first + k,)) for k in range(50)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
worker = dramatiq.Worker(broker, worker_threads=4, worker_timeout=100)
worker.start()
deadline = time.time() + 20
while len(ran) < 5000 and time.time() < deadline:
    time.sleep(0.05)
time.sleep(1)
worker.stop()
broker.close()
keys = {}
for key in client.scan_iter(count=1000):
    kind = b":".join(key.split(b":")[:2]) if key.startswith(b"swf:") else b"others"
    keys[kind] = keys.get(kind, 0) + 1
ttls = [client.ttl(k) for k in list(client.scan_iter("swf:push:*", count=1000))[:3]]
print("ran:", len(ran), "| keys:", keys, "| ttl:", ttls, "| bytes more:", client.info("memory")["used_memory"] - before)
if len(ran) != 5000 or sum(keys.values()) > 500:
    print(f"FAIL: {len(ran)} of 5000 ran; {keys} stay, one for each thread that sent")
    sys.exit(1)
print("PASS")
