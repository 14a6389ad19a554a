"""sidekiq #4760, #960, #4607: batches that never complete.

Ruby with Sidekiq Pro (or the gem sidekiq-batch) pushes jobs for a Python
actor inside of `batch.jobs do`; each carries `bid`.  Only Ruby's middleware
tells the batch that a job is done, so after Python has run it, the batch
waits for ever.  It must not happen without a word: refused like `encrypt`
and `_f`, or warned of.
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


@dramatiq.actor(queue_name="python", actor_name="Docs::Extract")
def extract(doc_id):
    ran.append(doc_id)


client.sadd("b-Xk3GqUNx6A:jids", "c" * 24)
client.hset("b-Xk3GqUNx6A", mapping={"pending": 1, "total": 1})
client.lpush(
    "queue:python",
    json.dumps(
        {
            "class": "Docs::Extract",
            "args": [1],
            "jid": "c" * 24,
            "queue": "python",
            "retry": True,
            "bid": "Xk3GqUNx6A",
            "created_at": time.time(),
            "enqueued_at": time.time(),
        }
    ),
)
worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
worker.start()
time.sleep(3)
worker.stop()
broker.close()
dead = [json.loads(m).get("error_class") for m, _ in client.zscan("dead")[1]]
print("ran:", ran, "| dead:", dead, "| pending of the batch:", client.hget("b-Xk3GqUNx6A", "pending"), "| said:", said)
named = any("bid" in text or "atch" in text for text in said)
if ran and not named:
    print("FAIL: the job of a batch was run and acknowledged, the batch waits for ever, and nothing says so")
    sys.exit(1)
print("PASS")
