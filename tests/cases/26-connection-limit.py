"""dramatiq #649, django-rq #76, #112, celery #2811: a Redis plan with few connections; a queue for each actor.

30 queues in one process, and a pool that may open 20 connections
(max_connections, as one sets it for a plan with 20).  Jobs of all queues must
run, or it must be said at start that the limit is too low.  Also counts how
many connections one idle process with 30 queues holds without a limit.
"""

import logging
import os
import sys
import time

import dramatiq
import redis

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
logging.disable(logging.CRITICAL)


def once(n, **options):
    client.flushdb()
    ran = set()
    before = len(client.client_list())
    broker = SidekiqBroker(url=URL, **options)
    broker.add_middleware(WorkflowMiddleware())
    dramatiq.set_broker(broker)

    def make(k):
        @dramatiq.actor(queue_name=f"q{k}", actor_name=f"a{k}", broker=broker, max_retries=0)
        def a():
            ran.add(k)

        return a

    for k in range(n):
        make(k)
    worker = dramatiq.Worker(broker, worker_threads=8)
    worker.start()
    time.sleep(3)
    idle = len(client.client_list()) - before
    t0 = time.time()
    for k in range(n):
        client.lpush(f"queue:q{k}", f'{{"class":"a{k}","args":[],"jid":"{k:024x}","queue":"q{k}","retry":true}}')
    while len(ran) < n and time.time() - t0 < 15:
        time.sleep(0.05)
    took = time.time() - t0
    worker.stop()
    broker.close()
    return len(ran), idle, round(took, 1)


free = once(30)
print("without a limit: ran {} of 30, {} connections when idle, {} s".format(*free))
tight = once(30, max_connections=20)
print("max_connections=20: ran {} of 30, {} connections, {} s".format(*tight))
if tight[0] < 30:
    print("FAIL: with fewer connections than queues, jobs do not run")
    sys.stdout.flush()
    os._exit(1)
if tight[2] > 10:
    print(f"FAIL: it takes {tight[2]} s")
    sys.stdout.flush()
    os._exit(1)
print("PASS")
sys.stdout.flush()
os._exit(0)
