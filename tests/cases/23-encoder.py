"""dramatiq #17 and PR 20, django_dramatiq #28, #61: an encoder of one's own (set_encoder).

A shop encrypts its messages with an encoder of its own.  The Sidekiq wire
cannot carry that, and the same arguments must not go to Redis in the clear:
it is refused, by name, before anything is sent.
"""

import json
import os
import sys

import dramatiq
import redis

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()


class Sealed(dramatiq.Encoder):
    def encode(self, data):
        return bytes(b ^ 0x5A for b in json.dumps(data).encode())

    def decode(self, data):
        return json.loads(bytes(b ^ 0x5A for b in data))


dramatiq.set_encoder(Sealed())
error = None
try:
    broker = SidekiqBroker(url=URL)
    broker.add_middleware(WorkflowMiddleware())
    dramatiq.set_broker(broker)

    @dramatiq.actor(queue_name="python")
    def charge(card):
        pass

    charge.send("4111 1111 1111 1111")
except Exception as e:
    error = e
raw = client.lrange("queue:python", 0, -1)
print("in Redis:", [r[:80] for r in raw], "| error:", error)
if raw:
    print("FAIL: the arguments are in Redis, and not as the encoder would have written them")
    sys.exit(1)
if "Sealed" not in str(error):
    print("FAIL: the error does not name the encoder")
    sys.exit(1)
print("PASS")
