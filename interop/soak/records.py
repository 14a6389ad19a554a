"""What the records of the runs of a column say in the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dramatiq_sidekiq_flow import Runs
from dramatiq_sidekiq_flow.errors import UnknownRun
from dramatiq_sidekiq_flow.runs import Run, Step

from .run_judge import Look
from .steerer import Plan
from .systems import PYTHON, RUBY


def looks(runs: Runs, plans: Mapping[int, Plan]) -> dict[int, Look]:
    """Look at each run; those without a record are missing."""
    found = {}
    for number, plan in plans.items():
        try:
            found[number] = _look(runs.get(plan.run_id))
        except UnknownRun:
            continue
    return found


def _look(run: Run) -> Look:
    steps = [step for step in run.steps if step.name in (RUBY, PYTHON)]
    progress = run.progress
    return Look(
        state=run.state,
        left=(progress.total or 0) - progress.done - progress.failed,
        done=_numbers(step for step in steps if step.state == "done"),
        dead=_numbers(step for step in steps if step.state == "dead"),
        skipped=_numbers(step for step in steps if step.state == "skipped"),
    )


def _numbers(steps: Iterable[Step]) -> frozenset[int]:
    """The numbers that the steps have in the soak: their second arguments."""
    return frozenset(int(step.args.split(",")[1]) for step in steps)
