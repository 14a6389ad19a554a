"""An application whose runs have callbacks; its processes die by SIGKILL, once at each place of KILL_AT.

before_bury, after_bury   around the script that buries a step
after_mark                the keeper has cancelled a run, and has not removed its jobs
before_call, after_call   around the script by which the keeper pushes a callback
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import dramatiq
import redis

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware
from dramatiq_sidekiq_flow.context import current_job
from dramatiq_sidekiq_flow.process import upkeep
from dramatiq_sidekiq_flow.runs import resting_runs, run_cancellation
from dramatiq_sidekiq_flow.store import scripts
from dramatiq_sidekiq_flow.store.outcomes import Operation

URL = os.environ["REDIS_URL"]
PLACES = os.environ.get("KILL_AT", "").split(",")

upkeep.BETWEEN = upkeep.IDLE = 0.1
upkeep.CLAIM = upkeep.INTERVAL = 1
resting_runs.FIRST = 0.0

client = redis.Redis.from_url(URL)
broker = SidekiqBroker(url=URL, heartbeat_timeout=1000, poll_interval=50)
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)


def die(place: str) -> None:
    if place in PLACES and client.sadd("killed", place):
        os.kill(os.getpid(), signal.SIGKILL)


run = broker.process.commit.run


def run_and_die(operation: Operation[Any]) -> Any:
    buries = operation.command[1] == scripts.FAIL.sha
    if buries:
        die("before_bury")
    outcome = run(operation)
    if buries:
        die("after_bury")
    return outcome


broker.process.commit.run = run_and_die  # type: ignore[method-assign]


class Cancellation(run_cancellation.Cancellation):
    def mark_known(self, run_id: str, reason: str) -> bool:
        marked = super().mark_known(run_id, reason)
        die("after_mark")
        return marked


run_cancellation.Cancellation = Cancellation  # type: ignore[misc]


class RestingRuns(resting_runs.RestingRuns):
    def _call(self, *arguments: Any, **options: Any) -> None:
        die("before_call")
        super()._call(*arguments, **options)
        die("after_call")


resting_runs.RestingRuns = RestingRuns  # type: ignore[misc]


@dramatiq.actor(queue_name="python", max_retries=0)
def fails() -> None:
    raise ValueError("it fails")


@dramatiq.actor(queue_name="python")
def step() -> None: ...


@dramatiq.actor(queue_name="python")
def told(name: str, run: dict[str, Any]) -> None:
    job = current_job()
    assert job is not None
    # It runs again if its worker dies: a second push would have another time.
    client.sadd("told", json.dumps([name, run["run_id"], run["state"], job.fields["enqueued_at"]]))
