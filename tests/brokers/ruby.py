"""Ruby, as far as another broker meets it: pops jobs of its queues, and advances as the plain gem does."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import redis

from dramatiq_sidekiq_flow.wire.lifetimes import barrier_ttl
from dramatiq_sidekiq_flow.wire.payload import DEFAULTS, Payload
from dramatiq_sidekiq_flow.workflow.engine import RANDOM_IDS
from dramatiq_sidekiq_flow.workflow.plan import Source, plan

from ..redis_values import as_bytes


class FakeRuby:
    """One thread that consumes some Sidekiq queues.

    Parameters:
      log: Each job's first argument is appended, or its class.
      classes: Options of classes, as Ruby would fill them in when it pushes.
    """

    def __init__(
        self, url: str, log: list[Any], *queues: str, classes: dict[str, dict[str, Any]] | None = None
    ) -> None:
        self.client = redis.Redis.from_url(url)
        self.log = log
        self.queues = [f"queue:{queue}" for queue in queues]
        self.classes = classes or {}
        self.jobs: list[dict[str, Any]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> FakeRuby:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()
        self.client.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                popped = self.client.brpop(self.queues, timeout=0.1)
                if popped:
                    self.perform(as_bytes(popped[1]))
            except redis.ConnectionError:
                self._stop.wait(0.05)

    def perform(self, raw: bytes) -> None:
        payload = Payload.decode(raw)
        self.jobs.append(json.loads(raw))
        self.log.append(payload.args[0] if payload.args else payload.fields["class"])
        stack = payload.stack
        while stack:
            callback, stack = stack[-1], stack[:-1]
            if self.client.decr(callback.barrier) > 0 or self.client.incrby(f"{callback.barrier}_ran", 1) != 0:
                return
            if callback.remaining is not None and self.push(callback.remaining, stack, payload.run_id):
                return
            if callback.remaining is None and not callback.propagate:
                return

    def push(self, node: Any, stack: Any, run_id: str | None) -> bool:
        """Start a node; False where there was nothing to run."""
        source = Source(
            run_id=run_id,
            now=time.time(),
            options=lambda wire: {**DEFAULTS, **self.classes.get(wire["class"], {})},
            ids=RANDOM_IDS,
        )
        planned = plan(node, stack, source, barrier_ttl(node, stack))
        for barrier in planned.barriers:
            self.client.set(barrier.id, barrier.value, ex=barrier.ttl)
            self.client.set(f"{barrier.id}_ran", barrier.ran, ex=barrier.ttl)
        for queue, payloads in planned.pushes.items():
            self.client.sadd("queues", queue)
            self.client.lpush(f"queue:{queue}", *payloads)
        for at, payload in planned.scheduled:
            self.client.zadd("schedule", {payload: at})
        return not planned.completes
