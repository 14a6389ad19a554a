"""A worker that is started before its Redis: once that is there, all works that works elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest

from dramatiq_sidekiq_flow import Chain, SidekiqBroker, WithDelay, Workflow, WorkflowMiddleware

from ..running import eventually, in_flight
from .processes import workers
from .servers import Server

#: The workers' user, with all rights and with all but one.
USERS = {"all": ["+@all"], "no INFO": ["+@all", "-info"]}


@pytest.fixture(params=list(USERS.values()), ids=list(USERS))
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    user = ["--user", "worker", "on", ">worker", "~*", "&*", *request.param]
    server = Server(tmp_path / "redis", "--save", "", *user)
    yield server
    server.kill()


def test_a_worker_before_its_redis(server: Server, tmp_path: Path) -> None:
    record, log = tmp_path / "record", tmp_path / "log"
    record.touch()
    broker = SidekiqBroker(url=server.url())
    broker.add_middleware(WorkflowMiddleware())

    @dramatiq.actor(queue_name="python", broker=broker)
    def job(name: str) -> None: ...

    @dramatiq.actor(queue_name="python", broker=broker)
    def fails_once(name: str) -> None: ...

    def ran() -> list[str]:
        return sorted(line.split()[1] for line in record.read_text().splitlines())

    def processes() -> list[dict[str, Any]]:
        infos = [server.client.hget(identity, "info") for identity in server.client.smembers("processes")]
        return [json.loads(info) for info in infos if info]

    with workers(server.url("worker"), log, count=1, module="tests.acceptance.sick_app", RECORD=str(record)) as at_work:
        # It has tried to start, and a consumer has waited and tried once more.
        eventually(lambda: log.read_text("utf-8", "replace").count("onnection refused") >= 2, what="two tries")
        server.start()
        job.send("now")
        job.send_with_options(args=("later",), delay=500)
        fails_once.send("fails")
        Workflow(Chain(WithDelay(job.message("step"), 500), job.message("after")), broker=broker).run()
        eventually(lambda: ran() == ["after", "fails-0", "fails-1", "later", "now", "step"], what="all have run")
        eventually(lambda: not in_flight(server.client))
        (info,) = eventually(processes, what="the process is on the Busy page")
        assert info["queues"] == ["python"]
        assert server.client.zcard("swf:workers") == 1
        at_work.stop()
    assert not server.client.exists("processes", "retry", "schedule", "dead", "queue:python")
    assert "Unexpected failure" not in log.read_text("utf-8", "replace")
    broker.close()
