"""What a node writes when it starts, worked out without Redis."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, WithDelay
from dramatiq_sidekiq_flow.errors import InvalidWorkflow
from dramatiq_sidekiq_flow.store.callback_storage import RedisCallbackStorage
from dramatiq_sidekiq_flow.wire.callbacks import Callback, load_stack
from dramatiq_sidekiq_flow.wire.lifetimes import RETRY_HORIZON, barrier_ttl, stack_ttl
from dramatiq_sidekiq_flow.wire.nodes import NOOP_CLASS, dump, dump_job
from dramatiq_sidekiq_flow.wire.payload import DEFAULTS, Payload
from dramatiq_sidekiq_flow.wire.tree_times import completes_at_once
from dramatiq_sidekiq_flow.workflow.plan import Plan, Source, plan
from dramatiq_sidekiq_flow.workflow.plan_ids import derived

from ..ids import Numbered
from ..operations import CHAIN
from ..tree_reader import load


def wire(node: Any) -> Any:
    return dump(node, lambda value: dump_job(value) if isinstance(value, Job) else None)


def source(**changes: Any) -> Source:
    defaults: dict[str, Any] = {
        "run_id": "run",
        "now": 1000.0,
        "options": lambda name: DEFAULTS,
        "ids": Numbered(),
    }
    return Source(**{**defaults, **changes})


def planned(node: Any, stack: tuple[Callback, ...] = (), **changes: Any) -> Plan:
    return started(wire(node), stack, source(**changes))


def started(tree: Any, stack: tuple[Callback, ...], where: Source) -> Plan:
    return plan(tree, stack, where, barrier_ttl(tree, stack, where.now))


def values(p: Plan) -> list[tuple[str, int, int]]:
    return [(b.id, b.value, b.ran) for b in p.barriers]


def jobs(p: Plan) -> list[Any]:
    return [json.loads(raw) for payloads in p.pushes.values() for raw in payloads]


def test_a_job_carries_the_stack_as_it_is() -> None:
    stack = (Callback("outer", None, True),)
    (job,) = jobs(planned(Job("A", 1, queue="q", retry=2), stack))
    assert job == {
        "class": "A",
        "args": [1],
        "queue": "q",
        "retry": 2,
        "workflow_run_id": "run",
        "workflow_completion_callbacks": [["outer", None, True]],
        "jid": "j0",
        "created_at": 1000.0,
        "enqueued_at": 1000.0,
    }


def test_a_plan_of_one_job_knows_its_stack() -> None:
    stack = (Callback("outer", None, True),)
    assert planned(Job("A"), stack).carried == stack
    # A node may hold callbacks of its own.
    assert planned(Job("A")).carried is None


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"store": lambda stack: "name"}, id="store"),
        pytest.param({"prepare": lambda fields, delay: None}, id="prepare"),
    ],
)
def test_a_payload_that_others_write_is_read(changes: dict[str, Any]) -> None:
    """A storage, or a hook, may write something else than the stack."""
    assert planned(Job("A"), (Callback("outer", None, True),), **changes).carried is None


REFERENCE = {"__type__": "reference", "chain": "a" * 64, "at": 3, "sha": "b" * 64}


@pytest.mark.parametrize("delay", [None, 0, 60_000])
def test_barriers_outlive_the_delay_of_a_reference(delay: int | None) -> None:
    """A reference without a delay is not walked."""
    tree = REFERENCE if delay is None else {**REFERENCE, "delay": delay}
    (raw,) = planned(Job("A"), (Callback(CHAIN, tree, False),)).pushes["default"]
    assert stack_ttl(Payload.decode(raw)) == RETRY_HORIZON + (delay or 0) // 1000 + 1


def test_without_callbacks_the_key_is_absent() -> None:
    (job,) = jobs(planned(Job("A")))
    assert "workflow_completion_callbacks" not in job


def test_a_chain_of_one_needs_no_barrier() -> None:
    assert values(planned(Chain(Job("A")))) == []


def test_a_group_counts_only_children_that_run() -> None:
    p = planned(Group(Chain(), Job("A"), Group(), Job("B")))
    assert values(p) == [("b0", 2, -1)]
    assert len(jobs(p)) == 2
    assert not p.completes


@pytest.mark.parametrize(
    "node",
    [
        Chain(),
        Group(),
        Chain(Chain(), Group()),
        Group(Chain(), Chain(Group())),
        WithDelay(Chain(), 0),
        Chain(*[Group()] * 3000),
    ],
)
def test_nothing_to_run_completes_at_once(node: Any) -> None:
    p = planned(node)
    assert p.completes
    assert not p.pushes
    assert not p.scheduled
    assert all((b.value, b.ran) == (0, 0) for b in p.barriers)
    assert completes_at_once(wire(node))


@pytest.mark.parametrize(
    "node", [Job("A"), Chain(Job("A")), WithDelay(Group(), 1), Group(Chain(), WithDelay(Chain(), 5))]
)
def test_something_to_run_does_not(node: Any) -> None:
    assert not planned(node).completes
    assert not completes_at_once(wire(node))


def test_an_empty_first_child_starts_what_remains() -> None:
    p = planned(Chain(Group(), Job("B"), Job("C")))
    assert values(p) == [("b0", 0, 0), ("b1", 1, -1)]
    (job,) = jobs(p)
    assert job["class"] == "B"
    assert job["workflow_completion_callbacks"][0][0] == "b1"


def test_delays_add_and_reach_the_first_job_of_a_chain_and_each_of_a_group() -> None:
    node = WithDelay(Chain(WithDelay(Group(Job("A"), WithDelay(Job("B"), 500)), 1000), Job("C")), 2000)
    p = planned(node)
    assert [at for at, _ in p.scheduled] == [1003.0, 1003.5]
    assert all("enqueued_at" not in json.loads(raw) for _, raw in p.scheduled)


def at(moment: float) -> dict[str, Any]:
    """A job as Ruby serializes one with the option ``at``."""
    return {"__type__": "job", "class": "A", "args": [], "at": moment}


@pytest.mark.parametrize("moment", [1500.5, 2000])
def test_a_job_of_ruby_that_says_at_is_scheduled(moment: float) -> None:
    ((score, raw),) = started(at(moment), (), source()).scheduled
    assert score == moment
    assert json.loads(raw).keys().isdisjoint(("at", "enqueued_at"))


def test_hooks_are_told_of_an_at_as_of_a_delay() -> None:
    told: list[float] = []
    started(at(1500.5), (), source(prepare=lambda fields, delay: told.append(delay)))
    started(at(1.0), (), source(prepare=lambda fields, delay: told.append(delay)))
    assert told == [500_500.0, 0.0]


@pytest.mark.parametrize("moment", [1000.0, 999, 0, -5.5])
def test_a_job_whose_at_has_passed_is_pushed(moment: float) -> None:
    (job,) = jobs(started(at(moment), (), source()))
    assert "at" not in job
    assert job["enqueued_at"] == 1000.0


@pytest.mark.parametrize("moment", [1.0, 1001.0, 9000.0])
def test_a_delay_goes_before_at_as_in_the_gem(moment: float) -> None:
    delayed = {"__type__": "with_delay", "delay": 2500, "task": at(moment)}
    ((score, _),) = started(delayed, (), source()).scheduled
    assert score == 1002.5


def test_barriers_outlive_an_at_that_lies_ahead() -> None:
    month = 30 * 86_400
    tree = {"__type__": "chain", "children": [wire(Job("A")), wire(Job("B")), at(1000 + month)]}
    p = started(tree, (), source())
    assert p.barriers[0].ttl >= RETRY_HORIZON + month
    (job,) = jobs(p)
    stack = load_stack([["224a1be4-c469-4117-94af-8540a8358a95", *job["workflow_completion_callbacks"][0][1:]]])
    assert RETRY_HORIZON + month <= barrier_ttl(None, stack, 1000.0) <= RETRY_HORIZON + month + 2
    assert barrier_ttl(None, stack, 1000.0 + month) <= RETRY_HORIZON + 2


def test_a_chain_whose_jobs_say_at_is_not_stored_by_reference() -> None:
    """A reference does not say until when it waits, and barriers must live that long."""
    chain = {"__type__": "chain", "children": [wire(Job("B", "x" * 5000)), at(5000.0)]}
    storage = RedisCallbackStorage()
    pending: Any = {}
    assert storage.shorten(chain, pending) is chain
    del chain["children"][1]["at"]
    assert storage.shorten(chain, pending)["__type__"] == "reference"


def test_a_delay_may_be_a_part_of_a_millisecond() -> None:
    node = WithDelay(Job("A"), 250.5)
    assert wire(node)["delay"] == 250.5
    assert load(wire(node)) == node
    ((score, _),) = planned(node).scheduled
    assert score == 1000.2505


@pytest.mark.parametrize("delay", [float("nan"), float("inf"), -0.5, True, "5", None])
def test_a_delay_is_a_number(delay: Any) -> None:
    with pytest.raises(InvalidWorkflow, match="delay must be milliseconds"):
        WithDelay(Job("A"), delay)


def test_a_delay_does_not_reach_past_an_empty_first_child() -> None:
    p = planned(Chain(WithDelay(Chain(Group(), Job("A")), 1000), Job("B")))
    # The delayed empty group is a job of its own, and A follows it undelayed.
    ((at, raw),) = p.scheduled
    noop = json.loads(raw)
    assert at == 1001.0
    assert (noop["class"], noop["retry"], noop["queue"]) == (NOOP_CLASS, 0, "default")
    assert noop["workflow_completion_callbacks"][-1][1]["children"][0]["class"] == "A"


def test_barriers_outlive_the_delays_ahead() -> None:
    day = 86_400_000
    p = planned(Chain(Job("A"), WithDelay(Job("B"), 40 * day)))
    assert p.barriers[0].ttl >= RETRY_HORIZON + 40 * 86_400


def test_a_class_says_what_the_node_does_not() -> None:
    known = {"queue": "critical", "retry": 3, "tags": ["etl"]}
    (job,) = jobs(planned(Job("Rb", retry=1), options=lambda name: known, tags=("wf:run", "etl")))
    assert (job["queue"], job["retry"], job["tags"]) == ("critical", 1, ["etl", "wf:run"])


def test_trace_and_tenant_are_handed_on() -> None:
    (job,) = jobs(planned(Job("A"), inherited={"cattr": {"tenant": 7}}))
    assert job["cattr"] == {"tenant": 7}


def test_derived_ids_are_the_same_for_the_same_name_only() -> None:
    def ids(name: str) -> list[str]:
        of = derived(name)
        return [of.new_jid(), of.new_barrier(), of.new_jid(), of.new_barrier()]

    assert ids("a") == ids("a")
    assert len({*ids("a"), *ids("b")}) == 8
