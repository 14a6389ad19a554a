"""Commands ``runs ...``: see where runs stand, and steer them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from .durations import read_duration, read_since
from .explain_command import explain
from .groups import CommandGroup
from .program import FAILED
from .redis_options import redis_options
from .signal_command import signal
from .steering_commands import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..broker import SidekiqBroker
    from ..runs import Run

#: The states that are recorded.
STATES = ("running", "failed", "paused", "cancelled", "done")

#: The recorded states in which a run can be cancelled.
CANCELLABLE = ("running", "failed", "paused")

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_id = click.argument("run_id", metavar="ID")


@click.group(cls=CommandGroup, short_help="See where runs stand and why, and steer them.")
def runs() -> None:
    """See where runs stand and why, and steer them."""


@click.command("list", short_help="List runs, the newest first.")
@click.option("--state", type=click.Choice(STATES), metavar="STATE", help=f"One of {', '.join(STATES)}.")
@click.option("--template", metavar="NAME", help="Only runs of this template.")
@click.option("--tag", metavar="TAG", help="Only runs with this tag.")
@click.option("--since", callback=read_since, metavar="TIME", help="Only runs started since 30m, 2h, 7d or 2026-11-26.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, metavar="N", help="At most N runs.")
@click.option("--after", metavar="ID", help="The page after this run, the last of the page before.")
@_json
@redis_options
def list_runs(
    broker: SidekiqBroker,
    state: str | None,
    template: str | None,
    tag: str | None,
    since: datetime | timedelta | None,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """List runs, the newest first, as they are recorded: a run that waits, or is stuck, is listed as running.

    Output to a pipe is not shortened.
    """
    from ..runs import Runs
    from .run_json import runs_json
    from .run_table import print_runs

    found = Runs(broker).list(state=state, template=template, tag=tag, since=since, limit=limit, after=after)
    if as_json:
        click.echo(runs_json(found))
    else:
        print_runs(found, limit)


@click.command(short_help="Show one run: its tree, progress and failures.")
@_id
@click.option("--steps", is_flag=True, help="List each step; with --json, include the steps.")
@_json
@redis_options
@click.pass_context
def show(context: click.Context, broker: SidekiqBroker, run_id: str, steps: bool, as_json: bool) -> None:
    """Show the run ID: its tree, progress and failures.

    The exit code is 1 if the run is failed or stuck.
    """
    from ..runs import Runs
    from .run_json import run_json
    from .run_view import print_run

    run = Runs(broker).get(run_id)
    if as_json:
        click.echo(run_json(run, steps))
    else:
        print_run(run, steps)
    if run.state in ("failed", "stuck"):
        context.exit(FAILED)


@click.command(short_help="Watch one run until it is at rest.")
@_id
@redis_options
@click.pass_context
def watch(context: click.Context, broker: SidekiqBroker, run_id: str) -> None:
    """Watch the run ID until it is done, failed, cancelled or stuck.

    Output to a pipe has a line for each change. The exit code is 0 if the run is done, else 1.
    """
    from ..runs import Runs
    from .run_watch import watch_run

    run = watch_run(Runs(broker), run_id)
    if run.state != "done":
        context.exit(FAILED)


@click.command(short_help="Wait until one run is at rest.")
@_id
@click.option("--timeout", callback=read_duration, metavar="TIME", help="At most 90 (seconds), 30s, 5m, 2h or 1d.")
@redis_options
@click.pass_context
def wait(context: click.Context, broker: SidekiqBroker, run_id: str, timeout: timedelta | None) -> None:
    """Wait until the run ID is done, failed, cancelled or stuck, and print its state.

    The exit code is 0 if the run is done, else 1; after the timeout, it is 2.
    """
    from ..runs import Runs

    run = Runs(broker).wait(run_id, timeout=timeout)
    click.echo(run.state)
    if run.state != "done":
        context.exit(FAILED)


@click.command(short_help="Cancel one run, or all runs of a filter.")
@click.argument("run_id", metavar="[ID]", required=False)
@click.option("--reason", default="", metavar="TEXT", help="Kept in the record of the run.")
@click.option("--state", type=click.Choice(CANCELLABLE), metavar="STATE", help=f"One of {', '.join(CANCELLABLE)}.")
@click.option("--template", metavar="NAME", help="All runs of this template.")
@click.option("--tag", metavar="TAG", help="All runs with this tag.")
@_json
@redis_options
@click.pass_context
def cancel(
    context: click.Context,
    broker: SidekiqBroker,
    run_id: str | None,
    reason: str,
    state: str | None,
    template: str | None,
    tag: str | None,
    as_json: bool,
) -> None:
    """Cancel the run ID, or all runs of a filter: what runs, ends, and nothing new of them starts.

    Prints the ids of the runs that were cancelled. The exit code is 1 if the run ID was done before.
    """
    from ..runs import Runs
    from .run_json import ids_in, ids_json

    found: Run | Sequence[str] = Runs(broker).cancel(  # type: ignore[call-overload]
        run_id, reason, template=template, tag=tag, state=state
    )
    ids = ids_in(found, ("cancelled",))
    click.echo(ids_json(ids) if as_json else "".join(f"{each}\n" for each in ids), nl=as_json)
    if run_id is not None and not ids:
        context.exit(FAILED)


for _command in (list_runs, show, explain, watch, wait, cancel, signal, *COMMANDS):
    runs.add_command(_command)
