"""sidekiq #1982, #5416 (Pro's expiring jobs); the gem sidekiq-expiring-jobs: a job that is too late must not run.

Pro's client writes `expiry` (epoch seconds) from `expires_in`.  A job that is
past it is dropped by the worker, not run; where expiry is not honoured, that is
said (refused by name, or a warning).
"""

import json
import logging
import os
import sys
import time

import dramatiq
import redis

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()
said = []


class Hear(logging.Handler):
    def emit(self, record):
        if record.levelno >= logging.WARNING:
            said.append(record.getMessage())


logging.getLogger().addHandler(Hear())
broker = SidekiqBroker(url=URL)
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)
ran = []


@dramatiq.actor(queue_name="python", actor_name="Offers::Send")
def send(name):
    ran.append(name)


for name, expiry in (("fresh", time.time() + 3600), ("expired", time.time() - 3600)):
    client.lpush(
        "queue:python",
        json.dumps(
            {
                "class": "Offers::Send",
                "args": [name],
                "jid": name.ljust(24, "0"),
                "queue": "python",
                "retry": True,
                "created_at": time.time() - 7200,
                "enqueued_at": time.time() - 7200,
                "expires_in": 3600.0,
                "expiry": expiry,
            }
        ),
    )
worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
worker.start()
time.sleep(3)
worker.stop()
broker.close()
dead = [json.loads(m).get("error_message", "") for m, _ in client.zscan("dead")[1]]
print("ran:", ran, "| dead:", dead, "| said:", said)
if "fresh" not in ran and not any("expir" in text for text in dead):
    print("FAIL: a job that is in time was not run, and not refused by name")
    sys.exit(1)
if "expired" in ran and not any("expir" in text for text in said):
    print("FAIL: a job ran an hour after its expiry")
    sys.exit(1)
print("PASS")
