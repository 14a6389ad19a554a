"""dramatiq #39, #287: the result of a message by its id; the same with dramatiq-workflow.

`message = actor.message(...)`, the message is a step of a workflow, then
`message.get_result(block=True)`, as works with dramatiq-workflow on
RedisBroker (it enqueues the message that it was given, with its id).
"""

import os
import sys

import dramatiq
import redis
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from dramatiq_sidekiq_flow import Chain, SidekiqBroker, Workflow, WorkflowMiddleware

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()
backend = RedisBackend(url=URL)
broker = SidekiqBroker(url=URL)
broker.add_middleware(Results(backend=backend))
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="python", store_results=True)
def add(a, b):
    return a + b


worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
worker.start()
plain = add.send(1, 1)
first, second = add.message(1, 2), add.message(3, 4)
Workflow(Chain(first, second)).run()
got = {}
for name, message in (("plain", plain), ("first", first), ("second", second)):
    try:
        got[name] = message.get_result(backend=backend, block=True, timeout=4000)
    except Exception as e:
        got[name] = type(e).__name__
stored = sum(len(k) == 32 for k in client.scan_iter())  # under md5 names
worker.stop()
broker.close()
print(got, "| results stored:", stored)
if got != {"plain": 2, "first": 3, "second": 7}:
    print("FAIL: results are stored, under ids that the sender never learns")
    sys.exit(1)
print("PASS")
