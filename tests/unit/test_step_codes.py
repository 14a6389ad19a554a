"""States of the steps of a run, from marks and from jobs that were found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dramatiq_sidekiq_flow.runs import step_codes
from dramatiq_sidekiq_flow.runs.step_codes import (
    CAUGHT,
    DEAD,
    DONE,
    INFERRED,
    LOST,
    PENDING,
    QUEUED,
    RUNNING,
    SKIPPED,
    UNKNOWN,
    StepCodes,
)
from dramatiq_sidekiq_flow.wire.nodes import Wire, jobs
from dramatiq_sidekiq_flow.wire.run_tree import dump_tree
from dramatiq_sidekiq_flow.wire.tree_nodes import load_tree

from ..recorded_runs import chain, delayed, group, is_ruby, job
from .test_run_tree import trees


def predecessors(wire: Wire) -> dict[int, set[int]]:
    """Step number -> the steps that are done before it starts, by the definition of a chain."""
    found: dict[int, set[int]] = {}

    def visit(node: Wire, before: set[int]) -> set[int]:
        if node["__type__"] == "job":
            number = len(found) + 1
            found[number] = set(before)
            return {number}
        if node["__type__"] == "with_delay":
            return visit(node["task"], before)
        inside: set[int] = set()
        for child in node["children"]:
            inside |= visit(child, before | inside if node["__type__"] == "chain" else before)
        return inside

    visit(wire, set())
    return found


@st.composite
def facts(draw: st.DrawFn) -> tuple[Wire, set[int], dict[int, int]]:
    """A tree, the steps that are done at one moment, and the codes of jobs that exist."""
    wire = draw(trees)
    before = predecessors(wire)
    done: set[int] = set()
    # Some steps end, each when its turn has come.
    for _ in range(draw(st.integers(0, len(before)))):
        due = sorted(number for number in before if number not in done and before[number] <= done)
        if not due:
            break
        done.add(draw(st.sampled_from(due)))
    due = sorted(number for number in before if number not in done and before[number] <= done)
    live = draw(st.lists(st.sampled_from(due), unique=True)) if due else []
    return wire, done, {number: draw(st.sampled_from([RUNNING, QUEUED, DEAD])) for number in live}


def evaluated(wire: Wire, marked: set[int], live: dict[int, int], ruby: Any = is_ruby) -> StepCodes:
    codes = StepCodes(load_tree(dump_tree(wire, ruby)))
    for number in marked:
        codes.mark(number, DONE)
    for number, code in live.items():
        codes.mark(number, code)
    codes.infer()
    codes.settle()
    return codes


@given(facts())
def test_without_ruby_each_state_is_exact(given: tuple[Wire, set[int], dict[int, int]]) -> None:
    wire, done, live = given
    codes = evaluated(wire, done, live, lambda job: False)
    for number, before in predecessors(wire).items():
        is_due = before <= done
        expected = DONE if number in done else live.get(number, LOST if is_due else PENDING)
        assert codes[number] == expected, number


@given(facts())
def test_what_ruby_has_done_is_inferred_and_nothing_else(given: tuple[Wire, set[int], dict[int, int]]) -> None:
    wire, done, live = given
    ruby = {number for number, each in enumerate(jobs(wire), 1) if is_ruby(each)}
    codes = evaluated(wire, done - ruby, live)
    seen = (done - ruby) | live.keys()
    for number in predecessors(wire):
        if codes[number] == INFERRED:
            assert number in done & ruby
        if codes[number] in (LOST, UNKNOWN):
            assert (codes[number] == UNKNOWN) == (number in ruby)
    # All that comes before a step that exists, or was marked, is done.
    for number, before in predecessors(wire).items():
        if number in seen:
            assert all(codes[earlier] in (DONE, INFERRED) for earlier in before)


@given(st.sets(st.integers(1, 50)), st.integers(0, 9))
def test_bits_are_read_as_redis_writes_them(numbers: set[int], more: int) -> None:
    codes = StepCodes(load_tree(dump_tree(group(*(job("a") for _ in range(50))), is_ruby)))
    bits = bytearray(max(numbers, default=0) // 8 + 1 + more)
    for number in numbers:
        bits[number >> 3] |= 1 << (7 - (number & 7))
    codes.mark_bits(bytes(bits))
    assert set(codes.numbers(DONE)) == numbers
    assert codes.count(DONE) == len(numbers)


def test_repetitions_of_a_chain_follow_each_other() -> None:
    codes = evaluated(chain(*(chain(job("a"), job("B")) for _ in range(30))), set(), {21: RUNNING})
    assert codes.numbers(INFERRED) == list(range(1, 21))
    assert codes.numbers(PENDING) == list(range(22, 61))


def test_a_step_that_is_done_stays_done() -> None:
    codes = evaluated(job("a"), {1}, {1: DEAD})
    codes.mark_dead([1, 7])
    assert codes[1] == DONE


def test_a_dead_step_whose_job_is_elsewhere_is_not_dead() -> None:
    codes = StepCodes(load_tree(dump_tree(group(job("a"), job("b")), is_ruby)))
    codes.mark(1, QUEUED)
    codes.mark_dead([1, 2])
    assert [codes[1], codes[2]] == [QUEUED, DEAD]


def test_a_delay_without_steps_is_passed() -> None:
    codes = evaluated(chain(job("a"), delayed(10, group()), job("b")), {1}, {})
    assert codes[2] == LOST


def test_a_fallback_in_front_of_a_step_that_exists_is_skipped() -> None:
    caught = {**job("a"), "swf_on_death": group(job("b"), job("c"))}
    codes = StepCodes(load_tree(dump_tree(chain(caught, caught, job("d")), is_ruby)))
    codes.mark(7, QUEUED)
    codes.mark(5, DONE)
    codes.mark_caught(())
    codes.infer()
    codes.skip()
    codes.settle()
    assert list(codes.codes[1:]) == [INFERRED, SKIPPED, SKIPPED, CAUGHT, DONE, INFERRED, QUEUED]


def _named() -> Iterator[int]:
    return (value for name, value in vars(step_codes).items() if name.isupper() and type(value) is int)


def test_each_code_is_one() -> None:
    assert sorted(_named()) == list(range(18))
