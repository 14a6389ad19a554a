"""What is done to runs from outside: paused, resumed, cancelled, retried, and signals sent to them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from dramatiq_sidekiq_flow import Runs
from dramatiq_sidekiq_flow.errors import CannotRetry
from dramatiq_sidekiq_flow.process import upkeep
from dramatiq_sidekiq_flow.runs import resting_runs

from .scenario import DATA, Run, run_id, signal_of


def _pause(runs: Runs, number: int, run: Run) -> None:
    runs.pause(run_id(number), "swept")


def _resume(runs: Runs, number: int, run: Run) -> None:
    runs.resume(run_id(number))


def _cancel(runs: Runs, number: int, run: Run) -> None:
    runs.cancel(run_id(number), "swept")


def _retry(runs: Runs, number: int, run: Run) -> None:
    runs.retry(run_id(number))


def _restart(runs: Runs, number: int, run: Run) -> None:
    # An earlier call may have started the steps, which are at work now.
    with contextlib.suppress(CannotRetry):
        runs.retry(run_id(number), mode="failed_and_after")


def _signal(runs: Runs, number: int, run: Run) -> None:
    for step, options in run.options.items():
        if "waits" in options:
            runs.signal(run_id(number), signal_of(step), DATA)


#: What can be done to a run; each may be done again after an error.
ACTIONS: Mapping[str, Callable[[Runs, int, Run], None]] = {
    "pause": _pause,
    "resume": _resume,
    "cancel": _cancel,
    "retry": _retry,
    "restart": _restart,
    "signal": _signal,
}


def hurry_keeper() -> None:
    """Let the keeper of this process look often, and take the place of another one soon."""
    upkeep.BETWEEN = upkeep.IDLE = 0.1
    upkeep.CLAIM = upkeep.INTERVAL = 1
    resting_runs.FIRST = 0.0
    vars(resting_runs)["RUBY_BEAT"] = 1.0
