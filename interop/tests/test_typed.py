"""Typed steps of both languages: each takes what the other sent, returned, or left in memory."""

from __future__ import annotations

from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, SidekiqBroker
from interop.tests.processes import Site
from interop.tests.workflows import LANGUAGES, languages, py, rb, start, step

HASH: dict[str, Any] = {
    "text": "añ 世",
    "ratio": 1.0,
    "tags": {"é": [1, -(2**63) - 1]},
    # As Rails writes a time.
    "at": "2026-01-02T03:04:05.678Z",
}
SEEN = {**HASH, "at": "2026-01-02T03:04:05.678000+00:00"}


def memory_at_the_end(both: Site, run_id: str) -> dict[str, Any]:
    echo: dict[str, Any] = both.eventually(
        lambda: (m := both.memory(run_id)) and "echo" in m and m["echo"], "the echo in memory"
    )
    return echo


@pytest.mark.parametrize("starter", LANGUAGES)
def test_a_typed_actor_takes_a_hash(both: Site, broker: SidekiqBroker, starter: str) -> None:
    run_id = start(both, broker, starter, Chain(Job("Py::Typed", HASH), Job("Py::Echo")))
    assert memory_at_the_end(both, run_id) == {"text": "AÑ 世", "times": 3, "seen": SEEN}


@pytest.mark.parametrize("writer", LANGUAGES)
@pytest.mark.parametrize("starter", LANGUAGES)
def test_a_typed_actor_takes_memory_and_a_typed_job_what_it_returned(
    both: Site, broker: SidekiqBroker, starter: str, writer: str
) -> None:
    """Its argument wins over memory; ``Rb::Typed`` is sent with no arguments at all."""
    text, rest = HASH["text"], {key: value for key, value in HASH.items() if key != "text"}
    tree = Chain(
        Group(step(writer, {"return": {**rest, "text": "not this"}}), step(writer, {"return": {"other": 1}})),
        Job("Py::Typed", {"text": text}),
        Job("Rb::Typed"),
        Job("Py::Echo"),
    )
    run_id = start(both, broker, starter, tree)
    memory = memory_at_the_end(both, run_id)
    assert memory == {
        **rest,
        "other": 1,
        "text": "AÑ 世",
        "times": 3,
        "seen": SEEN,
        "repeated": "AÑ 世" * 3,
        "length": 12,
    }
    assert languages(both, run_id) == [writer, writer, "python", "ruby", "python"]


@pytest.mark.parametrize("source", ["argument", "memory"])
def test_an_integer_is_no_float_as_in_ruby(both: Site, broker: SidekiqBroker, source: str) -> None:
    """Ruby's ``Float === 1`` is false."""
    bad = {"text": "x", "ratio": 1}
    steps = [Job("Py::Typed", bad)] if source == "argument" else [rb({"return": bad}), Job("Py::Typed")]
    run_id = start(both, broker, "ruby", Chain(*steps, py()))
    (job,) = both.eventually(lambda: both.members("dead", run_id), "the job in dead")
    assert job["error_class"] == "InvalidInput"
    assert "input.ratio: expected float or None, got int 1" in job["error_message"]
    assert both.members("retry", run_id) == []
