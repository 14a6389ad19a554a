"""What `dramatiq scene_app` loads: the Python workers that the Web UI is to show."""

from __future__ import annotations

import os

import dramatiq

from interop.web.scene_actors import build

broker = build(os.environ["REDIS_URL"])
dramatiq.set_broker(broker)
