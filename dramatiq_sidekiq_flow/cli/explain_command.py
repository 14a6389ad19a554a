"""Command ``runs explain``: why a run stands where it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .program import FAILED
from .redis_options import redis_options

if TYPE_CHECKING:
    from ..broker import SidekiqBroker


@click.command(short_help="Explain why a run waits or cannot move, and what to do.")
@click.argument("run_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@redis_options
@click.pass_context
def explain(context: click.Context, broker: SidekiqBroker, run_id: str, as_json: bool) -> None:
    """Explain the run ID: where each open step is and since when, why it waits or cannot move, and the cure.

    The exit code is 1 if the run is failed or stuck.
    """
    from ..runs import Runs
    from .explanation_view import print_explanation
    from .run_json import explanation_json

    explanation = Runs(broker).explain(run_id)
    if as_json:
        click.echo(explanation_json(explanation))
    else:
        print_explanation(explanation)
    if explanation.verdict in ("failed", "stuck"):
        context.exit(FAILED)
