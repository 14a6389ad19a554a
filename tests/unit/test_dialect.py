"""ActiveJob's wrappers, and the gem under its other name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dramatiq_sidekiq_flow.errors import ConfigurationError, InvalidPayload, UnsupportedPayload
from dramatiq_sidekiq_flow.wire.dialect import SIDELINE, WORKFLOW, named
from dramatiq_sidekiq_flow.wire.payload import Payload

UUID = "224a1be4-c469-4117-94af-8540a8358a95"


def active_job(*arguments: Any, **changes: Any) -> bytes:
    job = {"job_class": "Docs::Extract", "arguments": list(arguments), "locale": "de", "timezone": "UTC"}
    fields = {"class": "Sidekiq::ActiveJob::Wrapper", "wrapped": "Docs::Extract", "args": [job], "jid": "a" * 24}
    return json.dumps({**fields, **changes}).encode()


@pytest.mark.parametrize(
    "wrapper", ["Sidekiq::ActiveJob::Wrapper", "ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper"]
)
def test_an_active_job_is_the_actor_of_its_class(wrapper: str) -> None:
    arguments = [1, "two", {"three": [3], "_aj_symbol_keys": ["three"]}]
    job = Payload.decode(active_job(*arguments, **{"class": wrapper}))
    assert (job.actor_name, job.args) == ("Docs::Extract", [1, "two", {"three": [3]}])
    assert job.fields["class"] == wrapper


@pytest.mark.parametrize("argument", [{"_aj_globalid": "gid://app/User/1"}, {"a": [{"_aj_serialized": "X"}]}])
def test_objects_that_only_ruby_has_are_refused(argument: Any) -> None:
    with pytest.raises(UnsupportedPayload, match="ActiveJob"):
        Payload.decode(active_job(argument))


def test_what_is_no_active_job_is_refused() -> None:
    with pytest.raises(InvalidPayload):
        Payload.decode(active_job(args=[1]))


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
    assert named("sideline") is SIDELINE
    with pytest.raises(ConfigurationError):
        named("sidekick")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"a": 1, "_aj_ruby2_keywords": ["a"]}, {"a": 1}),
        ({"a": 1, "_aj_hash_with_indifferent_access": True}, {"a": 1}),
        ([{"b": {"c": 2, "_aj_symbol_keys": ["c"]}, "_aj_symbol_keys": []}], [{"b": {"c": 2}}]),
        (12345678901234567890123, 12345678901234567890123),
    ],
)
def test_notes_of_active_job_are_left_out_at_any_depth(given: Any, read: Any) -> None:
    job = Payload.decode(active_job(given))
    assert job.args == [read]
    # For the retry the job stays as it came, its language and time zone too.
    assert job.fields["args"][0]["arguments"] == [given]
    assert job.fields["args"][0]["locale"] == "de"


def test_tenant_trace_and_locale_are_handed_on() -> None:
    own = {"cattr": {"t": 1}, "cattr_1": {}, "locale": "de", "traceparent": "00-x", "tags": ["no"]}
    job = Payload.decode(json.dumps({"class": "A", "args": [], **own}).encode())
    assert job.inherited() == {key: value for key, value in own.items() if key != "tags"}
