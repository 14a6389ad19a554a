"""The examples of docs/web-ui.md run as printed."""

from __future__ import annotations

import re
from typing import Any

import dramatiq
import redis

from dramatiq_sidekiq_flow import SidekiqBroker

from .processes import ROOT


def test_the_examples_run_as_printed(redis_url: str, client: redis.Redis) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "web-ui.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 5
    # Only where the server is differs.
    names: dict[str, Any] = {"SidekiqBroker": SidekiqBroker, "jid": "0" * 24}
    for number, block in enumerate(blocks):
        exec(block.replace("redis://localhost:6379/0", redis_url), names)
        if number == 0:
            dramatiq.set_broker(names["broker"])
    assert names["broker"].processes.appearance.tag == "shop"
    assert names["export"].actor_name in names["broker"].cancellable
    assert client.hexists(f"it-{'0' * 24}", "cancelled")
    assert not client.exists("paused")
    names["broker"].close()
