"""Any group starts the same jobs whether its members are written together or one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow.wire.callbacks import Callback
from dramatiq_sidekiq_flow.workflow import plan as plan_module
from dramatiq_sidekiq_flow.workflow.plan import Plan, Source, plan
from dramatiq_sidekiq_flow.workflow.siblings import siblings

from ..example_counts import examples
from ..ids import Numbered

TAGS = ["a"]

#: Values that are equal to Python, or written the same, come from small pools.
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "queue": st.sampled_from(["q", "r"]),
        "retry": st.sampled_from([True, False, 1, 0, None]),
        "tags": st.sampled_from([TAGS, [1], [True]]),
        "jid": st.sampled_from(["own", '"', "ü\n", None]),
        "at": st.sampled_from([500, 2_000.5]),
        "other": st.sampled_from([1, 1.0, True, "1", None, {"x": 1}, {"x": True}]),
    },
)


def job(name: str, args: list[Any], options: dict[str, Any]) -> dict[str, Any]:
    return {"__type__": "job", "class": name, "args": args, **options}


JOBS = st.builds(job, st.sampled_from(["A", "B"]), st.lists(st.integers() | st.text(max_size=2), max_size=2), OPTIONS)
RUNS = st.builds(lambda one, count: [{**one, "args": [n]} for n in range(count)], JOBS, st.integers(1, 5))
MEMBERS = st.lists(RUNS, max_size=6).map(lambda runs: [one for run in runs for one in run])
OTHERS = st.sampled_from(
    [
        {"__type__": "chain", "children": []},
        {"__type__": "chain", "children": [job("A", [], {}), job("B", [], {})]},
        {"__type__": "with_delay", "delay": 5, "task": job("A", [], {})},
    ]
)


def jobs(made: Plan) -> Any:
    queues = {queue: [json.loads(raw) for raw in payloads] for queue, payloads in made.pushes.items()}
    scheduled = [(at, json.loads(raw)) for at, raw in made.scheduled]
    return json.dumps([queues, scheduled, made.barriers, made.completes], sort_keys=True, default=repr)


@settings(deadline=None, max_examples=examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members=MEMBERS, other=st.none() | OTHERS, delay=st.sampled_from([0, 0, 7]))
@example(members=[job("A", [n], {"retry": retry}) for n, retry in enumerate([True, 1, True, 1])], other=None, delay=0)
@example(members=[job(name, [n], {}) for n, name in enumerate("AABBAB")], other=None, delay=0)
@example(members=[job("A", [n], {"jid": jid}) for n, jid in enumerate(["x", None, "y"])], other=None, delay=0)
def test_the_jobs_are_those_of_members_one_by_one(
    members: list[Any], other: Any, delay: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree: dict[str, Any] = {"__type__": "group", "children": members if other is None else [*members, other, *members]}
    if delay:
        tree = {"__type__": "with_delay", "delay": delay, "task": tree}

    def made() -> Any:
        source = Source(
            run_id="run",
            now=1_000.0,
            options=lambda node: {"retry": 3, "queue": "default", "dead": node["class"] == "A"},
            ids=Numbered(),
            inherited={"locale": "de"},
            tags=("wf:run",),
        )
        return jobs(plan(tree, (Callback("outer", None, True),), source, 60))

    together = made()
    with monkeypatch.context() as patch:
        patch.setattr(plan_module, "siblings", lambda nodes: [[node] for node in nodes])
        assert made() == together


def test_members_alike_are_together() -> None:
    def parts(*members: Any) -> list[int]:
        return [len(part) for part in siblings(members)]

    alike = [job("A", [n], {"jid": str(n), "retry": True, "tags": TAGS}) for n in range(50)]
    assert parts(*alike) == [50]
    assert parts(*alike, job("B", [], {}), *json.loads(json.dumps([job("B", [n], {}) for n in range(9)]))) == [50, 10]
    # If none is like the next one, the others are not compared.
    assert parts(*[job(name, [], {}) for name in "AB" * 10], *alike) == [1] * 70
