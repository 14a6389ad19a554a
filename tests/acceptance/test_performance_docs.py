"""The example of docs/performance.md: a run on one of several Redis servers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis

import dramatiq_sidekiq_flow
from dramatiq_sidekiq_flow import SidekiqBroker
from dramatiq_sidekiq_flow.embedded import EmbeddedServer

from ..running import eventually, working

PAGE = (Path(__file__).parents[2] / "docs" / "performance.md").read_text("utf-8")


@pytest.fixture
def urls() -> Iterator[list[str]]:
    """Two servers."""
    before = dramatiq.broker.global_broker
    with EmbeddedServer() as first, EmbeddedServer() as second:
        yield [first.url, second.url]
    dramatiq.broker.global_broker = before


def test_a_run_lives_on_the_server_that_its_key_chooses(urls: list[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {name: getattr(dramatiq_sidekiq_flow, name) for name in dramatiq_sidekiq_flow.__all__}
    space: dict[str, Any] = {**names, "dramatiq": dramatiq, "urls": urls}
    exec(code, space)  # noqa: S102
    clients = [redis.Redis.from_url(url) for url in urls]
    assert [client.llen("queue:python") for client in clients] == [0, 1]

    shards: list[SidekiqBroker] = space["shards"]
    with working(shards[1]):
        eventually(lambda: clients[1].dbsize() and not clients[1].exists("queue:python"))
        shards[1].join("python", timeout=30_000)
    for client in clients:
        assert client.llen("queue:python") == 0
        assert not client.exists("retry", "dead")
    for broker in shards:
        broker.close()
