"""Command ``doctor``: finds the runs that do not go on by themselves, and fixes them."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, cast

import click

from .program import FAILED
from .redis_options import redis_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..broker import SidekiqBroker
    from ..runs import Explanation
    from ..runs.remedies import Action, Fix

#: The fixes, as in ``runs.doctor``.
FIXES = ("rerun", "release", "fail", "cancel")

#: Seconds between two lines of progress.
BETWEEN = 1.0


@click.command(short_help="Find the runs that do not go on by themselves, and fix them.")
@click.argument("run_ids", metavar="[ID ...]", nargs=-1)
@click.option("--fix", type=click.Choice(FIXES), metavar="FIX", help=f"Show what a fix would do: {', '.join(FIXES)}.")
@click.option("--yes", is_flag=True, help="Do it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@redis_options
@click.pass_context
def doctor(
    context: click.Context, broker: SidekiqBroker, run_ids: tuple[str, ...], fix: str | None, yes: bool, as_json: bool
) -> None:
    """Find the runs that are failed or stuck, or have steps that do not go on without a person; or examine the runs ID.

    \b
    --fix rerun    the dead steps run again
    --fix release  the dead steps count as done, and the runs go on without them
    --fix fail     steps whose jobs are nowhere are recorded as dead
    --fix cancel   the runs are cancelled

    Without --yes, nothing is changed. The exit code is 1 if a run was found, and was not fixed.
    """
    from ..runs import Runs
    from ..runs.doctor import Doctor

    if yes and fix is None:
        raise click.UsageError("--yes needs --fix.", context)
    found: list[tuple[Explanation, Sequence[Action]]] = []
    examiner, progress = Doctor(Runs(broker)), _Progress()
    for explanation in examiner.examine(run_ids, progress=progress):
        actions = [] if fix is None else examiner.fix(explanation, cast("Fix", fix), dry=not yes)
        progress.clear()
        found.append((explanation, actions))
        if not as_json:
            _print(explanation, actions)
    progress.clear()
    _end(context, found, progress.total, as_json)


def _print(explanation: Explanation, actions: Sequence[Action]) -> None:
    from .explanation_view import print_illness

    print_illness(explanation, actions)
    sys.stdout.flush()


def _end(
    context: click.Context, found: Sequence[tuple[Explanation, Sequence[Action]]], total: int, as_json: bool
) -> None:
    from .run_json import doctor_json

    if as_json:
        click.echo(doctor_json(found))
    elif found:
        click.echo(f"{len(found):,} of {total:,} runs. More: sidekiq-flow runs explain ID")
    else:
        click.echo(f"{total:,} runs are open, and all of them go on.")
    if not all(map(_is_fixed, (actions for _, actions in found))):
        context.exit(FAILED)


def _is_fixed(actions: Sequence[Action]) -> bool:
    return bool(actions) and all(action.outcome == "done" for action in actions)


class _Progress:
    """A line on the terminal with the number of runs that were examined."""

    def __init__(self) -> None:
        self.total = 0
        self._next = time.monotonic() + BETWEEN
        self._is_shown = False

    def __call__(self, seen: int, total: int) -> None:
        self.total = total
        if time.monotonic() >= self._next and sys.stderr.isatty():
            self._next = time.monotonic() + BETWEEN
            self._is_shown = True
            click.echo(f"\r{seen:,} of {total:,} runs", nl=False, err=True)

    def clear(self) -> None:
        if self._is_shown:
            self._is_shown = False
            click.echo("\r\x1b[K", nl=False, err=True)
