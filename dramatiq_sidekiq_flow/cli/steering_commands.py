"""Commands ``runs pause``, ``runs resume`` and ``runs retry``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from .program import FAILED
from .redis_options import redis_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..broker import SidekiqBroker
    from ..runs import Run

#: The recorded states in which runs can be paused, resumed and retried.
PAUSABLE = ("running", "failed")
RESUMABLE = ("paused",)
RETRIABLE = ("failed", "running", "paused", "cancelled", "done")

#: What is retried of a run.
MODES = ("failed", "failed_and_after", "all")


def _selecting(states: Sequence[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a command with what selects runs: an id, or a filter with a state of these."""
    decorators = (
        click.argument("run_id", metavar="[ID]", required=False),
        click.option("--state", type=click.Choice(states), metavar="STATE", help=f"One of {', '.join(states)}."),
        click.option("--template", metavar="NAME", help="All runs of this template."),
        click.option("--tag", metavar="TAG", help="All runs with this tag."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        redis_options,
        click.pass_context,
    )

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorated


@click.command(short_help="Pause one run, or all runs of a filter.")
@_selecting(PAUSABLE)
@click.option("--reason", default="", metavar="TEXT", help="Kept in the record until the run is resumed.")
def pause(
    context: click.Context, broker: SidekiqBroker, run_id: str | None, reason: str, as_json: bool, **where: Any
) -> None:
    """Pause the run ID, or all runs of a filter: what runs, ends, and what would follow waits.

    Prints the ids of the runs that are paused. The exit code is 1 if the run ID was done or cancelled before.
    """
    from ..runs import Runs

    steered: Any = Runs(broker)
    found = steered.pause(run_id, reason, **where)
    _print_ids(context, found, as_json, ("paused",))


@click.command(short_help="Resume one paused run, or all of a filter.")
@_selecting(RESUMABLE)
def resume(context: click.Context, broker: SidekiqBroker, run_id: str | None, as_json: bool, **where: Any) -> None:
    """Resume the paused run ID, or all paused runs of a filter: their jobs go back where they belong.

    Prints the ids of the runs that go on. The exit code is 1 if the run ID is done or cancelled.
    """
    from ..runs import Runs

    steered: Any = Runs(broker)
    found = steered.resume(run_id, **where)
    _print_ids(context, found, as_json, ("running", "waiting", "failed", "stuck"))


@click.command(short_help="Retry the dead steps of one run, or of all runs of a filter.")
@_selecting(RETRIABLE)
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default="failed",
    show_default=True,
    metavar="MODE",
    help=f"One of {', '.join(MODES)}.",
)
def retry(
    context: click.Context, broker: SidekiqBroker, run_id: str | None, mode: str, as_json: bool, **where: Any
) -> None:
    """Retry the dead steps of the run ID, or of all runs of a filter: they go back to their queues.

    With --mode failed_and_after, dead steps that a run went on past are retried, too, and what comes after each
    runs again. With --mode all, the whole run starts again, as a new run.

    Prints the ids of the runs that go on. The exit code is 1 if the run ID is done or cancelled.
    """
    from ..runs import Runs

    steered: Any = Runs(broker)
    found = steered.retry(run_id, mode, **where)
    _print_ids(context, found, as_json, ("running", "waiting", "paused", "failed", "stuck"))


def _print_ids(context: click.Context, found: Run | Sequence[str], as_json: bool, states: Sequence[str]) -> None:
    """Print the ids of runs; exit with 1 if it is one run, in another state than one of these."""
    from .run_json import ids_in, ids_json

    ids = ids_in(found, states)
    click.echo(ids_json(ids) if as_json else "".join(f"{each}\n" for each in ids), nl=as_json)
    if not isinstance(found, list) and not ids:
        context.exit(FAILED)


COMMANDS = (pause, resume, retry)
