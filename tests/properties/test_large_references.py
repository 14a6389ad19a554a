"""Any workflow of both languages does the same where large trees go by reference, and Ruby starts whole trees only."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow import Job
from dramatiq_sidekiq_flow.store.chains import StoredChains
from dramatiq_sidekiq_flow.store.connection import connect
from dramatiq_sidekiq_flow.wire.callbacks import load_stack
from dramatiq_sidekiq_flow.wire.lifetimes import barrier_ttl
from dramatiq_sidekiq_flow.wire.nodes import NOOP_CLASS, Wire, dump, dump_job
from dramatiq_sidekiq_flow.wire.payload import DEFAULTS, Payload
from dramatiq_sidekiq_flow.wire.tree_times import completes_at_once
from dramatiq_sidekiq_flow.workflow import stack_references
from dramatiq_sidekiq_flow.workflow.plan import Plan, Source, plan
from dramatiq_sidekiq_flow.workflow.stack_references import LargeReferences

from ..example_counts import examples
from ..ids import Numbered
from ..trees import Shape, before, build, shapes

QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture
def chains(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoredChains]:
    monkeypatch.setattr(stack_references, "LARGE", 0)
    monkeypatch.setattr(stack_references, "MIN_BYTES", 0)
    connection = connect(redis_url)
    yield StoredChains(connection)
    connection.close()


def is_python(job: Mapping[str, Any]) -> bool:
    """As pushed by Python, a job that does nothing goes to a queue of Python's."""
    return bool(job["class"] == "Python" or (job["class"] == NOOP_CLASS and job["queue"] == "python"))


def check_carried(ready: Plan) -> None:
    """The stack that a worker does not read again is the one that it would read."""
    pushed = list(itertools.chain(*ready.pushes.values()))
    if len(pushed) == 1 and not ready.scheduled and ready.carried is not None:
        (raw,) = pushed
        assert Payload.decode(raw, None, ready.carried) == Payload.decode(raw)


class Fleet:
    """Runs one workflow to its end, each job in its own language, as the plans say."""

    def __init__(self, chains: StoredChains | None) -> None:
        self.chains = chains
        self.barriers: dict[str, int] = {}
        self.waiting: list[dict[str, Any]] = []
        self.ran: list[Any] = []
        self.sizes: list[int] = []
        self.referred = 0
        self.consumed: list[str] = []

    def run(self, wire: Wire) -> None:
        self.start(wire, (), python=True)
        while self.waiting:
            job = self.waiting.pop(0)
            self.ran.append((job["class"], job["args"]))
            self.sizes.append(len(json.dumps(job)))
            python = is_python(job)
            stored = job.get("workflow_completion_callbacks", [])
            self.referred += sum('"reference"' in json.dumps(remaining) for _, remaining, _ in stored)
            self.complete(load_stack(stored), python)

    def start(self, node: Wire, stack: Any, *, python: bool) -> None:
        # The gem knows no references, and sends what does nothing to `default`.
        made = None
        if python and self.chains is not None:
            made = LargeReferences(self.chains, is_python, first=not self.ran)
        source = Source(
            run_id="run",
            now=1000.0,
            options=lambda job: DEFAULTS,
            ids=Numbered("jid{}", uuids=True),
            noop_queue="python" if python else "default",
            references=made,
        )
        ready: Plan = plan(node, stack, source, barrier_ttl(node, stack, 1000.0))
        if made is not None:
            made.write(ready.ttl)
        self.consumed += ready.consumed
        check_carried(ready)
        self.barriers.update({barrier.id: barrier.value for barrier in ready.barriers if barrier.value})
        payloads = itertools.chain(*ready.pushes.values(), (payload for _, payload in ready.scheduled))
        self.waiting += map(json.loads, payloads)
        if ready.completes:
            self.complete(stack, python)

    def complete(self, stack: Any, python: bool) -> None:
        for number, callback in reversed([*enumerate(stack)]):
            self.barriers[callback.barrier] -= 1
            if self.barriers[callback.barrier]:
                return
            # The gem reads a tree as it starts it, also one that completes at once.
            assert python or '"reference"' not in json.dumps(callback.remaining)
            if callback.remaining is not None and not completes_at_once(callback.remaining):
                self.start(callback.remaining, stack[:number], python=python)
                return
            if callback.remaining is None and not callback.propagate:
                return


def wire_of(shape: Shape, languages: list[bool]) -> Wire:
    tree, _ = build(shape, lambda n: Job("Python" if languages[n % len(languages)] else "Ruby", n))
    return dump(tree, lambda value: dump_job(value) if isinstance(value, Job) else None)


@settings(deadline=None, max_examples=examples(250), suppress_health_check=QUIET)
@given(shape=shapes, languages=st.lists(st.booleans(), min_size=1, max_size=8))
def test_ruby_starts_whole_trees_and_the_same_jobs_run(
    chains: StoredChains, shape: Shape, languages: list[bool]
) -> None:
    tree = ("chain", ["job", shape, "job"])
    wire = wire_of(tree, languages)
    plain, referring = Fleet(None), Fleet(chains)
    plain.run(wire)
    referring.run(wire)
    assert sorted(map(str, referring.ran)) == sorted(map(str, plain.ran))
    places = {args[0]: place for place, (_, args) in enumerate(referring.ran) if args}
    assert all(places[earlier] < places[later] for earlier, later in before(tree))
    assert not any(referring.barriers.values())
    # Each chain belongs to one run, and was read to its end.
    stored = chains.connection.call("KEYS", "swf:callbacks:*")
    assert {f"swf:callbacks:{sha}".encode() for sha in referring.consumed} <= set(stored)
    assert all(chains.connection.call("HGET", key, "barrier") for key in stored)
    assert all(chains.connection.call("TTL", key) > 0 for key in stored)
    if all(languages):
        assert referring.referred


@settings(deadline=None, max_examples=examples(25), suppress_health_check=QUIET)
@given(pattern=st.lists(st.booleans(), min_size=2, max_size=5))
def test_what_is_stored_for_a_run_stays_near_the_size_of_its_tree(chains: StoredChains, pattern: list[bool]) -> None:
    """However the languages alternate: a rest is not stored again after each Ruby step."""
    chains.connection.call("FLUSHDB")
    wire = wire_of(("chain", ["job"] * 60), pattern)
    Fleet(chains).run(wire)
    keys = chains.connection.call("KEYS", "swf:callbacks:*")
    steps = [step for key in keys for step in chains.connection.call("HVALS", key)]
    links = 64 * len(steps)
    assert sum(map(len, steps)) <= 2 * len(json.dumps(wire)) + links


@pytest.mark.parametrize(
    "pattern",
    [[True, False], [False, True], [False, False, True], [True, True, False, False], [*[False] * 9, True]],
)
def test_a_step_of_a_long_mixed_chain_costs_what_one_of_a_short_chain_does(
    chains: StoredChains, monkeypatch: pytest.MonkeyPatch, pattern: list[bool]
) -> None:
    monkeypatch.undo()
    means: list[float] = []
    for steps in (100, 1000):
        fleet = Fleet(chains)
        fleet.run(wire_of(("chain", ["job"] * steps), pattern))
        means.append(sum(fleet.sizes) / steps)
        assert len(fleet.sizes) == steps
        assert max(fleet.sizes) < 6000
    short, long = means
    assert long <= 1.2 * short
