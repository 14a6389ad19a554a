"""What `dramatiq app` loads: a Python worker of the two-language tests."""

from __future__ import annotations

import os

import dramatiq
from actors import build

broker = build(
    os.environ["REDIS_URL"],
    poll=int(os.environ["INTEROP_PYTHON_POLL"]),
    heartbeat=int(os.environ.get("INTEROP_PYTHON_HEARTBEAT", "60000")),
    queues=tuple(os.environ["INTEROP_PYTHON_QUEUES"].split(",")),
)
dramatiq.set_broker(broker)
