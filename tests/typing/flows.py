"""Tests of users: workflows in one process, and a server to throw away."""

from __future__ import annotations

from typing import Any

from typing_extensions import assert_type

from dramatiq_sidekiq_flow import Chain, Memory, RedisHashMemory, SidekiqBroker
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from dramatiq_sidekiq_flow.testing import Enqueued, FlowTest, MemoryConformance, Run, Step

from .actors import plain


def thumbnail(size: int) -> dict[str, int]:
    return {"thumbnail": size}


def runs_of(broker: SidekiqBroker) -> None:
    with FlowTest(broker, seed=1, max_jobs=100) as flow:
        assert_type(flow, FlowTest)
        assert_type(flow.broker, SidekiqBroker)
        # What it decorates stays what it is.
        assert_type(flow.ruby("Images::Thumbnail", thumbnail)(200), dict[str, int])
        assert_type(flow.ruby("Images::Thumbnail")(thumbnail)(200), dict[str, int])

        @flow.ruby("Images::Crop")
        def crop(size: int) -> None: ...

        run = flow.run(Chain(plain.message("42")), seed={"size": 200})
        assert_type(run, Run)
        assert_type(run.run_id, str)
        assert_type(run.order, list[str])
        assert_type(run.failed, list[Step])
        assert_type(run.steps, tuple[Step, ...])
        assert_type(run.steps[0].error, BaseException | None)
        assert_type(run.steps[0].done, bool)
        assert_type(run.enqueued, tuple[Enqueued, ...])
        assert_type(run.memory, dict[str, Any])
        assert_type(flow.finish(run.run_id), Run)
        flow.assert_order(run, "plain", "Images::Thumbnail")


class TestOwnMemory(MemoryConformance):
    def make(self) -> Memory:
        return RedisHashMemory()


def server() -> None:
    with EmbeddedServer(appendonly=True, data_dir="/tmp/data", maxmemory="10mb") as running:
        assert_type(running, EmbeddedServer)
        assert_type(running.url, str)
