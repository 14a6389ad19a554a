"""dramatiq #265, #402: an actor puts its own message back, "not now, later".

What Dramatiq's author advises: `broker.enqueue(CurrentMessage.get_current_message(), delay=...)`.
As a step of a chain this is refused: the next step would begin before the one
that was put back.  The error names what works, `raise Retry(delay=...)`.
"""

import json
import os
import sys
import time

import dramatiq
import redis
from dramatiq.middleware import CurrentMessage

from dramatiq_sidekiq_flow import Chain, SidekiqBroker, Workflow, WorkflowMiddleware

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()
broker = SidekiqBroker(url=URL)
broker.add_middleware(CurrentMessage())
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)
order = []


@dramatiq.actor(queue_name="python")
def wait_for_file(name):
    if not any(o.startswith("put back") for o in order):
        order.append("put back")
        broker.enqueue(CurrentMessage.get_current_message(), delay=2000)
        return
    order.append("done")


@dramatiq.actor(queue_name="python")
def load():
    order.append("load")


Workflow(Chain(wait_for_file.message("a.csv"), load.message())).run()
worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
worker.start()
time.sleep(6)
worker.stop()
broker.close()
failed = [json.loads(m) for key in ("retry", "dead") for m, _ in client.zscan(key)[1]]
print("order:", order, "| failed:", [(job["class"], job["error_class"], job["error_message"][:80]) for job in failed])
if order != ["put back"] or [job["class"] for job in failed] != ["wait_for_file"]:
    print("FAIL: the next step ran before the step that was put back, which has lost its run")
    sys.exit(1)
if "Retry(delay=" not in failed[0]["error_message"]:
    print("FAIL: refused, and not told what to do instead")
    sys.exit(1)
print("PASS: refused, with the way to do it")
