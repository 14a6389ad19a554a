"""The nodes that stand for the steps of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from dramatiq_sidekiq_flow import Catch, Chain, Group, Job, MayFail, SidekiqBroker, WaitFor

from .scenario import CALLS, Options, Scenario, signal_of

QUEUE = "sweep"


@attrs.frozen
class Part:
    """What typed steps take and return."""

    text: str = ""


def typed_name(run: int, step: int) -> str:
    """The actor of a typed step."""
    return f"Sweep::Typed{run}x{step}"


def class_of(options: Options) -> str:
    """The actor of a step."""
    if "dies" in options:
        return "Sweep::Dies"
    return "Sweep::Mended" if options.get("fail") == "mended" else "Sweep::Step"


def step_maker(scenario: Scenario, number: int, broker: SidekiqBroker) -> Callable[[int], Any]:
    """Return what makes the steps of a run."""
    run = scenario.runs[number]

    def step(index: int) -> Any:
        options = dict(run.options.get(index, {}))
        name = class_of(options)
        if run.how == "typed":
            return broker.get_actor(typed_name(number, index)).message(Part("a"))
        if run.how == "message" or run.plain:
            return broker.get_actor(name).message(number, index, options)
        return _placed(Job(name, number, index, options), number, index, options)

    return step


def _placed(job: Job, number: int, index: int, options: dict[str, Any]) -> Any:
    """What stands in the tree for a job."""
    dies = options.get("dies")
    if dies == "caught":
        return Catch(job, Job("Sweep::Step", number, index, {}))
    if dies == "done" or "may" in options:
        return MayFail(job)
    if "needs" in options:
        return Group(
            job, *(Job("Sweep::Dies", number, index, {"dies": "caught"}) for _ in range(options["needs"])), need=1
        )
    if "waits" in options:
        return Chain(WaitFor(signal_of(index), queue=QUEUE), job)
    if "late" in options:
        return WaitFor(signal_of(index), options["late"], job, queue=QUEUE)
    return job


def calls_of(scenario: Scenario, number: int) -> dict[str, Any]:
    """The callbacks of a run, as arguments of ``Workflow``."""
    calls = scenario.runs[number].calls
    return {f"on_{name}": Job("Sweep::Call", number, CALLS[name]) for name in calls}
