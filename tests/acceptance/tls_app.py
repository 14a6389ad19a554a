"""The application of the tests of TLS and Sentinel.  What runs is written to a file, a line ``name jid``.

``REDIS_URL`` is a URL, with ``TLS`` the JSON of more options; with ``SENTINELS``,
``PORT,PORT,...``, the broker asks these for the master ``flow``; ``IDLE_QUEUES`` is how
many more queues the worker consumes from.
"""

from __future__ import annotations

import json
import os
import time

import dramatiq
from dramatiq.middleware import CurrentMessage
from redis.sentinel import Sentinel

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware


def make_broker() -> SidekiqBroker:
    """A broker as docs/operations.md makes it."""
    ports = os.environ.get("SENTINELS")
    if ports:
        sentinel = Sentinel([("127.0.0.1", int(port)) for port in ports.split(",")], socket_timeout=1)
        broker = SidekiqBroker(client=sentinel.master_for("flow", socket_timeout=3), heartbeat_timeout=5_000)
    else:
        options = json.loads(os.environ.get("TLS", "{}"))
        broker = SidekiqBroker(url=os.environ["REDIS_URL"], heartbeat_timeout=5_000, **options)
    broker.add_middleware(CurrentMessage())
    broker.add_middleware(WorkflowMiddleware())
    dramatiq.set_broker(broker)
    return broker


broker = make_broker()
record = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@dramatiq.actor(queue_name="python")
def step(name: str, seconds: float = 0.0) -> None:
    message = CurrentMessage.get_current_message()
    assert message is not None
    os.write(record, f"{name} {message.message_id}\n".encode())
    time.sleep(seconds)


for number in range(int(os.environ.get("IDLE_QUEUES", "0"))):

    @dramatiq.actor(actor_name=f"idle{number}", queue_name=f"idle{number}")
    def idle() -> None: ...
