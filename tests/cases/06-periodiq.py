"""periodiq (with django_dramatiq PR 59): cron for actors, and its skip of what is late.

The scheduler's message carries `scheduled_at`; the middleware skips what
comes later than `skip_delay`.  A fresh one must run, a late one must be
skipped and leave nothing in retry or dead, an actor declared with `periodic`
must keep its options.  Needs periodiq.
"""

import os
import sys
import time

import dramatiq
import pendulum
import redis
from periodiq import PeriodiqMiddleware, cron

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()
broker = SidekiqBroker(url=URL)
broker.add_middleware(PeriodiqMiddleware(skip_delay=30))
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)
ran = []


@dramatiq.actor(queue_name="python", periodic=cron("* * * * *"))
def tick():
    ran.append("tick")


for at in (pendulum.now(), pendulum.now().subtract(minutes=10)):
    broker.enqueue(tick.message_with_options(scheduled_at=str(at)))
tick.send()  # by hand, without scheduled_at
worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
worker.start()
time.sleep(3)
worker.stop()
broker.close()
print(
    "ran:",
    ran,
    "| retry:",
    client.zcard("retry"),
    "| dead:",
    client.zcard("dead"),
    client.zrange("dead", 0, 0)[:1],
    "| queue:",
    client.llen("queue:python"),
)
ok = len(ran) == 2 and not client.zcard("retry") and not client.zcard("dead")
print("PASS" if ok else "FAIL")
sys.exit(not ok)
