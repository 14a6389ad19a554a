"""dramatiq-abort #30, dramatiq #51: aborting a job by its message's id.

(1) A job that waits is aborted: it must not run, and not come again.  (2) One
that runs is aborted: it must stop (that Retries tries it again, and the abort
then skips it, is dramatiq-abort's known way).  (3) A step that waits: its
workflow must not go on as if it had been done, and must be found in `dead`.
Needs dramatiq-abort.
"""

import json
import os
import sys
import threading
import time

import dramatiq
import redis
from dramatiq_abort import Abort, Abortable, abort, backends

from dramatiq_sidekiq_flow import Chain, SidekiqBroker, Workflow, WorkflowMiddleware

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()
broker = SidekiqBroker(url=URL)
broker.add_middleware(Abortable(backend=backends.RedisBackend(client=redis.Redis.from_url(URL))))
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)
ran = []
begun = threading.Event()


@dramatiq.actor(queue_name="python")
def waits():
    ran.append("waits")


@dramatiq.actor(queue_name="python", max_retries=3, min_backoff=500, max_backoff=500)
def runs():
    ran.append("runs")
    begun.set()
    try:
        for _ in range(200):
            time.sleep(0.05)
        ran.append("runs to its end")
    except Abort:
        ran.append("aborted")
        raise


@dramatiq.actor(queue_name="python")
def step():
    ran.append("step")


@dramatiq.actor(queue_name="python")
def after():
    ran.append("after")


abort(waits.send().message_id)
Workflow(Chain(step.message(), after.message())).run()
jid = json.loads(client.lrange("queue:python", 0, -1)[0])["jid"]
abort(jid)
message = runs.send()
worker = dramatiq.Worker(broker, worker_threads=4, worker_timeout=100)
worker.start()
begun.wait(5)
time.sleep(0.5)
abort(message.message_id)
time.sleep(6)
worker.stop()
broker.close()
dead = {json.loads(m)["class"]: json.loads(m)["error_class"] for m, _ in client.zscan("dead")[1]}
print("ran:", ran, "| dead:", dead, "| retry:", client.zcard("retry"), "| queue:", client.llen("queue:python"))
ok = (
    ran == ["runs", "aborted"]
    and dead.get("step") == "StepSkipped"
    and "waits" not in dead
    and not client.zcard("retry")
)
print("PASS" if ok else "FAIL")
sys.exit(not ok)
