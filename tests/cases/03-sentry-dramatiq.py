"""sentry-python #3454 / PR 4571: the trace of a web request goes on in the actors that it started.

sentry_sdk's DramatiqIntegration writes its headers into the message's options
in `before_enqueue`, and continues the trace in the worker.  Inside of one
transaction: an actor is sent, and a chain of two steps is started.  All three
must be in the trace of the request; an error must be reported once.
Needs sentry-sdk.
"""

import os
import sys
import time

import dramatiq
import redis
import sentry_sdk
from sentry_sdk.integrations.dramatiq import DramatiqIntegration
from sentry_sdk.transport import Transport

from dramatiq_sidekiq_flow import Chain, SidekiqBroker, Workflow, WorkflowMiddleware

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()
got = []


class Keep(Transport):
    def capture_envelope(self, envelope):
        for item in envelope.items:
            if item.payload.json:
                got.append(item.payload.json)


sentry_sdk.init(
    dsn="http://key@127.0.0.1:9/1",
    transport=Keep,
    traces_sample_rate=1.0,
    integrations=[DramatiqIntegration()],
    default_integrations=False,
)
broker = SidekiqBroker(url=URL)
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="python")
def plain():
    pass


@dramatiq.actor(queue_name="python")
def first():
    pass


@dramatiq.actor(queue_name="python")
def second():
    pass


@dramatiq.actor(queue_name="python", max_retries=0)
def broken():
    raise ValueError("reported once")


with sentry_sdk.start_transaction(name="request") as request:
    plain.send()
    Workflow(Chain(first.message(), second.message())).run()
    broken.send()
    trace = request.trace_id
worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
worker.start()
time.sleep(3)
worker.stop()
broker.close()
sentry_sdk.flush(2)
traces = {
    e["transaction"]: e["contexts"]["trace"]["trace_id"] == trace
    for e in got
    if e.get("type") == "transaction" and e["transaction"] != "request"
}
errors = [e for e in got if e.get("exception")]
print("in the request's trace:", traces, "| errors reported:", len(errors))
lost = [name for name in ("plain", "first", "second", "broken") if not traces.get(name)]
if lost or len(errors) != 1:
    print(f"FAIL: {lost} are traces of their own: before_enqueue is never called for steps")
    sys.exit(1)
print("PASS")
