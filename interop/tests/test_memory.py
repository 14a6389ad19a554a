"""What one language keeps in a run's memory, the other reads: the same values, exactly."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, SidekiqBroker, Templates
from interop.tests.processes import Site
from interop.tests.workflows import LANGUAGES, languages, py, rb, start, step

VALUES: dict[str, Any] = {
    "text": 'Grüße, 世界 🦀 \u0000\u2028\u2029 </script> "quoted" \\ \ttab \u00e9 e\u0301',
    "nested": {"a": {"b": [{"c": None}, [], {}, [[]], "", 0, False]}, "": "empty key", "ключ": "значение"},
    "list": [1, 1.0, -0.0, None, True, False, "1", [2, [3, [4]]], {"null": None}],
    "large": 123456789012345678901234567890123456789,
    "negative": -(2**63) - 1,
    "float": 0.1 + 0.2,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
}
#: As Ruby's Schema would not take a null for a String.
NULL = {"nothing": None}


def exact(value: Any) -> str:
    """A text that differs wherever values do: 1 is not 1.0, and 0.0 is not -0.0."""
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("starter", LANGUAGES)
@pytest.mark.parametrize("reader", LANGUAGES)
@pytest.mark.parametrize("writer", LANGUAGES)
def test_values_arrive_as_they_were(both: Site, broker: SidekiqBroker, starter: str, writer: str, reader: str) -> None:
    echo = Job("Rb::Echo" if reader == "ruby" else "Py::Echo")
    wrote = VALUES if reader == "ruby" else {**VALUES, **NULL}
    run_id = start(both, broker, starter, Chain(step(writer, {"return": wrote}), echo))
    both.eventually(lambda: len(both.events(run_id)) == 2, "both steps")
    memory = both.eventually(lambda: (m := both.memory(run_id)) and "echo" in m and m, "the echo in memory")
    assert languages(both, run_id) == [writer, reader]
    assert exact(memory) == exact({**wrote, "echo": wrote})


@pytest.mark.parametrize("starter", LANGUAGES)
def test_null_is_kept_by_both(both: Site, broker: SidekiqBroker, starter: str) -> None:
    tree = Chain(rb({"return": {"a": None, "b": 1}}), py({"return": {"b": None, "c": None}}), Job("Py::Echo"))
    run_id = start(both, broker, starter, tree)
    memory = both.eventually(lambda: (m := both.memory(run_id)) and "echo" in m and m, "the echo in memory")
    nulls = dict.fromkeys("abc")
    assert memory == {**nulls, "echo": nulls}
    assert both.client.hmget(f"swf:mem:{run_id}", "a", "b", "c") == [b"null"] * 3


@pytest.mark.parametrize("starter", LANGUAGES)
def test_a_typed_ruby_job_takes_its_input_from_python(both: Site, broker: SidekiqBroker, starter: str) -> None:
    """The text of one Python step and the number of another; then Python reads what Ruby made of them."""
    makers = Group(py({"return": {"text": "añ"}}), py({"return": {"times": 3}}))
    run_id = start(both, broker, starter, Chain(makers, Job("Rb::Typed"), Job("Py::Echo")))
    memory = both.eventually(lambda: (m := both.memory(run_id)) and "echo" in m and m, "the echo in memory")
    assert memory["echo"] == {"text": "añ", "times": 3, "repeated": "añañañ", "length": 6}


@pytest.mark.parametrize("starter", LANGUAGES)
def test_what_is_no_mapping_is_not_kept(both: Site, broker: SidekiqBroker, starter: str) -> None:
    values: list[Any] = ["text", 7, [{"a": 1}], {}]
    steps = [step(language, {"return": value}) for language in LANGUAGES for value in values]
    run_id = start(both, broker, starter, Chain(*steps, rb({"return": {"end": True}}), Job("Py::Echo")))
    memory = both.eventually(lambda: (m := both.memory(run_id)) and "echo" in m and m, "the echo in memory")
    assert memory == {"end": True, "echo": {"end": True}}


def test_a_typed_ruby_job_takes_its_input_from_a_template(both: Site, broker: SidekiqBroker) -> None:
    """The params are in the memory before the first job is: here, a Ruby one without arguments."""
    registry = Templates()
    registry.register("typed", lambda: Chain(Job("Rb::Typed"), Job("Py::Echo")), defaults={"times": 3})
    run_id = registry.run("typed", {"text": "añ"}, broker=broker)
    memory = both.eventually(lambda: (m := both.memory(run_id)) and "echo" in m and m, "the echo in memory")
    assert memory["echo"] == {"text": "añ", "times": 3, "repeated": "añañañ", "length": 6}
