"""Chains by reference, worked out without Redis."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dramatiq_sidekiq_flow.errors import CallbacksMissing, InvalidNode, PayloadError
from dramatiq_sidekiq_flow.wire.callbacks import load_stack
from dramatiq_sidekiq_flow.wire.nodes import validate
from dramatiq_sidekiq_flow.wire.references import follow, refer

JOB = {"__type__": "job", "class": "A", "args": [1]}
EMPTY: dict[str, Any] = {"__type__": "chain", "children": []}


def delayed(delay: float) -> dict[str, Any]:
    return {"__type__": "with_delay", "delay": delay, "task": JOB}


def walk(reference: Any, values: list[bytes]) -> list[Any]:
    found = []
    for value in values:
        child, reference = follow(reference, value)
        found.append(child)
    assert reference is None
    return found


@given(
    st.lists(
        st.sampled_from([JOB, {**JOB, "class": "Ä"}, delayed(5), EMPTY, {"__type__": "group", "children": [JOB, JOB]}])
    )
)
def test_followed_to_the_end_it_is_the_chain(children: list[Any]) -> None:
    children = [*children, JOB]
    reference, values = refer(children)
    assert walk(reference, values) == children


def test_the_same_chain_has_the_same_name_and_any_other_has_another() -> None:
    assert refer([JOB, JOB]) == refer([dict(JOB), dict(JOB)])
    assert refer([JOB, JOB])[0]["chain"] != refer([JOB, JOB, JOB])[0]["chain"]
    assert refer([JOB, delayed(1)])[0]["chain"] != refer([JOB, delayed(2)])[0]["chain"]


def test_what_has_nothing_to_run_at_the_end_is_left_out() -> None:
    reference, values = refer([JOB, EMPTY, JOB, EMPTY, {"__type__": "group", "children": [EMPTY]}])
    assert walk(reference, values) == [JOB, EMPTY, JOB]


def test_the_delays_of_the_whole_chain_are_known_at_each_step() -> None:
    reference, values = refer([delayed(1000), JOB, delayed(2.5)])
    assert reference["delay"] == 1002.5
    _, reference = follow(reference, values[0])  # type: ignore[assignment]
    assert reference["delay"] == 1002.5
    assert "delay" not in refer([JOB])[0]


def test_a_value_that_is_not_the_one_is_refused() -> None:
    reference, values = refer([JOB, JOB])
    with pytest.raises(CallbacksMissing, match="step|Step") as caught:
        follow(reference, values[0].replace(b'"A"', b'"B"'))
    assert caught.value.value == reference


def test_a_value_that_is_no_tree_is_refused() -> None:
    reference, values = refer([JOB])
    bad = {**JOB, "__type__": "nothing"}
    reference, values = refer([JOB, bad, JOB])
    _, reference = follow(reference, values[0])  # type: ignore[assignment]
    with pytest.raises(InvalidNode):
        follow(reference, values[1])


BARRIER = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    "change", [{"chain": "../queues"}, {"chain": "A" * 64}, {"sha": 5}, {"at": -1}, {"at": "1"}, {"delay": "1"}]
)
def test_a_reference_that_is_none_is_refused(change: Any) -> None:
    reference = refer([JOB])[0]
    assert load_stack([[BARRIER, reference, False]])[0].remaining == reference
    with pytest.raises(PayloadError):
        load_stack([[BARRIER, {**reference, **change}, False]])


def test_no_reference_stands_inside_a_tree() -> None:
    with pytest.raises(InvalidNode):
        validate({"__type__": "chain", "children": [refer([JOB])[0]]})
