"""The server that all are measured on, and what it counts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from dramatiq_sidekiq_flow.embedded import EmbeddedServer

#: What INFO counts, by our names.  Reads are what counts round trips: a
#: pipeline is one read; commands include those that scripts call.
COUNTERS = {
    "reads": "total_reads_processed",
    "commands": "total_commands_processed",
    "bytes_in": "total_net_input_bytes",
    "bytes_out": "total_net_output_bytes",
}

#: The server's CPU time, of INFO too: seconds.
CPU = ("used_cpu_sys", "used_cpu_user")


class NotEmpty(Exception):
    """The given server holds something: it is not ours to empty."""


@contextmanager
def serve(url: str | None) -> Iterator[str]:
    """The URL of a server of our own, or of the given one.

    Raises:
      NotEmpty: where the given server holds keys.
      EmbeddedServerError: where there is not a server to run.
    """
    if url is not None:
        with redis.Redis.from_url(url) as client:
            if client.info("keyspace"):
                raise NotEmpty("The given server is not empty, and each measure empties it. Give an empty one.")
        yield url
        return
    with EmbeddedServer() as server:
        yield server.url


class Server:
    """Empties the server between measures, and reads its counters."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = redis.Redis.from_url(url)
        self._clients = self._connected()
        # What one look at the counters adds to them, taken while nobody else
        # is connected.
        self._read()
        before = self._read()
        self._cost = {name: count - before[name] for name, count in self._read().items()}

    def describe(self) -> dict[str, Any]:
        info: dict[str, Any] = self._client.info("server")
        name = info.get("server_name", "redis")
        return {"name": name, "version": info.get(f"{name}_version", info.get("redis_version"))}

    def reset(self) -> None:
        """Empty it, once those measured before have left."""
        deadline = time.monotonic() + 5
        while self._connected() > self._clients and time.monotonic() < deadline:
            time.sleep(0.02)
        self._client.flushall()

    @contextmanager
    def traffic(self, jobs: int) -> Iterator[dict[str, float]]:
        """What happens meanwhile, per job, filled in at the end."""
        per_job: dict[str, float] = {}
        before = self._read()
        yield per_job
        for name, count in self._read().items():
            per_job[name] = (count - before[name] - self._cost[name]) / jobs

    @contextmanager
    def longest(self) -> Iterator[dict[str, float]]:
        """The longest command meanwhile, in ms (0 for less than 1), filled in at the end.

        A script counts as one command; nothing else is served while it runs.
        """
        found: dict[str, float] = {}
        self._client.config_set("slowlog-log-slower-than", 1000)
        self._client.config_set("slowlog-max-len", 10_000)
        self._client.slowlog_reset()
        yield found
        entries: list[dict[str, Any]] = self._client.slowlog_get(10_000)
        found["longest"] = max((entry["duration"] / 1000 for entry in entries), default=0.0)

    def check_length(self, key: str, expected: int) -> None:
        """Check how many elements a list has.

        Raises:
          AssertionError: if it has others.
        """
        if (waiting := int(self._client.llen(key))) != expected:
            raise AssertionError(f"{waiting:,} jobs wait instead of {expected:,}")

    def only_job(self, key: str) -> tuple[bytes, bytes]:
        """The jid and the payload of the only job of a queue."""
        self.check_length(key, 1)
        payload: Any = self._client.lindex(key, 0)
        return json.loads(payload)["jid"].encode(), payload

    def push(self, key: str, payloads: list[bytes]) -> None:
        """Push payloads to a queue."""
        self._client.lpush(key, *payloads)

    def close(self) -> None:
        self._client.close()

    def _read(self) -> dict[str, float]:
        # One network read.
        info: dict[str, Any] = {}
        with self._client.pipeline(transaction=False) as pipe:
            pipe.info("stats")
            pipe.info("cpu")
            for answer in pipe.execute():
                info |= answer
        # A server that does not count something has no such figure.
        counted: dict[str, float] = {name: int(info[key]) for name, key in COUNTERS.items() if key in info}
        return {**counted, "server_cpu": sum(info[key] for key in CPU) * 1e6}

    def _connected(self) -> int:
        info: dict[str, Any] = self._client.info("clients")
        return int(info["connected_clients"])
