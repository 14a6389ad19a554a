"""sidekiq-scheduler #283, sidekiq #796, dbader/schedule PR 323: the system's clock is set back.

NTP, or a VM that is resumed, sets the clock of a worker's host back by an
hour.  What another host schedules from then on (its score is right by the new
clock, too) must still be promoted within a few poll intervals.
"""

import json
import os
import sys
import time

import dramatiq
import redis

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()
real, offset = time.time, 0.0
time.time = lambda: real() + offset  # the clock of this host
from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware

broker = SidekiqBroker(url=URL)
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)
ran = []


@dramatiq.actor(queue_name="python")
def due(name):
    ran.append(name)


offset = 3600.0  # an hour fast, as after a bad boot
worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
worker.start()
time.sleep(4)


def schedule(name):  # what Ruby on another host does: perform_at(now)
    client.zadd(
        "schedule",
        {
            json.dumps(
                {
                    "class": "due",
                    "args": [name],
                    "jid": name.ljust(24, "0"),
                    "queue": "python",
                    "retry": True,
                    "created_at": real(),
                }
            ): real() + 0.5
        },
    )


schedule("before")
time.sleep(4)
offset = 0.0  # NTP steps it back
time.sleep(1)
schedule("after")
time.sleep(15)
worker.stop()
broker.close()
print("ran:", ran, "| still scheduled:", client.zcard("schedule"))
if "after" not in ran:
    print("FAIL: nothing was promoted for 15 s after the clock was set back (poll_interval is 1 s)")
    sys.exit(1)
print("PASS")
