"""apartment-sidekiq #27, acts_as_tenant #188: a job must run in the tenant that it was pushed for.

A Ruby program pushes a run whose jobs carry the tenant under the key of the
gem in use (`apartment`, `acts_as_tenant`).  Python runs the first step, Ruby
the second.  The second one must carry the same tenant.
"""

import json
import os
import sys
import time

import dramatiq
import redis

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()
broker = SidekiqBroker(url=URL)
broker.add_middleware(WorkflowMiddleware(classes={"Mailers::Notify": {"queue": "ruby", "retry": 3}}))
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="python", actor_name="Docs::Extract")
def extract(doc_id):
    pass


TENANT = {"apartment": "acme", "acts_as_tenant": {"class": "Account", "id": 7}, "cattr": {"account": 7}}
B = "6f0d5a52-3b0e-4c57-9f8e-0a4f5f6b7c8d"
client.set(B, 1, ex=86400)
client.set(B + "_ran", -1, ex=86400)
rest = {"__type__": "chain", "children": [{"__type__": "job", "class": "Mailers::Notify", "args": [1]}]}
client.sadd("queues", "python")
client.lpush(
    "queue:python",
    json.dumps(
        {
            "class": "Docs::Extract",
            "args": ["42"],
            "jid": "a" * 24,
            "queue": "python",
            "retry": True,
            "created_at": time.time(),
            "enqueued_at": time.time(),
            "workflow_run_id": "run-1",
            "workflow_completion_callbacks": [[B, rest, False]],
            **TENANT,
        }
    ),
)
worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
worker.start()
raw, deadline = None, time.time() + 10
while raw is None and time.time() < deadline:
    raw = client.rpop("queue:ruby")
    time.sleep(0.05)
worker.stop()
broker.close()
if raw is None:
    print("FAIL: the second step was never pushed")
    sys.exit(1)
after = json.loads(raw)
lost = [key for key in TENANT if after.get(key) != TENANT[key]]
print("kept:", [key for key in TENANT if key not in lost])
if lost:
    print(f"FAIL: the next step goes out without {lost}: it runs in the default tenant, or in none")
    sys.exit(1)
print("PASS: the tenant reaches the next step")
