"""The judge of `make soak`, given lists of events and looks at records.  No server, no Ruby."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from interop.soak.disturbances import digest, plan
from interop.soak.judge import Verdict, judge, percentile, steps_of
from interop.soak.record import Death, Event, Pause, Record
from interop.soak.run_judge import COMPLETE, FAILURE, Look, RunVerdict, judge_runs
from interop.soak.settings import RATES, Settings
from interop.soak.steerer import Plan, Window
from interop.soak.steps import KINDS, OTHERS, Planting, node

from ..trees import before, violations

#: Step 0, then steps 1 and 2, then step 3.
SHAPE = ("chain", ["job", ("group", ["job", "job"]), "job"])


def events(*lines: str) -> list[Event]:
    """Of run 0: ``"start 0"``, with ``worker=``, ``origin=`` and ``at=`` where they matter; a second apart."""
    found = []
    for second, line in enumerate(lines):
        what, step, *more = line.split()
        options = dict(part.split("=") for part in more)
        found.append(
            Event(
                what,
                0,
                int(step),
                options.get("origin", f"jid{step}"),
                int(options.get("worker", 1)),
                float(options.get("at", second)),
            )
        )
    return found


def of(*lines: str, deaths: tuple[Death, ...] = (), pauses: tuple[Pause, ...] = ()) -> Verdict:
    return judge([SHAPE], events(*lines), deaths, pauses)


WHOLE = ("start 0", "end 0", "start 1", "start 2", "end 2", "end 1", "start 3", "end 3")


def test_all_is_well() -> None:
    verdict = of(*WHOLE)
    assert verdict.holds
    assert (verdict.runs, verdict.steps, verdict.finished, verdict.executions) == (1, 4, 1, 4)
    assert (verdict.again, verdict.unexplained, verdict.recoveries, dict(verdict.hits)) == (0, (), (), {})


def test_lost_is_the_first_step_that_never_ends_and_not_those_that_wait_for_it() -> None:
    verdict = of("start 0", "end 0", "start 1", "start 2", "end 2")
    assert verdict.lost == ("step 1 of run 0",)
    assert not verdict.holds
    assert verdict.finished == 0


def test_lost_is_a_step_that_never_starts() -> None:
    assert of(*WHOLE[:-2]).lost == ("step 3 of run 0",)


def test_a_run_without_events_has_lost_its_first_step() -> None:
    verdict = judge([SHAPE, SHAPE], events(*WHOLE))
    assert verdict.lost == ("step 0 of run 1",)
    assert (verdict.runs, verdict.finished) == (2, 1)


def test_doubled_is_a_step_of_two_pushes() -> None:
    verdict = of(*WHOLE, "start 3 origin=other", "end 3 origin=other")
    assert verdict.doubled == ("step 3 of run 0, pushed as jid3, other",)
    assert not verdict.holds


def test_doubled_is_not_an_execution_of_the_same_push() -> None:
    verdict = of("start 0", "start 0 worker=2", "end 0 worker=2", *WHOLE[2:])
    assert verdict.doubled == ()
    assert verdict.again == 1


@pytest.mark.parametrize("order", [("start 3", "end 1"), ("start 3", "end 3", "end 1")])
def test_early_is_a_step_that_starts_before_all_before_it_have_ended(order: tuple[str, ...]) -> None:
    verdict = of("start 0", "end 0", "start 1", "start 2", "end 2", *order, "end 3")
    assert verdict.early == ("run 0: job 3 started before job 1 had ended",)
    assert not verdict.holds


def test_early_is_a_step_that_starts_after_a_failure() -> None:
    verdict = of("start 0", "end 0", "start 1", "fail 1", "start 2", "end 2", "start 3", "start 1", "end 1", "end 3")
    assert verdict.early == ("run 0: job 3 started before job 1 had ended",)


def test_early_counts_first_executions() -> None:
    """Step 1 ends a second time after step 3 has started: its worker died before its acknowledgement was known."""
    verdict = of(*WHOLE[:6], "start 1 worker=2", "start 3", "end 1 worker=2", "end 3")
    assert verdict.early == ()


def test_a_failure_is_neither_an_end_nor_executed_again() -> None:
    verdict = of("start 0", "fail 0", "start 0", "end 0", *WHOLE[2:])
    assert verdict.holds
    assert (verdict.executions, verdict.again) == (5, 0)
    assert of("start 0", "fail 0").lost == ("step 0 of run 0",)


def test_recovery_takes_from_a_death_to_the_next_start() -> None:
    kill = Death(1, "kill", 0.25, 0.5)
    verdict = of("start 0", "start 0 worker=2 at=4", "end 0 worker=2 at=5", deaths=(kill,))
    assert verdict.recoveries == (3.5,)
    assert dict(verdict.hits) == {"kill": 1}
    assert (verdict.again, verdict.unexplained) == (1, ())


def test_a_death_between_two_steps_hits_none() -> None:
    verdict = of("start 0 at=0", "end 0 at=1", "start 1 worker=2 at=3", deaths=(Death(1, "kill", 2.0, 2.0),))
    assert (dict(verdict.hits), verdict.recoveries) == ({}, ())


def test_term_hits_what_runs_and_recovers_what_did_not_end() -> None:
    """Step 1 ends while its worker stops; step 2 does not."""
    term = Death(1, "term", 2.5, 6.0)
    verdict = of(
        "start 0 at=0", "end 0 at=1", "start 1 at=2", "start 2 at=2", "end 1 at=3",
        "start 2 worker=2 at=7", "end 2 worker=2 at=8",
        deaths=(term,),
    )  # fmt: skip
    assert dict(verdict.hits) == {"term": 1}
    assert verdict.recoveries == (1.0,)


def test_term_hits_what_ends_while_its_worker_stops() -> None:
    verdict = of("start 0 at=0", "end 0 at=2", deaths=(Death(1, "term", 1.0, 3.0),))
    assert (dict(verdict.hits), verdict.recoveries) == ({"term": 1}, ())


def test_executed_again_by_a_paused_workers_neighbour_is_explained() -> None:
    lines = ("start 0 at=0", "start 0 worker=2 at=4", "end 0 worker=2 at=5", "end 0 at=6")
    assert of(*lines).unexplained == ("step 0 of run 0, by worker 1 and worker 2",)
    verdict = of(*lines, pauses=(Pause(1, 0.5, 6.0),))
    assert (verdict.again, verdict.unexplained, verdict.pauses_hit) == (1, (), 1)


def test_percentile_is_the_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (50.0, 99.0, 100.0)
    assert percentile([1.0, 2.0, 3.0], 0.5) == 2.0
    assert percentile([7.0], 0.99) == 7.0
    assert percentile([], 0.5) is None


def test_a_plan_is_the_same_for_the_same_seed() -> None:
    planned = plan(7, 60, 6)
    assert digest(planned) == digest(plan(7, 60, 6))
    assert digest(planned) != digest(plan(8, 60, 6))
    assert {kind: sum(d.kind == kind for d in planned) for kind in RATES} == {
        kind: max(1, round(rate)) for kind, rate in RATES.items()
    }
    assert all(0 <= d.at < 60 and 0 <= d.slot < 6 for d in planned)
    assert [d.at for d in planned] == sorted(d.at for d in planned)


def test_a_short_plan_has_one_of_each_kind() -> None:
    assert {d.kind for d in plan(1, 5, 6)} == set(RATES)


def test_a_plan_without_a_kind_leaves_the_others_where_they_were() -> None:
    kept = [kind for kind in RATES if kind != "busy"]
    assert plan(1, 60, 6, kept) == [d for d in plan(1, 60, 6) if d.kind != "busy"]


def test_a_record_is_read_while_it_grows(tmp_path: Path) -> None:
    record = Record(tmp_path / "record")
    line = json.dumps(["start", 3, 1, "jid", 5, 1.5]) + "\n"
    os.write(record.file, line.encode() + b'["end", 3, ')
    assert record.look() == [Event("start", 3, 1, "jid", 5, 1.5)]
    assert record.hands[5] == {(3, 1)}
    os.write(record.file, b'1, "jid", 5, 2.5]\n')
    assert record.look() == [Event("end", 3, 1, "jid", 5, 2.5)]
    assert record.hands[5] == set()
    assert len(record.events) == 2
    record.close()


# -- the records of runs ---------------------------------------------------------


def planted(**sets: set[int]) -> Plan:
    return Plan("an-id", 4, Planting(0, random.Random(0), Settings(0, 0), [], **sets))


#: Step 1 is dead, and a step that is not run follows it.
PLAN = planted(dead={1}, skipped={OTHERS})
LOOK = Look("done", 0, frozenset({0, 2, 3}), frozenset({1}), frozenset({OTHERS}))
TOLD = (*WHOLE, f"start {COMPLETE}", f"end {COMPLETE}")


def of_runs(*lines: str, plan: Plan = PLAN, look: Look | None = LOOK, cancelled: bool = False) -> RunVerdict:
    looks = {} if look is None else {0: look}
    return judge_runs({0: plan}, [0] if cancelled else [], looks, events(*lines))


def test_a_record_that_says_what_the_steps_have_put_down() -> None:
    assert of_runs(*TOLD).holds
    part = attrs.evolve(LOOK, state="cancelled", left=2, done=frozenset({0}), dead=frozenset(), skipped=frozenset())
    assert of_runs(*TOLD[:3], *TOLD[-2:], look=part, cancelled=True).holds


@pytest.mark.parametrize(
    "look",
    [
        None,
        attrs.evolve(LOOK, state="running"),
        attrs.evolve(LOOK, left=1),
        attrs.evolve(LOOK, done=frozenset({0, 2})),
        attrs.evolve(LOOK, dead=frozenset()),
        attrs.evolve(LOOK, skipped=frozenset()),
    ],
)
def test_a_record_that_says_something_else(look: Look | None) -> None:
    verdict = of_runs(*TOLD, look=look)
    assert verdict.unrecorded
    assert not verdict.holds


def test_a_step_that_is_recorded_as_done_has_ended() -> None:
    look = attrs.evolve(LOOK, state="cancelled")
    assert len(of_runs(*TOLD[:2], *TOLD[-2:], look=look, cancelled=True).unrecorded) == 1


def test_callbacks_are_called_once() -> None:
    twice = f"start {COMPLETE} origin=other"
    assert of_runs(*WHOLE).calls == ("run 0 (an-id): on_complete was called 0 times",)
    assert of_runs(*TOLD, twice).calls == ("run 0 (an-id): on_complete was called 2 times",)
    assert of_runs(*TOLD, f"start {COMPLETE}").holds, "its worker has died"
    mended = planted(dead={1}, skipped={OTHERS}, mended={2})
    assert of_runs(*TOLD, plan=mended).calls == ("run 0 (an-id): on_failure was called 0 times",)
    assert of_runs(*TOLD, f"start {FAILURE}", plan=mended).holds


def test_no_step_starts_in_a_paused_run() -> None:
    def late(at: float, until: float, *disturbed: tuple[float, float]) -> tuple[str, ...]:
        windows = [Window(0, at, until)]
        return judge_runs({0: PLAN}, [], {0: LOOK}, events(*TOLD), windows, disturbed=disturbed).late

    # Step 3 starts at second 6.
    assert late(5.0, 9.0) == ("step 3 of run 0 started 1.00 s late, by worker 1",)
    assert late(5.8, 9.0) == late(4.2, 5.9) == ()
    assert late(5.0, 9.0, (4.0, 4.5)) == ()
    assert len(late(5.0, 9.0, (1.0, 2.0))) == 1


def test_the_steps_that_are_planted_are_those_that_are_judged() -> None:
    """Each kind occurs, and the numbers of those that run are those of the shape."""
    kinds = set()
    shape = ("chain", ["job", ("group", ["job", ("delay", 5, "job")]), "job"])
    for seed in range(200):
        planting = Planting(0, random.Random(seed), Settings(0, 0), [("A", "ruby"), ("B", "python")])
        tree, ran = planting.tree(shape)
        leaves = list(leaves_of(tree))
        kinds |= {leaf["kind"] for leaf in leaves}
        assert sorted(leaf["n"] for leaf in leaves if leaf["n"] < OTHERS) == list(range(steps_of(ran)))
        assert {leaf["n"] for leaf in leaves if leaf["n"] >= OTHERS} == planting.skipped
        node(tree)
    assert kinds == {"step", *KINDS}


def test_one_step_of_a_group_that_needs_one_is_enough() -> None:
    shape = ("chain", ["job", ("any", ["job", "job"]), "job"])
    assert before(shape) == {(0, 1), (0, 2), (0, 3)}
    events = [("start", 0), ("end", 0), ("start", 1), ("start", 2)]
    late = [("start", 3), ("end", 1), ("end", 2), ("end", 3)]
    assert list(violations(shape, 4, [*events, *late])) == ["job 3 started before job 1 or 2 had ended"]
    assert list(violations(shape, 4, [*events, ("end", 2), ("start", 3), ("end", 1), ("end", 3)])) == []


def leaves_of(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        yield from leaves_of(tree["inner"]) if "inner" in tree else ()
    elif tree[0] == "delay":
        yield from leaves_of(tree[2])
    else:
        for child in tree[1]:
            yield from leaves_of(child)
