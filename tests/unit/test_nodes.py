"""Trees and callback stacks, in both forms."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, WithDelay
from dramatiq_sidekiq_flow.errors import (
    InvalidArguments,
    InvalidCallbacks,
    InvalidNode,
    InvalidOptions,
    InvalidWorkflow,
)
from dramatiq_sidekiq_flow.wire.callbacks import dump_stack, load_stack
from dramatiq_sidekiq_flow.wire.nodes import Namespace, carry, dump, dump_job, validate, walk
from dramatiq_sidekiq_flow.wire.tree_times import total_delay

from ..recordings import cases
from ..tree_reader import load

UUID = "224a1be4-c469-4117-94af-8540a8358a95"


def leaf(value: Any) -> Any:
    return dump_job(value) if isinstance(value, Job) else None


@pytest.mark.parametrize("case", [c for _, c in cases()], ids=[n for n, _ in cases()])
def test_recorded_trees_survive(case: dict[str, Any]) -> None:
    assert dump(load(case["tree"]), leaf) == case["tree"]


def test_only_leaves_are_converted_by_the_caller() -> None:
    tree = Group(Chain(Job("A"), Namespace("n", Group(Job("B")))), WithDelay(Chain(Job("C"), Job("D")), delay=1))
    seen: list[Any] = []

    def note(value: Any) -> Any:
        seen.append(value)
        return leaf(value)

    dump(tree, note)
    assert [value.job_class for value in seen] == ["A", "B", "C", "D"]


def test_a_job_keeps_options_that_only_ruby_knows() -> None:
    wire = {"__type__": "job", "class": "A", "args": [], "cattr": {"tenant": 7}, "expires_in": 60}
    assert dump(load(wire), leaf) == wire


@pytest.mark.parametrize(
    "build",
    [
        lambda: Job(""),
        lambda: Job(None),  # type: ignore[arg-type]
        lambda: WithDelay(Job("A"), delay=-1),
        lambda: WithDelay(Job("A"), delay=10**15 + 1),
        lambda: WithDelay(Job("A"), delay=True),
        lambda: dump(Chain("A"), leaf),
        lambda: dump(Group(Job("A"), None), leaf),
    ],
)
def test_junk_is_refused_at_the_caller(build: Any) -> None:
    with pytest.raises(InvalidWorkflow):
        build()


@pytest.mark.parametrize(
    "options",
    [
        {"queue": ""},
        {"queue": 7},
        {"retry": "often"},
        {"tags": "etl"},
        {"retry_for": True},
        {"retry_for": 2e9},
        {"jid": 7},
        {"at": 7},
    ],
)
def test_options_that_sidekiq_would_not_understand(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions):
        Job("A", **options)


def test_arguments_are_checked_when_the_job_is_built() -> None:
    with pytest.raises(InvalidArguments, match=r"args\[1\]"):
        Job("A", 1, object())


def test_a_tree_deeper_than_ruby_reads_is_refused() -> None:
    node: Any = Job("A")
    for _ in range(60):
        node = Chain(node)
    with pytest.raises(InvalidWorkflow, match="deeper"):
        dump(node, leaf)


def test_a_delay_may_be_a_timedelta() -> None:
    assert WithDelay(Job("A"), delay=timedelta(seconds=1.5)).delay == 1500


def test_a_carrier_names_its_actor() -> None:
    wire = carry({"__type__": "job", "class": "enrich", "args": [1], "queue": "python", "retry": 5})
    assert wire == {
        "__type__": "job",
        "class": "Sidekiq::Workflow::NoopWorker",
        "wrapped": "enrich",
        "display_class": "enrich",
        "args": [1],
        "queue": "python",
        "retry": 5,
    }


@pytest.mark.parametrize(
    ("wire", "path"),
    [
        ({"__type__": "loop", "children": []}, "__type__"),
        ({"children": []}, "__type__"),
        ({"__type__": "job", "class": "A"}, "args"),
        ({"__type__": "job", "args": []}, "class"),
        ({"__type__": "chain", "children": [{"__type__": "job", "class": 7, "args": []}]}, r"children\[.*class"),
        ({"__type__": "with_delay", "delay": "1", "task": {"__type__": "chain", "children": []}}, "delay"),
        ([], "object"),
        (None, "object"),
    ],
)
def test_a_bad_tree_is_refused_by_path(wire: Any, path: str) -> None:
    with pytest.raises(InvalidNode, match=path):
        validate(wire)


@pytest.mark.parametrize(
    ("stack", "error"),
    [
        ({}, InvalidCallbacks),
        ("x", InvalidCallbacks),
        ([[UUID, None]], InvalidCallbacks),
        ([[UUID, None, 1]], InvalidCallbacks),
        ([["queues", None, True]], InvalidCallbacks),
        ([[UUID + "x", None, True]], InvalidCallbacks),
        ([[7, None, True]], InvalidCallbacks),
        ([[UUID, {"__type__": "loop"}, True]], InvalidNode),
        ([[UUID, 7, True]], InvalidNode),
    ],
)
def test_a_bad_stack_is_refused(stack: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        load_stack(stack)


def test_a_stack_survives() -> None:
    wire = [[UUID, None, True], [UUID, {"__type__": "chain", "children": []}, False]]
    assert dump_stack(load_stack(wire)) == wire
    assert load_stack(None) == ()


def test_delays_add_up_along_a_chain_and_overlap_in_a_group() -> None:
    job = Job("A")
    tree = Chain(WithDelay(job, 100), Group(WithDelay(job, 30), WithDelay(WithDelay(job, 20), 50)), job)
    assert total_delay(dump(tree, leaf)) == 170


def test_the_steps_of_a_tree_can_be_walked() -> None:
    tree = Chain(Job("A", 1), Group(Chain(), WithDelay(Chain(Job("B"), Job("C")), delay=1)), Job("D"))
    assert [job.job_class for job in walk(tree)] == ["A", "B", "C", "D"]
    assert list(walk(Job("A"))) == [Job("A")]
