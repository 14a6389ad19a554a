"""dramatiq #602; gunicorn -k gevent --preload: the monkey patch comes after the import.

The application and its broker are imported first, gevent patches then (with
--preload gunicorn's gevent worker does it in this order).  100 green threads
send one job each.  Each job whose send() returned must be in the queue.
Needs gevent.
"""

import os
import sys

import dramatiq
import redis

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware

URL = os.environ["REDIS_URL"]
broker = SidekiqBroker(url=URL)
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="python")
def note(x):
    pass


from gevent import monkey

monkey.patch_all()
import gevent

client = redis.Redis.from_url(URL)
client.flushdb()
green = [gevent.spawn(note.send, i) for i in range(100)]
gevent.joinall(green)
errors, there = sum(g.exception is not None for g in green), client.llen("queue:python")
print("errors:", errors, "| in the queue:", there, "of 100")
if there + errors < 100:
    print("FAIL: send() returned, and the job is nowhere")
    sys.exit(1)
print("PASS")
