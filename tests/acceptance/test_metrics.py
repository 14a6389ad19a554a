"""Two worker processes of one ``dramatiq`` command, scraped over HTTP."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import dramatiq
import redis
from prometheus_client.parser import text_string_to_metric_families

from dramatiq_sidekiq_flow import Group, SidekiqBroker, Workflow, WorkflowMiddleware

from ..running import eventually
from .processes import registered, workers

STEPS = 40


def scrape(address: str) -> dict[tuple[str, str], float]:
    with urllib.request.urlopen(address, timeout=20) as answer:
        text = answer.read().decode()
    return {
        (sample.name.removeprefix("sidekiq_flow_"), sample.labels.get("actor", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


def test_the_counts_of_two_processes_are_one(redis_url: str, client: redis.Redis, tmp_path: Path) -> None:
    broker = SidekiqBroker(url=redis_url)
    broker.add_middleware(WorkflowMiddleware())

    def declare(name: str) -> dramatiq.Actor[..., None]:
        return dramatiq.actor(actor_name=name, queue_name="python", broker=broker)(lambda *args: None)

    meet, step, hold = map(declare, ("meet", "step", "hold"))
    log = tmp_path / "log"
    # One job at a time for each process, so that both have some.
    with workers(
        redis_url,
        log,
        count=0,
        module="tests.acceptance.metrics_app",
        dramatiq_queue_prefetch="1",
        TMPDIR=str(tmp_path),
    ) as at_work:
        at_work.command += ["--processes", "2"]
        at_work.start()
        registered(client, 2)
        found = eventually(lambda: re.findall(r"Metrics are served on (\S+)\.\n", log.read_text("utf-8")))
        assert len(found) == 1, "one of the two serves"
        (address,) = found

        Workflow(Group(meet.message(), meet.message(), *(step.message(n) for n in range(STEPS))), broker=broker).run()
        # Counted after the acknowledgement: Redis is done first.
        eventually(
            lambda: (now := scrape(address)).get(("jobs_total", "step")) == STEPS and now["jobs_total", "meet"] == 2
        )
        now = scrape(address)
        assert client.scard("met") == 2
        assert now["advances_total", "step"] == STEPS
        assert now["duration_seconds_count", "step"] == now["latency_seconds_count", "step"] == STEPS
        assert now["running", "step"] == now["running", "meet"] == 0
        assert now["queue_depth", ""] == 0

        hold.send()
        eventually(lambda: scrape(address).get(("running", "hold")) == 1)
        client.set("release", 1)
        eventually(lambda: scrape(address)["running", "hold"] == 0)
        at_work.stop()
    lines = log.read_text("utf-8")
    assert lines.count("start: class=step") == lines.count("done: class=step") == STEPS
    assert "Unexpected failure" not in lines
    assert "Traceback" not in lines
