"""Which steps of a tree hold their number, and which get it from the step before them."""

from __future__ import annotations

from typing import Any

import pytest

from dramatiq_sidekiq_flow.wire.death_nodes import Catch, MayFail
from dramatiq_sidekiq_flow.wire.nodes import Chain, Group, Job, Node, WithDelay, dump, dump_job, jobs
from dramatiq_sidekiq_flow.wire.step_numbers import number_steps

P, R = Job("p"), Job("R")


def numbers(node: Node) -> list[int | None]:
    wire = dump(node, dump_job)
    count, _ = number_steps(wire, lambda job: job["class"] == "p")
    found = [job.get("swf_step") for job in jobs(wire)]
    assert count == len(found)
    assert [number or place for place, number in enumerate(found, 1)] == list(range(1, count + 1))
    return found


@pytest.mark.parametrize(
    ("node", "held"),
    [
        (P, [1]),
        (Chain(), []),
        (Chain(P, P, P), [1, None, None]),
        (Chain(P, R, P, P), [1, None, 3, None]),
        (Chain(Chain(P, P), Chain(P, P), P), [1, None, None, None, None]),
        (Chain(P, Group(P, P), P, P), [1, 2, 3, 4, None]),
        (Chain(P, Group(Chain(P, P), R), P), [1, 2, None, 4, 5]),
        (Chain(P, Group(), Chain(), P), [1, None]),
        (Chain(P, WithDelay(P, 100), P), [1, None, None]),
        # An empty node with a delay becomes a job without a number.
        (Chain(P, WithDelay(Group(), 100), P), [1, 2]),
        (Chain(P, Group(Chain(), Group()), P), [1, None]),
        (Chain(P, WithDelay(Chain(Chain(), P), 100), P), [1, 2, None]),
        (Chain(P, WithDelay(Chain(P, Chain(), P), 100)), [1, None, None]),
        (Chain(P, Group(WithDelay(Chain(), 100)), P), [1, 2]),
        (Chain(P, WithDelay(Group(), 0), P), [1, None]),
        # What comes next follows the step, or its fallback.
        (Chain(P, Catch(P, Chain(P, P)), P, MayFail(P), P), [1, None, 3, None, 5, None, None]),
        (Group(Chain(R, P), Chain(P, R, R)), [1, 2, 3, None, 5]),
    ],
    ids=str,
)
def test_a_step_holds_its_number_unless_one_step_of_python_starts_it(node: Node, held: list[Any]) -> None:
    assert numbers(node) == held
