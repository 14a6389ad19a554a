"""The stand-in for the gem writes what the real gem wrote: it replays the recordings, too."""

from __future__ import annotations

import redis

from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop.tests.processes import ruby


def test_the_gem_or_its_stand_in_replays_the_recordings(server: EmbeddedServer, container: None) -> None:
    url = f"{server.url.rstrip('/').removesuffix('/0')}/7"
    # Other tests may have used this database before; replay.rb wants an empty one.
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    assert "36 passed, 0 failed" in ruby(url, "replay.rb")
