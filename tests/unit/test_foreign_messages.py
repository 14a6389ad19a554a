"""A job becomes another broker's message, and the same job again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dramatiq import Message
from dramatiq.common import dq_name

from dramatiq_sidekiq_flow.foreign.foreign_messages import encode, from_foreign, is_step, to_foreign
from dramatiq_sidekiq_flow.wire.payload import Payload

BARRIER = "0a5edf69-a7ad-4b4b-bb00-30951d52d845"
JOB: dict[str, Any] = {
    "class": "Docs::Extract",
    "args": [1, {"a": None}],
    "jid": "f" * 24,
    "queue": "python",
    "retry": 3,
    "created_at": 1.5,
    "tags": ["x"],
    "cattr": {"tenant": 7},
    "failed_at": 2.5,
    "workflow_run_id": "r",
    "workflow_completion_callbacks": [[BARRIER, {"__type__": "chain", "children": []}, False]],
    "dramatiq": {"time_limit": 5, "on_success": "other"},
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"retry": True},
        {"retry": False},
        {"retry": 0},
        {"sideline_run_id": "s", "workflow_run_id": None},
        {"class": "Sidekiq::Workflow::NoopWorker", "wrapped": "extract", "display_class": "extract"},
        {"dramatiq": None},
    ],
)
def test_a_job_comes_back_as_it_was(changes: dict[str, Any]) -> None:
    job = {key: value for key, value in {**JOB, **changes}.items() if value is not None}
    payload = Payload.decode(json.dumps(job).encode())
    message = to_foreign(payload, "python")
    assert is_step(message)
    assert (message.actor_name, message.message_id) == (payload.actor_name, payload.jid)
    # As a broker's own delay queue and retries leave it.
    moved = Message.decode(message.encode()).copy(
        queue_name=dq_name("python"), options={"eta": 1, "redis_message_id": "m", "retries": 2, "traceback": "t"}
    )
    back = from_foreign(moved, {"retry": True, "queue": "elsewhere"})
    assert json.loads(encode(back)) == job
    assert (back.stack, back.dialect, back.run_id) == (payload.stack, payload.dialect, payload.run_id)


def test_options_that_only_dramatiq_knows_are_the_messages() -> None:
    message = to_foreign(Payload.decode(json.dumps(JOB).encode()), "python")
    assert {key: message.options[key] for key in ("time_limit", "on_success", "max_retries")} == {
        "time_limit": 5,
        "on_success": "other",
        "max_retries": 3,
    }


def test_other_messages_are_no_steps() -> None:
    assert not is_step(Message("python", "step", (), {}, {"max_retries": 3}))
