"""What users write, as mypy sees it: `make check` reads this, nothing runs it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import dramatiq
from typing_extensions import assert_type

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    Job,
    RedisHashMemory,
    RubyJob,
    SidekiqBroker,
    WithDelay,
    Workflow,
    WorkflowMiddleware,
    current_run,
    find_current_run,
)
from dramatiq_sidekiq_flow.context import CurrentRun, RunMemory

broker = SidekiqBroker(url="redis://localhost:6379/0")
broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(ttl=timedelta(days=1)), inherit=["shop_id"]))
dramatiq.set_broker(broker)
Thumbnail = RubyJob("Images::Thumbnail", queue="ruby", retry=3)


@dramatiq.actor(queue_name="python")
def extract(doc_id: str) -> dict[str, Any]:
    # As README has it, without a look whether there is a run.
    assert_type(current_run(), CurrentRun)
    assert_type(current_run().run_id, str)
    assert_type(current_run().memory, RunMemory)
    assert_type(current_run().memory.read("text"), dict[str, Any])
    assert_type(current_run().context, Mapping[str, Any])
    assert_type(find_current_run(), CurrentRun | None)
    return {"text": current_run().memory.read("text")["text"]}


tree = Chain(extract.message("42"), Group(Thumbnail(200), Job("Docs::Load", queue="ruby")), WithDelay(Chain(), 500))
assert_type(Workflow(tree).run(), str)
assert_type(Thumbnail(200), Job)
