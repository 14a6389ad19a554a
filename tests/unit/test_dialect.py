"""The gem under its other name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dramatiq_sidekiq_flow.errors import ConfigurationError
from dramatiq_sidekiq_flow.wire.dialect import SIDELINE, WORKFLOW, get
from dramatiq_sidekiq_flow.wire.payload import Payload

UUID = "224a1be4-c469-4117-94af-8540a8358a95"


@pytest.mark.parametrize("dialect", [WORKFLOW, SIDELINE])
def test_jobs_of_either_name_are_read(dialect: Any) -> None:
    fields = {
        "class": dialect.noop_class,
        "wrapped": "enrich",
        "args": [],
        "jid": "b" * 24,
        dialect.run_id_key: "run",
        dialect.callbacks_key: [[UUID, None, True]],
    }
    job = Payload.decode(json.dumps(fields).encode())
    assert (job.actor_name, job.run_id, job.dialect) == ("enrich", "run", dialect)
    assert job.stack[0].barrier == UUID


def test_an_unknown_name_is_refused() -> None:
    assert get("sideline") is SIDELINE
    with pytest.raises(ConfigurationError):
        get("sidekick")


def test_tenant_trace_and_locale_are_handed_on() -> None:
    own = {"cattr": {"t": 1}, "cattr_1": {}, "locale": "de", "traceparent": "00-x", "tags": ["no"]}
    job = Payload.decode(json.dumps({"class": "A", "args": [], **own}).encode())
    assert job.inherited() == {key: value for key, value in own.items() if key != "tags"}
