"""The Python worker of compose.yaml: one step, recorded like the Ruby ones."""

import json
import os
import time
from datetime import timedelta
from typing import Any

import dramatiq
import redis

from dramatiq_sidekiq_flow import RedisHashMemory, SidekiqBroker, WorkflowMiddleware, current_run

URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
EVENTS = os.environ.get("INTEROP_EVENTS", "interop:events")

broker = SidekiqBroker(url=URL)
broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(ttl=timedelta(days=1), key_prefix="swf:mem")))
dramatiq.set_broker(broker)

events = redis.Redis.from_url(URL)


@dramatiq.actor(actor_name="Py::Upcase", queue_name="python")
def upcase(text: str) -> dict[str, Any]:
    start = time.time()
    run = current_run()
    result = {"text": text.upper()}
    events.rpush(
        EVENTS,
        json.dumps(
            {
                "language": "python",
                "class": "Py::Upcase",
                "args": [text],
                "run_id": run.run_id if run else None,
                "start": start,
                "end": time.time(),
                "outcome": "done",
            }
        ),
    )
    return result
