"""Random workflow trees, and what must hold of any execution of one."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from dramatiq_sidekiq_flow import Chain, Group, WithDelay

#: A tree before it has jobs: "job", or (kind, children); of the kind "any", one child is enough for what follows.
Shape = Any

shapes: st.SearchStrategy[Shape] = st.recursive(
    st.just("job"),
    lambda inner: (
        st.tuples(st.sampled_from(["chain", "group"]), st.lists(inner, max_size=4))
        | st.tuples(st.just("delay"), st.integers(0, 20), inner)
    ),
    max_leaves=14,
)


def random_shape(rng: random.Random, depth: int) -> Shape:
    """A shape without hypothesis, for runs of many."""
    kind = rng.choice(["job", "job", "chain", "group", "delay"]) if depth else "job"
    if kind == "job":
        return "job"
    if kind == "delay":
        return ("delay", rng.randrange(0, 30), random_shape(rng, depth - 1))
    return (kind, [random_shape(rng, depth - 1) for _ in range(rng.randrange(0, 4))])


def build(
    shape: Shape,
    job: Callable[[int], Any],
    unit: int = 1,
    kinds: tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]] = (Chain, Group, WithDelay),
) -> tuple[Any, int]:
    """The workflow of a shape, whose jobs are ``job(0)``, ``job(1)``... in order; and how many there are.

    Its delays are in ``unit`` milliseconds.  ``kinds`` make its chains, groups and delays.
    """
    chain, group, delayed = kinds
    numbers = itertools.count()

    def node(shape: Shape) -> Any:
        if shape == "job":
            return job(next(numbers))
        if shape[0] == "delay":
            return delayed(node(shape[2]), timedelta(milliseconds=shape[1] * unit))
        return (chain if shape[0] == "chain" else group)(*map(node, shape[1]))

    tree = node(shape)
    return tree, next(numbers)


def before(shape: Shape) -> set[tuple[int, int]]:
    """Pairs of jobs of which the first must have ended when the second starts."""
    return {(earlier[0], later) for earlier, later in _before(shape) if len(earlier) == 1}


def _before(shape: Shape) -> set[tuple[tuple[int, ...], int]]:
    """Jobs of which one must have ended when another one starts, and that one.  Members of "any" are single jobs."""
    numbers = itertools.count()
    pairs: set[tuple[tuple[int, ...], int]] = set()

    def jobs(shape: Shape) -> tuple[list[tuple[int, ...]], list[int]]:
        """What must have ended when a job starts that comes after the shape; and all its jobs."""
        if shape == "job":
            number = next(numbers)
            return [(number,)], [number]
        if shape[0] == "delay":
            return jobs(shape[2])
        parts = [jobs(child) for child in shape[1]]
        found = [number for _, inside in parts for number in inside]
        if shape[0] == "any":
            return [tuple(found)], found
        if shape[0] == "chain":
            for (earlier, _), (_, later) in itertools.combinations(parts, 2):
                pairs.update(itertools.product(earlier, later))
        return [each for ends, _ in parts for each in ends], found

    jobs(shape)
    return pairs


def violations(shape: Shape, count: int, events: list[tuple[str, int]]) -> Iterator[str]:
    """What is wrong with a list of ``("start" | "end", job)``, where a job may run more than once."""
    first_start: dict[int, int] = {}
    first_end: dict[int, int] = {}
    for place, (what, job) in enumerate(events):
        (first_start if what == "start" else first_end).setdefault(job, place)
    for job in range(count):
        if job not in first_end:
            yield f"job {job} never ended"
    for some, b in _before(shape):
        ends = [first_end[a] for a in some if a in first_end]
        if ends and b in first_start and first_start[b] < min(ends):
            yield f"job {b} started before job {' or '.join(map(str, some))} had ended"
