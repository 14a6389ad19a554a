"""Actions on a run: one entry for each button."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from ..runs import Run, Runs


@attrs.frozen
class Field:
    """A field beside a button.

    Attributes:
      choices: The values to choose from; empty for text.
    """

    name: str
    label: str
    choices: tuple[str, ...] = ()


@attrs.frozen
class Action:
    """A button of the page of a run.

    Attributes:
      name: In its address.
      states: The states of a run in which it is shown.
      act: Called in a thread with the values of the fields.
      says: What it does, in a sentence or two.
      is_grave: True if it cannot be undone.
    """

    name: str
    label: str
    states: frozenset[str]
    act: Callable[[Runs, str, Mapping[str, str]], object]
    says: str
    fields: tuple[Field, ...] = ()
    is_grave: bool = False


def _pause(runs: Runs, run_id: str, form: Mapping[str, str]) -> object:
    return runs.pause(run_id, form.get("reason", "")[:1000])


def _resume(runs: Runs, run_id: str, form: Mapping[str, str]) -> object:
    return runs.resume(run_id)


def _retry(runs: Runs, run_id: str, form: Mapping[str, str]) -> object:
    return runs.retry(run_id)


def _cancel(runs: Runs, run_id: str, form: Mapping[str, str]) -> object:
    return runs.cancel(run_id, form.get("reason", "")[:1000])


ACTIONS = (
    Action(
        name="retry",
        label="Retry",
        states=frozenset(("failed",)),
        act=_retry,
        says="The dead steps of the run go back to their queues.",
    ),
    Action(
        name="resume",
        label="Resume",
        states=frozenset(("paused",)),
        act=_resume,
        says="What is parked goes where it belongs, and the run goes on.",
    ),
    Action(
        name="pause",
        label="Pause",
        states=frozenset(("running", "waiting", "failed")),
        act=_pause,
        says="What runs, ends; what would follow is parked until the run is resumed. It may take up to 15 seconds.",
        fields=(Field("reason", "Reason"),),
    ),
    Action(
        name="cancel",
        label="Cancel",
        states=frozenset(("running", "waiting", "paused", "failed", "stuck")),
        act=_cancel,
        says="What runs, ends; nothing new of the run starts. This cannot be undone, and may take up to 15 seconds.",
        fields=(Field("reason", "Reason"),),
        is_grave=True,
    ),
)


def actions_for(run: Run) -> tuple[Action, ...]:
    """The buttons of a run."""
    return tuple(action for action in ACTIONS if run.state in action.states)


def find_action(name: str) -> Action | None:
    """Find an action by its name."""
    return next((action for action in ACTIONS if action.name == name), None)
