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


def _cancel(runs: Runs, run_id: str, form: Mapping[str, str]) -> object:
    return runs.cancel(run_id, form.get("reason", "")[:1000])


ACTIONS = (
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
