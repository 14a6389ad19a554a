"""Command ``runs signal``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from .program import FAILED
from .redis_options import redis_options

if TYPE_CHECKING:
    from ..broker import SidekiqBroker


def _data(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    try:
        return None if value is None else json.loads(value)
    except ValueError as e:
        raise click.BadParameter(f"not JSON: {e}") from None


@click.command(short_help="Send a signal to one run.")
@click.argument("run_id", metavar="ID")
@click.argument("name", metavar="NAME")
@click.option("--data", callback=_data, metavar="JSON", help="For the memory of the run, under the name of the signal.")
@redis_options
@click.pass_context
def signal(context: click.Context, broker: SidekiqBroker, run_id: str, name: str, data: Any) -> None:
    """Send the signal NAME to the run ID: its steps WaitFor(NAME) go on, now or when their turn comes.

    The exit code is 1 if the run was done or cancelled before.
    """
    from ..runs import Runs

    if not Runs(broker).signal(run_id, name, data):
        context.exit(FAILED)
