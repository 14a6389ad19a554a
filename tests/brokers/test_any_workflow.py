"""For any workflow, on every kind of broker: each step runs, in order, and where nothing is lost, once."""

from __future__ import annotations

import collections
import itertools
from typing import Any

import dramatiq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dramatiq_sidekiq_flow import Job, Workflow, current_run

from ..running import eventually
from ..trees import Shape, build, shapes, violations
from .conftest import App


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # the workers do, meanwhile
def test_any_workflow(app: App) -> None:
    """One worker for all examples; some steps are Ruby's."""
    events: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)

    @dramatiq.actor(queue_name="python", broker=app.broker)
    def note(n: int) -> None:
        run = current_run()
        events[run.run_id] += (("start", n), ("end", n))

    class Log(list[Any]):
        """Where the other side writes: the step's first argument is its run and number."""

        def append(self, value: Any) -> None:
            if isinstance(value, str) and ":" in value:
                run_id, _, n = value.rpartition(":")
                events[run_id] += (("start", int(n)), ("end", int(n)))

    numbers = itertools.count()
    app.log = Log()
    there = app.ruby()
    there.classes["note"] = {"queue": "python"}

    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(shape=shapes, ruby=st.sets(st.integers(0, 13)))
    def one(shape: Shape, ruby: set[int]) -> None:
        run_id = f"run{next(numbers)}"

        def job(n: int) -> Any:
            return Job("Docs::Step", f"{run_id}:{n}", queue="ruby") if n in ruby else note.message(n)

        tree, count = build(shape, job)
        Workflow(tree, broker=app.broker).run(run_id)
        eventually(
            lambda: len(events[run_id]) >= 2 * count and app.settled() and not app.client.zcard("schedule"),
            what=f"the end of {tree}; seen {events[run_id]}",
        )
        assert sorted(events[run_id]) == sorted((what, n) for n in range(count) for what in ("start", "end"))
        assert list(violations(shape, count, events[run_id])) == []

    with there, app.working():
        one()
    assert app.dead() == []
