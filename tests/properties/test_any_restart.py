"""For any run that went on past dead steps: each of them, and what comes after it, runs again once, in order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow import Runs

from .test_any_death import Expected, Shape, World, trees


@given(shape=trees, seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_dead_steps_and_what_comes_after_them_run_again_once_and_in_order(
    redis_url: str, shape: Shape, seed: int
) -> None:
    world = World(redis_url, shape, random.Random(seed))
    try:
        world.work()
        has_died = bool(world.expected.deaths)
        again = sorted(_again(shape, itertools.count(), world.expected.deaths))
        world.expected.deaths.clear()
        begin = len(world.log)
        Runs(world.broker).retry(world.run_id, "failed_and_after")
        world.work()
        log = world.log[begin:]
        assert sorted(n for what, n in log if what == "start") == again
        _check_order(shape, log)
        if has_died:
            _check_run(shape, world)
    finally:
        world.broker.close()


def _again(shape: Shape, numbers: Iterator[int], died: dict[int, str]) -> list[int]:
    """The steps that run when all that have died run again, and live."""
    kind = shape[0]
    if kind == "delay":
        return _again(shape[1], numbers, died)
    if kind == "group":
        return [n for each in shape[1] for n in _again(each, numbers, died)]
    if kind == "chain":
        found: list[int] = []
        for each in shape[1]:
            found += _living(each, numbers) if found else _again(each, numbers, died)
        return found
    return [n for n in _living(shape, numbers) if n in died]


def _living(shape: Shape, numbers: Iterator[int]) -> list[int]:
    """The steps of a tree that run when none of them dies."""
    expected = Expected()
    return expected.visit(_alive(shape), numbers)[0]


def _alive(shape: Shape) -> Shape:
    if shape[0] in ("chain", "group"):
        return (shape[0], [_alive(each) for each in shape[1]])
    return (shape[0], _alive(shape[1])) if shape[0] == "delay" else (shape[0], "", *map(_alive, shape[2:]))


def _check_order(shape: Shape, log: list[tuple[str, int]]) -> None:
    expected = Expected()
    expected.visit(_alive(shape), itertools.count())
    for first, second in expected.pairs:
        if ("start", first) in log and ("start", second) in log:
            assert log.index(("end", first)) < log.index(("start", second))


def _check_run(shape: Shape, world: World) -> None:
    """All steps are done, and no job and no failure is left."""
    run = Runs(world.broker).get(world.run_id)
    assert (run.state, run.failures) == ("done", ())
    total = len(_living(shape, itertools.count()))
    assert (run.progress.done, run.progress.total, run.progress.failed) == (total, total, 0)
    (listed,) = Runs(world.broker).list(state="done")
    assert (listed.progress.done, listed.progress.total) == (total, total)
    assert not world.client.zcard("dead")
