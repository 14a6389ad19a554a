"""The job that ends a run: where it is put."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dramatiq_sidekiq_flow.wire.nodes import Wire, jobs
from dramatiq_sidekiq_flow.wire.run_end import OF_TREE, ends_in_ruby, is_end, with_end
from dramatiq_sidekiq_flow.wire.step_numbers import number_steps


def job(name: str) -> Wire:
    return {"__type__": "job", "class": name, "args": []}


def chain(*children: Wire) -> Wire:
    return {"__type__": "chain", "children": list(children)}


def group(*children: Wire) -> Wire:
    return {"__type__": "group", "children": list(children)}


def delayed(task: Wire, delay: int = 100) -> Wire:
    return {"__type__": "with_delay", "delay": delay, "task": task}


def is_ruby(step: Any) -> bool:
    return bool(step["class"].startswith("R"))


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (job("R"), True),
        (job("p"), False),
        (chain(job("R"), job("p")), False),
        (chain(job("p"), job("R")), True),
        (chain(), False),
        (chain(job("R"), group(), chain(chain())), True),
        (chain(job("R"), delayed(group())), False),
        (chain(job("R"), delayed(group(), 0)), True),
        (chain(job("p"), group(job("p"), chain(job("p"), job("R")))), True),
        (group(chain(job("R"), job("p")), job("p")), False),
        (delayed(job("R")), True),
        ({**job("p"), "swf_on_death": chain(job("p"), job("R"))}, True),
        ({**job("p"), "swf_on_death": "done"}, False),
    ],
)
def test_which_trees_end_in_ruby(tree: Wire, expected: bool) -> None:
    assert ends_in_ruby(tree, is_ruby) == expected


def test_the_job_comes_behind_the_tree_which_stays_as_it_is() -> None:
    tree = chain(job("p"), job("R"))
    before = copy.deepcopy(tree)
    ended = with_end(tree, "Noop", "python")
    assert tree == before
    assert ended["children"][:2] == tree["children"]
    (end,) = ended["children"][2:]
    assert (end["class"], end["queue"], end["swf_step"]) == ("Noop", "python", 0)
    assert with_end(job("R"), "Noop", "python", OF_TREE)["children"][0] == job("R")
    assert [is_end(number) for number in (0, -1, 1, None, False, "0")] == [True, True, False, False, False, False]


trees = st.recursive(
    st.sampled_from(["R", "p"]).map(job),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda children: chain(*children)),
        st.lists(inner, max_size=3).map(lambda children: group(*children)),
        st.tuples(inner, st.sampled_from([0, 100])).map(lambda pair: delayed(*pair)),
        inner.map(lambda fallback: {**job("p"), "swf_on_death": fallback}),
    ),
    max_leaves=8,
)


def last_jobs(node: Wire, delay: int = 0) -> list[str]:
    """The classes of the jobs that may be the last ones of a tree; an empty node that is delayed is a job, too."""
    if node["__type__"] == "job":
        fallback = node.get("swf_on_death")
        return [node["class"], *(last_jobs(fallback) if fallback else [])]
    if node["__type__"] == "with_delay":
        return last_jobs(node["task"], delay + node["delay"])
    children = node["children"]
    if node["__type__"] == "group":
        found = [name for child in children for name in last_jobs(child, delay)]
        return found or (["noop"] if delay else [])
    if not children:
        return ["noop"] if delay else []
    for child in reversed(children[1:]):
        if found := last_jobs(child):
            return found
    return last_jobs(children[0], delay)


@given(trees)
def test_any_tree_ends_in_ruby_if_ruby_may_run_a_last_step(tree: Wire) -> None:
    assert ends_in_ruby(tree, is_ruby) == ("R" in last_jobs(tree))
    total, _ = number_steps(tree, lambda step: not is_ruby(step))
    ended = with_end(tree, "Noop", "python")
    assert [step["swf_step"] for step in jobs(ended) if step["class"] == "Noop"] == [0]
    assert total == sum(1 for _ in jobs(ended)) - 1
