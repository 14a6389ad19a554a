"""What `dramatiq app` loads: a Python worker of the two-language tests."""

from __future__ import annotations

import os

import dramatiq

from dramatiq_sidekiq_flow.process import upkeep
from interop.tests.actors import build

# The keeper need not wait.
upkeep.BETWEEN = upkeep.IDLE = 0.5

broker = build(
    os.environ["REDIS_URL"],
    poll=int(os.environ["INTEROP_PYTHON_POLL"]),
    heartbeat=int(os.environ.get("INTEROP_PYTHON_HEARTBEAT", "60000")),
    queues=tuple(os.environ["INTEROP_PYTHON_QUEUES"].split(",")),
    references=int(os.environ["INTEROP_REFERENCES"]) if "INTEROP_REFERENCES" in os.environ else None,
)
dramatiq.set_broker(broker)
