"""The application of the tests with a sick Redis.  What runs is written to a file, which Redis cannot lose.

A line of it is ``jid name``, written when the job begins.
"""

from __future__ import annotations

import os
import time

import dramatiq
from dramatiq.middleware import CurrentMessage

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware

broker = SidekiqBroker(url=os.environ["REDIS_URL"])
broker.add_middleware(CurrentMessage())
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)

record = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(name: str) -> None:
    message = CurrentMessage.get_current_message()
    assert message is not None
    os.write(record, f"{message.message_id} {name}\n".encode())


@dramatiq.actor(queue_name="python")
def job(name: str, seconds: float = 0.0) -> None:
    note(name)
    time.sleep(seconds)


@dramatiq.actor(queue_name="python", max_retries=3)
def fails_once(name: str) -> None:
    message = CurrentMessage.get_current_message()
    assert message is not None
    retries = message.options.get("retries", 0)
    note(f"{name}-{retries}")
    if not retries:
        raise dramatiq.errors.Retry("once", delay=100)
